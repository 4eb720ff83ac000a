"""The modes that a chat template knows, and recipes that are fitted to them."""

from pathlib import Path

import pytest

from agapo.chat import template_modes
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe import DPORecipe, RLRecipe, SFTRecipe, load_recipe
from agapo.stages.running.modes import fit_modes

LLAMA = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(template: str | None = None):
    made = build_tokenizer()
    made.chat_template = template or made.chat_template
    return made


@pytest.mark.parametrize(
    ("template", "known"),
    [(None, ("reasoning", "non_reasoning")), (LLAMA, ("non_reasoning",)), (f"{LLAMA}<think>\n", ("reasoning",))],
)
def test_what_a_template_knows(template: str | None, known: tuple[str, ...]) -> None:
    assert template_modes(tokenizer(template)) == known


def test_a_template_that_knows_both_changes_nothing() -> None:
    recipe = load_recipe(RLRecipe, Path("recipes/rl/tiny.yaml"))
    assert fit_modes(recipe, tokenizer(), pytest.fail) is recipe


def test_a_model_without_a_thinking_mode_is_asked_in_plain_mode_and_it_is_said() -> None:
    told: list[str] = []
    recipe = fit_modes(load_recipe(RLRecipe, Path("recipes/rl/qwen3_gsm8k.yaml")), tokenizer(LLAMA), told.append)
    assert recipe.data.modes == {"non_reasoning": 1.0}
    assert recipe.evaluation.modes == ["non_reasoning"]
    assert told == ["the model's chat template has no switch for thinking: every prompt is asked in non-reasoning mode"]


def test_a_model_that_always_thinks_is_asked_in_reasoning_mode() -> None:
    told: list[str] = []
    recipe = fit_modes(load_recipe(DPORecipe, Path("recipes/dpo/tiny.yaml")), tokenizer(f"{LLAMA}<think>"), told.append)
    assert (recipe.data.modes, recipe.evaluation.modes) == ({"reasoning": 1.0}, ["reasoning"])
    assert "always opens a thinking block" in told[0]


def test_fine_tuning_keeps_its_data_and_is_measured_in_the_mode_that_there_is() -> None:
    recipe = load_recipe(SFTRecipe, Path("recipes/sft/tiny_domains.yaml"))
    fitted = fit_modes(recipe, tokenizer(LLAMA))
    assert fitted.data == recipe.data
    assert fitted.evaluation.modes == ["non_reasoning"]
