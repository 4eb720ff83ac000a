"""What `agapo ablate` compares: variants of one RL recipe, from the same starts, over seeds."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from agapo.recipe.section import AbsolutePath, RecipePath, Strict, check_once

Name = Annotated[str, Field(pattern=r"^[\w\-]+$")]
"""Of a variant or start: a part of its runs' names."""

SET_HERE = {
    "run.seed": "seeds says how many there are",
    "run.name": "the runs' names are made of start, updates, variant and seed",
    "run.output": "output says where the runs are kept",
    "algorithm.updates_per_batch": "updates lists them",
    "tracking.wandb": "the runs are many, and are not sent to W&B",
    "evaluation.keep": "the last weights are compared, as the best of many evaluations would flatter what varies most",
}
"""Keys of the RL recipe that an override would set in vain, and why."""


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
        seen: dict[str, tuple[str, int, str]] = {}
        for one in product(self.starts, self.updates, self.variants):
            start, updates, variant = one
            name = f"{start}-{updates}-{variant}"
            if (other := seen.setdefault(name, one)) != one:
                raise ValueError(
                    f"start {start} with variant {variant}, and {other[0]} with {other[2]}, would be one run, {name}; "
                    "rename one of them"
                )
        return self

    @model_validator(mode="after")
    def _overrides_count(self) -> "Ablation":
        for where, override in self._overrides():
            if reason := SET_HERE.get(override.partition("=")[0]):
                raise ValueError(f"{where}: {override}: {reason}; leave it out")
        return self

    def _overrides(self) -> Iterator[tuple[str, str]]:
        yield from (("overrides", one) for one in self.overrides)
        for section, given in (("starts", self.starts), ("variants", self.variants)):
            yield from ((f"{section}.{name}", one) for name, several in given.items() for one in several)
