"""What `agapo ablate` compares: variants of one RL recipe, from the same starts, over seeds."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from agapo.recipe.section import AbsolutePath, RecipePath, Strict, check_once

Name = Annotated[str, Field(pattern=r"^[\w\-]+$")]
"""Of a variant or start: a part of its runs' names."""


class Ablation(Strict):
    """`agapo ablate FILE`: every variant from every start, with every number of updates a batch, over the seeds."""

    name: str = Field(default="", pattern=r"^([\w\-][\w.\-]*)?$")
    """Folder below `<output>/ablate/`; defaults to the file's name."""
    output: AbsolutePath = Field(default=Path("outputs"), validate_default=True)
    """Where it is kept."""
    base: RecipePath
    """The RL recipe that the variants change."""
    overrides: list[str] = Field(default_factory=list)
    """`key.path=value`, for all runs. `max_sampled_tokens` among them lets all sample as much."""
    starts: dict[Name, list[str]] = Field(default_factory=lambda: {"start": []}, min_length=1)
    """By name, the overrides of a start: another model, or harder questions."""
    variants: dict[Name, list[str]] = Field(min_length=2)
    """By name, the overrides of a variant. The others are compared with the first."""
    updates: list[int] = Field(default=[1], min_length=1)
    """`algorithm.updates_per_batch`, one after another."""
    seeds: int = Field(default=5, ge=2)
    """Runs of each, with `run.seed` 0, 1, …"""
    parallel: int = Field(default=1, ge=1)
    """Runs at once, on this machine."""

    @model_validator(mode="after")
    def _each_once(self) -> "Ablation":
        check_once(self.updates, "number of updates")
        return self
