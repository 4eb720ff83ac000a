"""Frozen weights in 4 bits: what they are, what is left whole, and that everything that is to be one policy is."""

from pathlib import Path

import pytest
import torch
from torch import nn

from agapo.errors import UserError
from agapo.model import quantized as module
from agapo.model.adapters import (
    adapted_folder,
    add_adapters,
    load_trained,
    merge,
    save_trained_alone,
    trained_start,
)
from agapo.model.loading import create_model, export_hf, load_model
from agapo.model.logprobs import LogProbModel
from agapo.model.memory import frozen_bytes
from agapo.model.quantized import restored
from agapo.model.sizes import config_sizes
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import trained_parameters
from agapo.recipe import RLRecipe, SFTRecipe, load_recipe
from agapo.recipe.lora import LoRAConfig
from agapo.recipe.model import ModelConfig
from tests.builders import stirred, token_logprobs

bitsandbytes = pytest.importorskip("bitsandbytes")
ROOT = Path(__file__).parents[2]
LORA = LoRAConfig(rank=4, alpha=8, quantize="nf4")
PROMPT, RESPONSE = [7, 8, 9], [20, 30, 40, 50, 60]
NF4 = (
    *(-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0),
)
"""The 16 numbers (arXiv 2305.14314, appendix E)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with rows of whole blocks, but for `down_proj`, which has 96 inputs."""
    tokenizer = build_tokenizer()
    model = create_model(tokenizer, seed=0, hidden_size=64, intermediate_size=96, layers=2, head_dim=16)
    place = tmp_path_factory.mktemp("nf4") / "hf"
    export_hf(model, tokenizer, place)
    return place


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """What 4 bits leave of a matrix, by the definition."""
    blocks = weight.float().reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / scale).unsqueeze(-1).sub(torch.tensor(NF4)).abs().argmin(-1)
    return (torch.tensor(NF4)[nearest] * scale).reshape(weight.shape).to(weight.dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_linear_maps_are_rounded_and_all_else_is_not(folder: Path, dtype: str) -> None:
    plain = load_model(folder, dtype=dtype)
    held = load_model(folder, dtype=dtype, quantized=True)
    kinds = {name: type(part) for name, part in held.named_modules() if isinstance(part, nn.Linear)}
    whole = {name for name, kind in kinds.items() if kind is nn.Linear}
    assert whole == {"lm_head", *(f"model.layers.{layer}.mlp.down_proj" for layer in (0, 1))}
    back = restored(held)
    rtol = 1e-2 if dtype == "bfloat16" else 1e-5
    assert back.dtype == plain.dtype and not hasattr(back.config, "quantization_config")
    for name, weight in plain.named_parameters():
        held_so = name.removesuffix(".weight") in kinds.keys() - whole
        expected = rounded(weight.detach()) if held_so else weight
        torch.testing.assert_close(back.get_parameter(name), expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_again_changes_nothing(folder: Path, tmp_path: Path, dtype: str) -> None:
    once = restored(load_model(folder, dtype=dtype, quantized=True))
    export_hf(once, build_tokenizer(), tmp_path / "hf")
    twice = restored(load_model(tmp_path / "hf", dtype=dtype, quantized=True))
    for name, weight in once.named_parameters():
        assert torch.equal(twice.get_parameter(name), weight), name


def adapted(folder: Path, seed: int = 0):
    model = load_model(folder, quantized=True).eval()
    add_adapters(model, LORA, seed)
    return stirred(model, seed)


def test_the_merged_model_is_the_adapted_one(folder: Path) -> None:
    model = adapted(folder)
    merged = trained_start(str(folder), ModelConfig(), LORA).eval()
    merge(merged, dict(trained_parameters(model)), LORA.alpha / LORA.rank)
    with torch.no_grad():
        found, expected = (token_logprobs(one, PROMPT, RESPONSE) for one in (merged, model))
        unrounded = load_model(folder).eval()
        merge(unrounded, dict(trained_parameters(model)), LORA.alpha / LORA.rank)
        other = token_logprobs(unrounded, PROMPT, RESPONSE)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (other - expected).abs().max() > 1e-2, "the bound can tell a base that is not rounded"


def test_gradients_reach_the_adapters_alone_in_the_models_type(folder: Path) -> None:
    model = load_model(folder, dtype="bfloat16", quantized=True)
    add_adapters(model, LORA)
    trained = trained_parameters(model)
    assert trained and {value.dtype for value in trained.values()} == {torch.bfloat16}
    model(torch.tensor([PROMPT + RESPONSE])).logits.float().logsumexp(-1).sum().backward()
    assert all(value.grad is not None for name, value in trained.items() if "lora_B" in name)


def test_a_checkpoint_holds_the_adapters_alone_and_comes_back(folder: Path) -> None:
    one, two = LogProbModel(adapted(folder)), LogProbModel(adapted(folder, seed=1))
    save_trained_alone(one)
    state = {name: value.clone() for name, value in one.state_dict().items()}
    assert state.keys() == trained_parameters(one).keys()
    load_trained(state, two)
    assert all(torch.equal(value, state[name]) for name, value in trained_parameters(two).items())
    with pytest.raises(UserError, match=r"not those of learner\.lora: .* differs"):
        load_trained(dict(list(state.items())[1:]), two)


def test_vllm_gets_a_folder_of_the_rounded_model_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = Path(adapted_folder(str(folder), "float32", LORA))
    made = (place / "model.safetensors").stat().st_mtime_ns
    start = trained_start(str(folder), ModelConfig(), LORA)
    assert all(torch.equal(load_model(place).get_parameter(name), value) for name, value in start.named_parameters())
    assert adapted_folder(str(folder), "float32", LORA) == str(place)
    assert (place / "model.safetensors").stat().st_mtime_ns == made
    assert adapted_folder(str(folder), "float32", LORA.model_copy(update={"quantize": None})) == str(folder)


def test_the_estimate_is_what_the_weights_take(folder: Path) -> None:
    held = load_model(folder, dtype="bfloat16", quantized=True)
    bytes_ = sum(value.numel() * value.element_size() for value in held.parameters())
    bytes_ += sum(
        part.weight.quant_state.absmax.numel() * 4
        for part in held.modules()
        if isinstance(part, bitsandbytes.nn.Linear4bit)
    )
    copy = 2 * 64 * 96
    assert frozen_bytes(config_sizes(load_model(folder).config), 2, quantized=True) == bytes_ + copy


def test_what_cannot_work_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for kind, file, section in ((RLRecipe, "rl", "learner"), (SFTRecipe, "sft", "training")):
        changes = [f"{section}.lora.quantize=nf4", f"{section}.zero_stage=3"]
        with pytest.raises(UserError, match=r"lora\.quantize: not under zero_stage 3"):
            load_recipe(kind, ROOT / f"recipes/{file}/tiny.yaml", changes)
    narrow = create_model(build_tokenizer(), seed=0, hidden_size=32, intermediate_size=96, layers=1, head_dim=8)
    export_hf(narrow, build_tokenizer(), tmp_path / "narrow")
    with pytest.raises(UserError, match="no linear map of the model has a multiple of 64 inputs"):
        load_model(tmp_path / "narrow", quantized=True)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="needs the package bitsandbytes; run 'pip install bitsandbytes'"):
        load_model(folder, quantized=True)
