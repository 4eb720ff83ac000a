"""The modes that a model is asked in: those of the recipe that its chat template knows."""

from collections.abc import Callable
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from agapo.chat import template_modes
from agapo.recipe import Recipe
from agapo.schema import Mode

R = TypeVar("R", bound=Recipe)
ASKED = ("evaluation", "needle")
"""Sections with a list of modes that the model is asked in."""


def fit_modes(recipe: R, tokenizer: PreTrainedTokenizerBase, say: Callable[[str], object] = lambda line: None) -> R:
    """Return the recipe with the modes that the template tells apart, and say so in a line where that changes any.

    A template without a switch for thinking renders both modes alike. Asked in `reasoning` mode, such a model would
    never be right: it has no reason to close a block that nothing opened.
    """
    known = template_modes(tokenizer)
    changes = {name: section for name in ASKED if (section := _asked_in(getattr(recipe, name, None), known))}
    if recipe.stage in ("rl", "dpo", "filter") and recipe.data and (section := _drawn_from(recipe.data, known)):
        changes["data"] = section
    if not changes:
        return recipe
    how = "has no switch for thinking" if known == ("non_reasoning",) else "always opens a thinking block"
    say(f"the model's chat template {how}: every prompt is asked in {known[0].replace('_', '-')} mode")
    return recipe.model_copy(update=changes)


def _asked_in(section: Any, known: tuple[Mode, ...]) -> Any:
    """Return the section with modes that are known; None where it has no others."""
    modes = getattr(section, "modes", None)
    if not modes or set(modes) <= set(known):
        return None
    return section.model_copy(update={"modes": [mode for mode in modes if mode in known] or list(known)})


def _drawn_from(section: Any, known: tuple[Mode, ...]) -> Any:
    """Like `_asked_in`, for shares by mode."""
    if set(section.modes) <= set(known):
        return None
    left = {mode: share for mode, share in section.modes.items() if mode in known}
    return section.model_copy(update={"modes": left or {known[0]: 1.0}})
