"""The needle test's part of a recipe: is a fact found again, wherever it lies in a context of whatever length?"""

from typing import Any

from pydantic import Field, field_validator

from agapo.recipe.reward import RewardConfig, RewardTerm
from agapo.recipe.section import Strict, check_once
from agapo.schema import Mode


def _verdict() -> RewardConfig:
    return RewardConfig(terms=[RewardTerm(name="needle", function="rewards.needle:score")], workers=1)


class NeedleConfig(Strict):
    """A grid of length × position, each cell the share of needles that were found."""

    source: str = "data.long_context:needles"
    """`package.module:function`, called as `function("test", lengths=[…], positions=[…], per_cell=…, seed=…, **args)`
    with lengths in its own unit (words); yields `per_cell` prompts for each, always in the same order."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the source."""
    lengths: list[int] = Field(min_length=1)
    """Tokens of the rendered prompt, at most. At the model's whole context, room for the response is taken off."""
    positions: list[float] = Field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0], min_length=1)
    """Where the needle lies, from 0 (the start) to 1 (the end)."""
    per_cell: int = Field(default=10, ge=1)
    """Prompts a cell."""
    modes: list[Mode] = Field(default_factory=lambda: ["non_reasoning"], min_length=1)
    """Modes that each prompt is asked in."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Raise it for reasoning mode: a response that is cut has no answer."""
    green: float = Field(default=0.9, gt=0, le=1)
    """A cell with at least this share found is green."""
    stop: bool = True
    """Whether a cell that is not green ends the run with an error, and keeps other runs from starting from it."""
    reward: RewardConfig = Field(default_factory=_verdict)
    """What decides whether the needle was found."""
    chunk_tokens: int = Field(default=32768, ge=1)
    """Prompt tokens that an actor samples together; a longer prompt goes alone."""

    @field_validator("lengths", "positions")
    @classmethod
    def _ascending(cls, values: list[float]) -> list[float]:
        if sorted(set(values)) != values:
            raise ValueError("should be ascending, without repeats")
        return values

    @field_validator("lengths")
    @classmethod
    def _some_tokens(cls, values: list[int]) -> list[int]:
        if values[0] < 1:
            raise ValueError("should be above 0")
        return values

    @field_validator("positions")
    @classmethod
    def _inside(cls, values: list[float]) -> list[float]:
        if not 0 <= values[0] <= values[-1] <= 1:
            raise ValueError("should be between 0 (the start of the context) and 1 (its end)")
        return values

    _each_once = field_validator("modes")(lambda modes: check_once(modes, "mode"))
