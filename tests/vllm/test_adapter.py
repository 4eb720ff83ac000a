"""vLLM's engine with a LoRA adapter, against transformers with the same: samples, updates in mid-response, proofs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agapo.errors import UserError
from agapo.model.adapters import add_adapters
from agapo.model.loading import load_model
from agapo.model.weights import PackedWeights, pack_tensors, pack_weights, weight_layout
from agapo.recipe.lora import LoRAConfig
from agapo.recipe.rollout import VLLMConfig
from agapo.rollouts.actor import EngineSettings, make_engine
from agapo.rollouts.groups import GroupAssembly, sample_groups
from agapo.schema import Segment
from tests.builders import stirred
from tests.vllm.test_engine import PARAMS, PROMPTS, REQUESTS, differences, finish, of

LORA = LoRAConfig(rank=3, alpha=5)
"""A rank that vLLM pads, and a scaling that is no power of two."""


@pytest.fixture(scope="module")
def engine(vllm_model: Path) -> Any:
    own = VLLMConfig(cache_gib=0.25, in_flight=16)
    return make_engine(EngineSettings(str(vllm_model), "vllm", vllm=own, lora=LORA))


@pytest.fixture(autouse=True)
def nothing_is_left(engine: Any) -> Iterator[None]:
    yield
    assert not engine.busy


@pytest.fixture(scope="module")
def adapted(vllm_model: Path) -> Any:
    """The model with an adapter that does something, by the seed."""

    def make(seed: int) -> Any:
        model = load_model(vllm_model).eval()
        add_adapters(model, LORA, seed)
        return stirred(model, seed)

    return make


def packed(model: Any) -> PackedWeights:
    return pack_weights(model, weight_layout(model, torch.float32))


def test_before_the_first_update_it_is_the_start(engine: Any, vllm_model: Path) -> None:
    assert of(load_model(vllm_model).eval(), sample_groups(engine, REQUESTS, PARAMS)).max() < 1e-3


def test_log_probabilities_are_those_of_the_adapted_model(engine: Any, adapted: Any, vllm_model: Path) -> None:
    for version in (1, 2):
        model = adapted(version)
        engine.update_weights(packed(model), version)
        groups = sample_groups(engine, REQUESTS, PARAMS)
        assert {s.weights_version for g in groups for r in g.responses for s in r.segments} == {version}
        assert of(model, groups).max() < 1e-3
        assert of(load_model(vllm_model).eval(), groups).mean() > 1e-2, "the bound can tell a missing adapter"
        assert of(adapted(3 - version), groups).mean() > 1e-2, "and another one"
        assert len(engine.engine.list_loras()) == 1


def test_a_new_adapter_in_the_middle_of_responses(engine: Any, adapted: Any) -> None:
    """Two segments with two versions; the log-probabilities of each are those of that version's adapter."""
    models, params = {5: adapted(1), 6: adapted(2)}, replace(PARAMS, max_new_tokens=48)
    engine.update_weights(packed(models[5]), 5)
    assembly = GroupAssembly(REQUESTS, params)
    engine.add([item for number in range(len(REQUESTS)) for item in assembly.missing(number)], params)
    pieces = [piece for _ in range(4) for piece in engine.step()]
    weights = packed(models[6])
    engine.update_weights(weights, 6)
    weights.buffer[:] = 0  # what the engine holds is its own
    pieces += finish(engine)
    assert len(pieces) == len(REQUESTS) * PARAMS.group_size
    versions = [tuple(segment.weights_version for segment in piece.segments) for piece in pieces]
    assert versions.count((5, 6)) >= 5
    assert set(versions) >= {(5, 6), (6,)}
    for piece in pieces:
        assert sum(len(segment.token_ids) for segment in piece.segments) <= 48
        for version, model in models.items():
            check_version(piece.segments, differences(model, PROMPTS[piece.id.number], piece.segments), version)


def check_version(segments: tuple[Segment, ...], gaps: list[np.ndarray], version: int) -> None:
    for segment, gap in zip(segments, gaps, strict=True):
        if segment.weights_version == version:
            assert gap.max() < 1e-3
        elif len(gap) > 4:
            assert gap.max() > 1e-2, "the bound can tell the other adapter"


@pytest.mark.parametrize("lost", ["q_proj.lora_A", "up_proj.lora_B", "down_proj.lora_B"])
def test_weights_that_were_not_sent_damaged_or_not_applied_are_named(
    engine: Any, adapted: Any, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = packed(adapted(1))
    sent = dict(weights.named())
    name = next(name for name in sent if lost in name)
    with pytest.raises(UserError, match=f"weights 4 these .* not the learner's: {name}"):
        engine.update_weights(pack_tensors({key: sent[key] for key in sent if key != name}, torch.float32), 4)
    place = weights.layout.names.index(name)
    damaged = tuple(value + (number == place) for number, value in enumerate(weights.sums))
    with pytest.raises(UserError, match=f"not the learner's: {name}"):
        engine.update_weights(replace(weights, sums=damaged), 4)
    # vLLM reads another folder than was sent.
    real = engine._adapter.lora
    monkeypatch.setattr(engine._adapter, "engine", Changing(engine.engine, name))
    with pytest.raises(UserError, match=f"not the learner's: {name}"):
        engine.update_weights(weights, 4)
    monkeypatch.undo()
    assert engine._adapter.lora == real
    engine.update_weights(weights, 4)
    assert of(adapted(1), sample_groups(engine, REQUESTS, PARAMS)).max() < 1e-3


class Changing:
    """vLLM's engine, in whose folders one tensor is another."""

    def __init__(self, engine: Any, name: str):
        self.engine, self.name = engine, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def add_lora(self, request: Any) -> None:
        from safetensors.torch import load_file, save_file

        path = Path(request.lora_path) / "adapter_model.safetensors"
        tensors = load_file(path)
        tensors["base_model.model." + self.name.replace(".default.", ".")] += 1e-3
        save_file(tensors, path)
        self.engine.add_lora(request)


def test_nothing_is_left_in_memory(engine: Any, adapted: Any) -> None:
    engine.update_weights(packed(adapted(1)), 9)
    assert not list(Path("/dev/shm").glob("agapo-*"))
