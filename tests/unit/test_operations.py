"""Operations and bytes by formula, against sums by hand, and against tokens a second that were measured."""

from typing import Any

import pytest

from agapo.model.memory import FineTuningSetup
from agapo.model.operations import (
    cache_bytes,
    decode_bytes,
    forward_operations,
    layer_weights,
    training_operations,
)
from agapo.model.sizes import PUBLISHED, ModelSizes
from agapo.preflight.planning.pace import (
    Actor,
    Lengths,
    cache_rows,
    decode_steps,
    forward_seconds,
    learn_seconds,
    network_bytes,
    offload_bytes,
    sample_seconds,
    step_seconds,
    sync_seconds,
)
from agapo.recipe.hardware import RatesConfig

SMALL = ModelSizes(
    hidden=8, layers=2, intermediate=16, heads=4, kv_heads=2, head_dim=2, vocabulary=10, tied=False, context=64
)
"""A layer's maps have 64 + 32 + 32 + 64 + 3·128 = 576 weights, the output layer 80; 1,360 parameters in all."""
QWEN = PUBLISHED["Qwen/Qwen3-0.6B"]


def test_a_forward_pass_by_hand() -> None:
    assert (layer_weights(SMALL), SMALL.parameters) == (1152, 1360)
    # 2·1152·10 + 2·2·8·10² + 2·80·4
    assert forward_operations(SMALL, 10, 4) == 23040 + 3200 + 640


def test_a_backward_pass_is_two_forward_ones_and_checkpointing_one_more_of_the_layers() -> None:
    assert training_operations(SMALL, 10, 4) == 3 * 26880
    assert training_operations(SMALL, 10, 4, checkpointing=True) == 3 * 26880 + 26240


def test_frozen_weights_have_no_gradients_of_their_own() -> None:
    # 2·(23040 + 640) + 3·3200 + 6·100·10
    assert training_operations(SMALL, 10, 4, adapters=100) == 47360 + 9600 + 6000
    assert training_operations(SMALL, 10, 4, adapters=100, checkpointing=True) == 62960 + 26240 + 2000


def test_it_is_six_operations_a_weight_and_token_where_sequences_are_short() -> None:
    weights = layer_weights(QWEN) + QWEN.embedding
    assert training_operations(QWEN, 16, 16) / 16 == pytest.approx(6 * weights, rel=0.01)


def test_a_decode_step_reads_weights_and_cache() -> None:
    assert cache_bytes(SMALL, 15, 2) == 2 * 2 * 2 * 4 * 15
    # The embedding's 80 are not read, and three rows hold five tokens each.
    assert decode_bytes(SMALL, 3, 5, 2) == 2 * 1280 + 480
    assert decode_bytes(QWEN, 0, 0, 2) == 2 * QWEN.parameters


# --- seconds ---

RATES = RatesConfig(tflops=1, learning_share=0.5, bandwidth_gb_s=1, bandwidth_share=0.5, network_gb_s=2)


def test_learning_is_operations_over_speed() -> None:
    setup = FineTuningSetup(10, 1, ranks=4)
    found = learn_seconds(SMALL, setup, RATES, sequences=100, tokens=10, headed=4)
    assert found == pytest.approx(100 * 80640 / (4 * 0.5e12))
    assert forward_seconds(SMALL, 2, RATES, sequences=100, tokens=10, headed=4) == pytest.approx(2688000 / 1e12)
    assert learn_seconds(SMALL, setup, RatesConfig(), sequences=1, tokens=10, headed=4) is None


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        # Halved: of two hosts each has its own half already. Three micro-batches.
        ({"zero_stage": 0}, 8 * 1360 / 2),
        ({"zero_stage": 1}, 6 * 1360 / 2),
        ({"zero_stage": 2}, 2 * 1360 * 4 / 2),
        ({"zero_stage": 3}, 2 * 3 * 1360 * 3 / 2),
        ({"zero_stage": 3, "adapters": 10}, 2 * (2 * 1370 + 10) * 3 / 2),
    ],
)
def test_what_the_network_carries(changes: dict[str, Any], sent: float) -> None:
    setup = FineTuningSetup(10, 1, ranks=16, **changes)
    assert network_bytes(SMALL, setup, 3, hosts=2) == pytest.approx(sent)
    assert network_bytes(SMALL, setup, 3, hosts=1) == 0


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        # Three micro-batches; 28 bytes of AdamW.
        ({"zero_stage": 1}, (6 + 28) * 1360 / 4),
        ({"zero_stage": 2}, (2 * 4 + 28) * 1360 / 4),
        ({"zero_stage": 3}, (2 * 3 * 3 + 28) * 1360 / 4),
        ({"zero_stage": 3, "adapters": 10}, (2 * (2 * 1370 + 10) * 3 + 280) / 4),
        ({"zero_stage": 3, "offload": False}, 0),
    ],
)
def test_what_offloading_moves(changes: dict[str, Any], moved: float) -> None:
    setup = FineTuningSetup(10, 1, ranks=4, **{"offload": True, **changes})
    assert offload_bytes(SMALL, setup, 3) == pytest.approx(moved)


def test_an_engine_that_fills_its_rows_and_one_that_waits_for_the_longest() -> None:
    lengths = Lengths(prompt=50, response=100, longest=150)
    vllm = Actor(vllm=True, gpus=1, responses=512, together=256, number=2)
    assert decode_steps(vllm, lengths) == (200, 256)
    waits = Actor(vllm=False, gpus=1, responses=512, together=256, number=2)
    assert decode_steps(waits, lengths) == (300, pytest.approx(51200 / 300))
    # No batch is done before its longest response.
    assert decode_steps(vllm, Lengths(50, 100, 1000)) == (1000, pytest.approx(51.2))


def test_the_cache_bounds_the_rows() -> None:
    lengths = Lengths(prompt=5, response=10, longest=20)
    assert cache_rows(SMALL, lengths, 2, room=4800, gpus=2) == 9600 / 480


@pytest.mark.parametrize(
    ("vllm", "rows", "measured"),
    [(True, 64, 11_500), (True, 256, 16_200), (False, 64, 890), (False, 256, 2_990)],
)
def test_decoding_takes_what_an_h200_measured(vllm: bool, rows: int, measured: float) -> None:
    """docs/gpu.md, 2026-11-27: prompts of 512 tokens at most and 128 new ones; the card reads 4,800 GB/s."""
    actor = Actor(vllm, gpus=1, responses=rows, together=rows, number=2)
    step = step_seconds(QWEN, actor, rows, 512 + 64, RatesConfig(bandwidth_gb_s=4800))
    assert step
    assert rows / step == pytest.approx(measured, rel=0.05)


def test_sampling_is_prefill_and_decoding_or_what_was_measured() -> None:
    lengths = Lengths(prompt=50, response=100, longest=150)
    actor = Actor(vllm=True, gpus=2, responses=16, together=16, number=2)
    step = step_seconds(SMALL, actor, 16 * 100 / 150, 100, RATES)
    prefill = forward_seconds(SMALL, 2, RATES, sequences=2, tokens=50, headed=1)
    assert step and prefill
    assert step == pytest.approx(1.7e-3 + 30e-6 * 1600 / 150 + decode_bytes(SMALL, 1600 / 150, 100, 2) / 1e9)
    assert sample_seconds(SMALL, actor, 2, lengths, RATES) == pytest.approx(150 * step + prefill)
    assert sample_seconds(SMALL, actor, 2, lengths, RatesConfig(sampling_tokens_s=400)) == 1600 / 400
    assert sample_seconds(SMALL, actor, 2, lengths, RatesConfig(tflops=1)) is None


def test_weights_are_packed_sent_to_each_other_host_and_taken() -> None:
    gib = 1.11 * 1024**3
    # docs/gpu.md: 0.79 s and 0.61 s.
    assert sync_seconds(gib, 0, "host", RatesConfig()) == pytest.approx(1.40, rel=0.01)
    assert sync_seconds(3e9, 2, "host", RATES) == pytest.approx(3 / 1.5 + 2 * 3 / 2 + 3 / 1.95)
    assert sync_seconds(3e9, 2, "broadcast", RATES) == pytest.approx(3 / 2 + 3 / 1.95)
    assert sync_seconds(3e9, 0, "ipc", RATES) == pytest.approx(3 / 1.95)
    assert sync_seconds(3e9, 2, "host", RatesConfig()) is None
