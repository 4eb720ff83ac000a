"""Sizes of models: the formula against models that are built, against LoRA's own count and published totals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Exaone4Config, PreTrainedConfig, Qwen3Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from agapo.errors import UserError
from agapo.model.sizes import PUBLISHED, config_sizes, published_sizes

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}
CONFIGS = {
    "exaone4": Exaone4Config(**SMALL, sliding_window=64, sliding_window_pattern=4, tie_word_embeddings=False),
    "exaone4-tied": Exaone4Config(**SMALL, sliding_window=64, sliding_window_pattern=4, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL, tie_word_embeddings=False),
    "qwen3-tied": Qwen3Config(**SMALL, tie_word_embeddings=True),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_formula_is_what_a_model_has(config: PreTrainedConfig) -> None:
    sizes, model = config_sizes(config), AutoModelForCausalLM.from_config(config)
    assert replace(sizes, counted=None).parameters == sum(p.numel() for p in model.parameters())
    assert sizes.parameters == sum(p.numel() for p in model.parameters())


def test_dimensions_are_read_from_the_config() -> None:
    sizes = config_sizes(CONFIGS["exaone4"])
    assert (sizes.queries, sizes.keys, sizes.vocabulary, sizes.context, sizes.tied) == (96, 32, 97, 512, False)
    assert sizes.local_layers == 3
    assert config_sizes(CONFIGS["qwen3"]).local_layers == 0


@pytest.mark.parametrize(
    ("name", "parameters", "billions"),
    [
        ("LGAI-EXAONE/EXAONE-4.0-1.2B", 1_279_391_488, "1.28"),
        ("LGAI-EXAONE/EXAONE-4.0-32B", 32_003_216_384, "32.0"),
        ("Qwen/Qwen3-0.6B", 596_049_920, "0.6"),
        ("Qwen/Qwen3-1.7B", 1_720_574_976, "1.7"),
        ("Qwen/Qwen3-32B", 32_762_123_264, "32.8"),
    ],
)
def test_published_totals(name: str, parameters: int, billions: str) -> None:
    found = PUBLISHED[name].parameters
    assert found == parameters
    assert f"{found / 1e9:.{len(billions.partition('.')[2])}f}" == billions


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
def test_adapters_are_counted_as_peft_makes_them(targets: list[str] | str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIGS["qwen3"])
    adapted = get_peft_model(model, LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM"))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert config_sizes(CONFIGS["qwen3"]).adapter_parameters(3, targets) == trained


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(UserError, match=r"training\.lora\.targets: 'q_prj' is none of .*; did you mean 'q_proj'\?"):
        config_sizes(CONFIGS["qwen3"]).adapter_parameters(3, ["q_prj"])


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="the sizes of a '' are not in its config"):
        config_sizes(PreTrainedConfig())


def test_rope_stretches_a_published_context() -> None:
    rope = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 32768, "max_position_embeddings": None}
    stretched = published_sizes("Qwen/Qwen3-1.7B", rope)
    assert stretched and stretched.context == 131_072
    assert published_sizes("Qwen/Qwen3-1.7B", rope | {"max_position_embeddings": 100_000}).context == 100_000  # pyright: ignore[reportOptionalMemberAccess]
    assert published_sizes("someone/else") is None
