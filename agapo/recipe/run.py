"""The sections that every run has: `run`, `checkpoint`, `tracking`, `cluster`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from agapo.recipe.section import AbsolutePath, Strict


class RunConfig(Strict):
    """Where the run lives and what makes it repeatable."""

    name: str = Field(default="", pattern=r"^([\w\-][\w.\-]*)?$")
    """Folder below `<output>/<stage>/`; defaults to the recipe's file name."""
    seed: int = Field(default=0, ge=0)
    output: AbsolutePath = Field(default=Path("outputs"), validate_default=True)


class CheckpointConfig(Strict):
    """How often the state that a resumed run needs is saved."""

    every: int = Field(default=50, ge=1)
    keep: int = Field(default=2, ge=1)


class TrackingConfig(Strict):
    """What people see."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online where a W&B key is configured, offline otherwise."""
    project: str = "agapo"
    samples_every: int = Field(default=20, ge=0)
    """Show one sampled response every so many steps; 0 never."""
    rollout_rows: int = Field(default=8, ge=0)
    """Responses a step that go into the W&B rollout table (`rollouts.jsonl` has them all)."""


class ClusterConfig(Strict):
    """The Ray cluster."""

    address: str | None = None
    """An existing cluster (`auto`, `ray://host:10001`); None starts one on this machine."""
