"""The sections that every run has: `run`, `checkpoint`, `tracking`, `cluster`."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from agapo.recipe.section import AbsolutePath, Strict

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""In a Ray job, what `ray job submit` was told."""


class RunConfig(Strict):
    """Where the run lives and what makes it repeatable."""

    name: str = Field(default="", pattern=r"^([\w\-][\w.\-]*)?$")
    """Folder below `<output>/<stage>/`; defaults to the recipe's file name."""
    seed: int = Field(default=0, ge=0)
    """Of everything that is drawn: data order, sampling, initial weights."""
    on_step: str = ""
    """`package.module:function`, called as `function(step, metrics)` with each line of `metrics.jsonl`: a step's, and
    an evaluation's. What it raises is said, and it is not called again."""
    output: AbsolutePath = Field(default=Path("outputs"), validate_default=True)
    """Where runs are kept."""


ABLATIONS = "ablate"
"""Folder of an output folder in which each ablation has an output folder of its own."""


def project_of(output: Path) -> Path:
    """Return the project whose output folder, or an ablation's, this is."""
    return output.parents[2] if output.parent.name == ABLATIONS and len(output.parents) > 2 else output.parent


class CheckpointConfig(Strict):
    """How often the state that a resumed run needs is saved."""

    every: int = Field(default=50, ge=1)
    """Steps from one checkpoint to the next; the last step is saved too."""
    keep: int = Field(default=2, ge=1)
    """So many of the newest checkpoints stay."""
    background: bool = False
    """Write it while training goes on; the hosts' memory takes a copy of what their ranks save. (In SFT and preference
    learning under ZeRO.)"""


class TrackingConfig(Strict):
    """What people see."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online where a W&B key is configured, offline otherwise."""
    project: str = "agapo"
    """W&B's project."""
    tensorboard: bool = False
    """Write metrics and samples for TensorBoard as well, below the run's folder (`agapo[tensorboard]`)."""
    samples_every: int = Field(default=20, ge=0)
    """Show one sampled response every so many steps; 0 never."""
    rollout_rows: int = Field(default=8, ge=0)
    """Responses a step that go into the W&B rollout table (`rollouts.jsonl` has them all)."""


class ClusterConfig(Strict):
    """The Ray cluster."""

    address: str | None = Field(default_factory=lambda: _cluster_of_the_job())
    """An existing cluster (`auto`, `10.0.0.1:6379`); None starts one on this machine. By default None, and in a Ray job
    (`ray job submit`) the job's (docs/cluster.md)."""


def _cluster_of_the_job() -> str | None:
    return os.environ.get("RAY_ADDRESS", "auto") if JOB in os.environ else None
