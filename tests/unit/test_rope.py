"""A stretched context: the frequencies are those of the formula, the logits stay where nothing is stretched."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from agapo.errors import UserError
from agapo.model.loading import export_hf, load_config, load_model
from agapo.model.rope import extend_context
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.model import RopeConfig
from tests.builders import tiny_exaone, tiny_gpt2, tiny_qwen

IDS = torch.arange(20, 60)[None]


def rope(**changes: Any) -> dict[str, Any]:
    return RopeConfig.model_validate(changes).model_dump()


@pytest.fixture(params=[tiny_exaone, tiny_qwen], ids=["exaone4", "qwen3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Models of 256 positions and heads of 8, with RoPE in some layers (EXAONE 4) or in all (Qwen3)."""
    export_hf(request.param(), build_tokenizer(), tmp_path / "hf")
    return tmp_path / "hf"


def frequencies(theta: float = 10_000.0, width: int = 8) -> list[float]:
    return [theta ** (-2 * index / width) for index in range(width // 2)]


def yarn(factor: float, original: int, theta: float = 10_000.0, width: int = 8) -> list[float]:
    """YaRN (arXiv 2309.00071, §3.2–3.3, α = 1, β = 32): frequencies that turn often stay, slow ones are divided."""

    def dimension(turns: float) -> float:
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), width - 1)
    ramp = [min(1.0, max(0.0, (index - low) / (high - low))) for index in range(width // 2)]
    return [f * (1 - part) + f / factor * part for f, part in zip(frequencies(theta, width), ramp, strict=True)]


def inverse(model: Any) -> list[float]:
    return model.model.rotary_emb.inv_freq.tolist()


def test_yarn_is_the_formula_and_raises_the_context(folder: Path) -> None:
    assert inverse(load_model(folder)) == pytest.approx(frequencies())
    model: Any = load_model(folder, rope=rope(type="yarn", factor=4))
    assert inverse(model) == pytest.approx(yarn(4, 256))
    assert inverse(model) != pytest.approx(frequencies())
    assert model.model.rotary_emb.attention_scaling == pytest.approx(0.1 * math.log(4) + 1)
    assert model.config.max_position_embeddings == 1024


def test_linear_and_theta(folder: Path) -> None:
    linear = load_model(folder, rope=rope(type="linear", factor=8))
    assert inverse(linear) == pytest.approx([value / 8 for value in frequencies()])
    assert linear.config.max_position_embeddings == 2048
    rebased = load_model(folder, rope=rope(type="default", theta=500_000, max_position_embeddings=3000))
    assert inverse(rebased) == pytest.approx(frequencies(500_000.0))
    assert rebased.config.max_position_embeddings == 3000


def test_llama3_keeps_fast_frequencies_and_divides_slow_ones(folder: Path) -> None:
    found = inverse(load_model(folder, rope=rope(type="llama3", factor=8)))
    plain = frequencies()
    # Wavelengths of 6, 63, 628 and 6283 tokens, beside 256/4 (below: kept) and 256/1 (above: divided).
    assert found == pytest.approx([plain[0], plain[1], plain[2] / 8, plain[3] / 8])


def test_export_and_plain_reload_keep_it(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stretched = load_model(folder, rope=rope(type="yarn", factor=4)).eval()
    export_hf(stretched, build_tokenizer(), tmp_path / "again")
    stored = json.loads((tmp_path / "again/config.json").read_text())
    assert stored["max_position_embeddings"] == 1024
    assert stored["rope_parameters"] == {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 256,
    }
    with caplog.at_level(logging.WARNING, logger="transformers"):
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    assert not caplog.records
    assert torch.equal(plain(IDS).logits, stretched(IDS).logits)
    assert not torch.allclose(plain(IDS).logits, load_model(folder).eval()(IDS).logits, atol=1e-3)


@pytest.mark.parametrize("kind", ["yarn", "linear"])
def test_a_factor_of_1_changes_no_logits(folder: Path, kind: str) -> None:
    plain, same = load_model(folder).eval(), load_model(folder, rope=rope(type=kind, factor=1)).eval()
    torch.testing.assert_close(same(IDS).logits, plain(IDS).logits)
    assert same.config.max_position_embeddings == 256


@pytest.mark.parametrize("kind", ["yarn", "linear", "llama3"])
def test_the_factor_counts_from_the_original_context(folder: Path, tmp_path: Path, kind: str) -> None:
    once = load_config(folder, rope(type=kind, factor=2))
    once.save_pretrained(tmp_path / "second")
    again = load_config(tmp_path / "second", rope(type=kind, factor=2))
    assert (again.rope_parameters, again.max_position_embeddings) == (once.rope_parameters, 512)
    further = load_config(tmp_path / "second", rope(type=kind, factor=4))
    assert (further.rope_parameters["factor"], further.max_position_embeddings) == (4, 1024)


def test_the_original_context_can_be_smaller_than_what_the_config_says(folder: Path) -> None:
    # Qwen3 states 40960 and was trained on 32768.
    model = load_model(folder, rope=rope(type="yarn", factor=4, original_max_position_embeddings=200))
    assert model.config.max_position_embeddings == 800
    assert inverse(model) == pytest.approx(yarn(4, 200))


def test_a_partial_rotation_stays_one() -> None:
    config = LlamaConfig(
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=1,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    )
    extend_context(config, rope(type="linear", factor=2))
    assert config.rope_parameters["partial_rotary_factor"] == 0.5  # type: ignore[index]
    assert LlamaForCausalLM(config).config.max_position_embeddings == 256


def test_models_without_rope_or_with_several_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.rope: a model of type 'gpt2' has no rotary positions"):
        extend_context(tiny_gpt2().config, rope(factor=2))
    mixed = tiny_exaone().config
    mixed.rope_parameters = {"full_attention": {"rope_theta": 1.0}, "sliding_attention": {"rope_theta": 2.0}}
    with pytest.raises(UserError, match="differ in their RoPE"):
        extend_context(mixed, rope(factor=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "dynamic", "factor": 2}, "yarn"),
        ({"factor": 0.5}, "greater than or equal to 1"),
        ({"type": "default", "factor": 2}, "stretches nothing"),
        ({"type": "default"}, "changes nothing"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rope(**changes)
