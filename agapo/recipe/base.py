"""What every stage's recipe has."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from agapo.recipe.data import DataConfig
from agapo.recipe.model import ModelConfig
from agapo.recipe.run import CheckpointConfig, ClusterConfig, RunConfig, TrackingConfig
from agapo.recipe.section import Strict


class Recipe(Strict):
    """What every stage's recipe has."""

    stage: Literal["sft", "rl", "dpo", "filter", "eval"]
    """What the recipe is for; `agapo` has a command of the same name."""
    run: RunConfig = RunConfig()
    model: ModelConfig
    data: DataConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)

    @property
    def run_directory(self) -> Path:
        """`<output>/<stage>/<name>`."""
        return self.run.output / self.stage / self.run.name

    @property
    def hf_directory(self) -> Path:
        """Where the finished model is exported for transformers and vLLM."""
        return self.run_directory / "hf"
