"""The recipe of an evaluation: a model, and the suites that it goes through."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from agapo.recipe.base import DataConfig, Recipe, Strict
from agapo.recipe.needle import NeedleConfig
from agapo.recipe.rl import RewardConfig, RolloutConfig
from agapo.schema import MODES, Mode


class AccuracyConfig(Strict):
    """Greedy accuracy on the test split of one or several sources."""

    prompts: DataConfig
    reward: RewardConfig
    modes: list[Mode] = Field(default_factory=lambda: list(MODES), min_length=1)
    size: int = Field(default=512, ge=1)
    """Questions, shared out by the sources' weights."""
    chunk_prompts: int = Field(default=128, ge=1)
    """Prompts that one actor answers together."""


class EvalRecipe(Recipe):
    """`agapo eval RECIPE`: every suite that the recipe has is run."""

    stage: Literal["eval"] = "eval"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Nothing is trained on: the questions are `accuracy.prompts`."""
    accuracy: AccuracyConfig | None = None
    needle: NeedleConfig | None = None
    rollout: RolloutConfig = RolloutConfig()
    """How responses are sampled; greedily, whatever its temperature, and one a prompt."""

    @field_validator("data", mode="before")
    @classmethod
    def _no_data(cls, value: object) -> None:
        if value is not None:
            raise ValueError("an evaluation trains on nothing: give its questions as accuracy.prompts")

    @model_validator(mode="after")
    def _something_to_do(self) -> "EvalRecipe":
        if not (self.accuracy or self.needle):
            raise ValueError("give a suite: 'accuracy', 'needle' or both")
        if self.model.path and self.model.start:
            raise ValueError(
                "model: give 'path' (a model) or 'start' (a recipe whose run makes it), not both; with neither it is "
                "the last finished run's"
            )
        if self.model.rope and not self.model.path:
            raise ValueError("model.rope: a run's model has its own; set it in the recipe that makes it")
        return self
