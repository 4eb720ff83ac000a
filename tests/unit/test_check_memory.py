"""The memory estimate against what is measured: weights, gradients, AdamW, DeepSpeed's state, saved activations."""

import os
import subprocess
import sys
from dataclasses import replace
from inspect import signature
from typing import Any

import pytest
import torch
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from torch import nn
from transformers import AutoModelForCausalLM, Exaone4Config, Qwen3Config
from transformers.masking_utils import create_causal_mask
from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
from trl.trainer import utils as trl_utils

from agapo.learner.trl.fine_tuning import with_adapters
from agapo.model.memory import (
    BUCKET,
    GIB,
    HEAD_TILE,
    LIVE,
    SMALL,
    FineTuningSetup,
    Memory,
    layer_bytes,
    mask_bytes,
    small_count,
    state_parts,
    training_memory,
)
from agapo.model.sizes import PUBLISHED, config_sizes
from agapo.recipe.lora import LoRAConfig

SIZE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
}
TOKENS = 128
LORA = LoRAConfig(rank=4, alpha=8)


def config(kind: type, layers: int = 2) -> Any:
    attention: dict[str, Any] = {"layer_types": ["full_attention"] * layers} if kind is Exaone4Config else {}
    return kind(**SIZE, num_hidden_layers=layers, **attention)


def build(kind: type, layers: int = 2, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_config(config(kind, layers), dtype=dtype, attn_implementation="sdpa")


def one_step(model: nn.Module) -> dict[str, int]:
    """Bytes of weights, gradients and AdamW's moments after a step."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    ids = torch.arange(16)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    moments = [v for state in optimizer.state.values() for name, v in state.items() if name.startswith("exp_avg")]
    tensors = {"weights": list(model.parameters()), "gradients": [p.grad for p in trained], "optimizer": moments}
    return {name: sum(t.nbytes for t in found) for name, found in tensors.items()}


@pytest.mark.parametrize("kind", [Exaone4Config, Qwen3Config])
def test_state_is_what_a_step_leaves(kind: type) -> None:
    state = Memory(state_parts(config_sizes(config(kind)), FineTuningSetup(TOKENS, 1, bfloat16=False)))
    assert {name: state.of(name) for name in ("weights", "gradients", "optimizer")} == one_step(build(kind))


def test_state_under_adapters_is_what_a_step_leaves() -> None:
    sizes = config_sizes(config(Qwen3Config))
    model = with_adapters(build(Qwen3Config, dtype=torch.bfloat16), LORA)
    setup = FineTuningSetup(TOKENS, 1, adapters=sizes.adapter_parameters(4, "all-linear"))
    state = Memory(state_parts(sizes, setup))
    assert {name: state.of(name) for name in ("weights", "gradients", "optimizer")} == one_step(model)


DEEPSPEED = """
import gc, sys, deepspeed, torch
from transformers import AutoModelForCausalLM, Qwen3Config
from agapo.learner.deepspeed_config import deepspeed_config, skip_compiled_extension
from tests.unit.test_check_memory import build

def storages():
    gc.collect()
    return [o.untyped_storage() for o in gc.get_objects() if isinstance(o, torch.Tensor)]

def held():
    found = {s.data_ptr(): s.nbytes() for s in storages()}
    return sum(found.values()) - sum(found.get(at, 0) for at in {s.data_ptr() for s in others})

class Watched(torch.optim.AdamW):
    def step(self, closure=None):
        self.held = held()
        return super().step(closure)

skip_compiled_extension()
deepspeed.init_distributed("gloo")
others = storages()  # libraries' own; held, so that no address comes twice
model = build(Qwen3Config, dtype=torch.bfloat16)
config = deepspeed_config(zero_stage=int(sys.argv[1]), bfloat16=True)
config["zero_optimization"] |= {"reduce_bucket_size": 100_000, "stage3_param_persistence_threshold": 0}
optimizer = Watched(model.parameters(), fused=True)
engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
ids = torch.arange(16)[None]
for step in range(2):
    engine.backward(engine(input_ids=ids, labels=ids).loss)
    backward = held()
    engine.step()
print("BYTES", backward, optimizer.held)
"""


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_state_under_zero_is_what_deepspeed_holds(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agapo.model.memory.BUCKET", 100_000)
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    # Not all of ours: trainers that ran in this process before leave variables that decide what DeepSpeed does.
    own = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment = {**own, **alone, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", DEEPSPEED, str(stage)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert "BYTES" in done.stdout, done.stderr[-2000:]
    backward, update = map(int, done.stdout.rpartition("BYTES")[2].split())
    state = Memory(state_parts(config_sizes(config(Qwen3Config)), FineTuningSetup(TOKENS, 1, zero_stage=stage)))
    expected = sum(state.of(name) for name in ("weights", "gradients", "optimizer"))
    # The bucket is there, or has just been given back; and a few numbers besides.
    assert expected <= backward <= (expected + state.of("buckets")) * 1.002
    expected += state.of("optimizer's gradients")
    assert expected <= update <= (expected + state.of("buckets")) * 1.002


def saved_bytes(model: nn.Module, *, autocast: bool) -> int:
    """Bytes that the layers save for the backward pass, weights aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden = model(input_ids=torch.arange(TOKENS)[None] % 64, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("kind", [Exaone4Config, Qwen3Config])
@pytest.mark.parametrize(
    ("dtype", "autocast", "within"),
    [(torch.float32, False, 0.01), (torch.bfloat16, False, 0.01), (torch.float32, True, 0.08)],
    ids=["float32", "bfloat16", "autocast"],
)
def test_activations_are_what_a_layer_saves(kind: type, dtype: torch.dtype, autocast: bool, within: float) -> None:
    two, four = (saved_bytes(build(kind, n, dtype).model, autocast=autocast) for n in (2, 4))
    sizes, bfloat16 = config_sizes(config(kind)), autocast or dtype == torch.bfloat16
    # One sequence without packing: as flash attention, no mask.
    setup = FineTuningSetup(
        TOKENS, 1, zero_stage=0 if autocast else 1, bfloat16=bfloat16, attention="flash_attention_2"
    )
    copies = 2 * sum(a * b for a, b in sizes.linear.values()) if autocast else 0
    assert (four - two) / 2 == pytest.approx(layer_bytes(sizes, setup) + copies, rel=within)


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_activations_under_adapters_are_what_a_layer_saves(bfloat16: bool) -> None:
    def saved(layers: int) -> int:
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        adapted: Any = with_adapters(build(Qwen3Config, layers, dtype), LORA)
        return saved_bytes(adapted.get_base_model().model, autocast=bfloat16)

    setup = FineTuningSetup(TOKENS, 1, adapters=1, attention="flash_attention_2", bfloat16=bfloat16)
    expected = layer_bytes(config_sizes(config(Qwen3Config)), setup)
    assert (saved(4) - saved(2)) / 2 == pytest.approx(expected, rel=0.1)


def test_checkpointing_keeps_inputs_and_one_layer() -> None:
    sizes = PUBLISHED["LGAI-EXAONE/EXAONE-4.0-1.2B"]
    setup = FineTuningSetup(16384, 1, ranks=8, zero_stage=2, attention="flash_attention_2")
    layer = 16384 * (12 * 2048 + 4 * 2048 + 6 * (2048 + 512) + 4 * (2048 + 512) + 8 * 4096)
    assert layer_bytes(sizes, setup) == layer
    working = 16384 * 16 * 2048
    assert training_memory(sizes, setup).of("activations") == 30 * layer + working
    checkpointed = training_memory(sizes, replace(setup, gradient_checkpointing=True))
    assert checkpointed.of("activations") == 30 * 16384 * 2 * 2048 + layer + working


def test_masks_of_packed_rows_are_what_transformers_makes() -> None:
    positions = torch.arange(64).repeat(2, 2)
    model_config = config(Qwen3Config)
    model_config._attn_implementation = "sdpa"
    mask = create_causal_mask(
        config=model_config,
        inputs_embeds=torch.zeros(2, 128, 8),
        attention_mask=None,
        past_key_values=None,
        position_ids=positions,
    )
    setup = FineTuningSetup(128, 2)
    assert mask is not None and mask_bytes(config_sizes(config(Qwen3Config)), setup) == mask.nbytes == 2 * 128 * 128
    assert mask_bytes(PUBLISHED["LGAI-EXAONE/EXAONE-4.0-32B"], setup) == 2 * mask.nbytes
    assert mask_bytes(PUBLISHED["LGAI-EXAONE/EXAONE-4.0-32B"], replace(setup, attention="flash_attention_2")) == 0


def test_sharding_divides_and_offload_moves() -> None:
    sizes, count = PUBLISHED["Qwen/Qwen3-32B"], PUBLISHED["Qwen/Qwen3-32B"].parameters
    base = FineTuningSetup(4096, 1, ranks=32, zero_stage=1, attention="flash_attention_2", gradient_checkpointing=True)
    share = -(-count // 32)
    expected = {1: (2 * count, 4 * count), 2: (2 * count, 4 * share), 3: (2 * share, 4 * share)}
    for stage, (weights, gradients) in expected.items():
        memory = training_memory(sizes, replace(base, zero_stage=stage))
        assert (memory.of("weights"), memory.of("gradients"), memory.of("optimizer")) == (
            weights,
            gradients,
            12 * share,
        )
        assert memory.host_bytes == 0
    offloaded = training_memory(sizes, replace(base, zero_stage=3, offload=True))
    assert offloaded.host_bytes == (2 + 4 + 12 + 4) * share
    assert {"weights", "gradients", "optimizer"}.isdisjoint(part.name for part in offloaded.at_worst)
    on_disk = training_memory(sizes, replace(base, zero_stage=3, offload=True, on_disk=True))
    assert (on_disk.host_bytes, on_disk.disk_bytes) == (0, offloaded.host_bytes)
    assert on_disk.gpu_bytes == offloaded.gpu_bytes


def test_only_the_larger_phase_counts() -> None:
    sizes = PUBLISHED["Qwen/Qwen3-0.6B"]
    short = training_memory(sizes, FineTuningSetup(16, 1, zero_stage=3, attention="flash_attention_2"))
    names = {part.name for part in short.at_worst}
    assert "optimizer's gradients" in names and "activations" not in names
    assert short.gpu_bytes == sum(part.bytes for part in short.parts if part.name in names)
    # bfloat16 weights (small ones undivided too), float32 copies, moments, gradients twice; a bucket; fragments, CUDA.
    expected = 1.05 * (22 * sizes.parameters + 2 * small_count(sizes) + 2 * BUCKET) + 0.75 * GIB
    assert short.gpu_bytes == pytest.approx(expected, abs=1)


def test_the_constants_are_those_of_the_libraries() -> None:
    zero = DeepSpeedZeroConfig.model_validate({"stage": 3})
    assert zero.reduce_bucket_size == BUCKET
    assert int(zero.max_live_parameters) + int(zero.prefetch_bucket_size) == LIVE
    assert int(zero.param_persistence_threshold) == SMALL
    assert HEAD_TILE == (TOKEN_CHUNK_SIZE, trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE)
    assert "outputs" in signature(trl_utils.add_fused_lm_head).parameters
