"""What `agapo filter` does with an RL recipe: the parts of it that decide how hard a prompt is."""

from typing import Literal

from pydantic import Field, model_validator

from agapo.recipe.base import Recipe
from agapo.recipe.data import DataConfig
from agapo.recipe.evaluation import RLEvaluationConfig
from agapo.recipe.reward import RewardConfig
from agapo.recipe.rl import RLRecipe
from agapo.recipe.rollout import RolloutConfig


class FilterRecipe(Recipe):
    """`agapo filter RECIPE`: made from an RL recipe, so that prompts are asked and judged as in training."""

    stage: Literal["filter"] = "filter"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: DataConfig
    reward: RewardConfig
    rollout: RolloutConfig
    evaluation: RLEvaluationConfig
    samples: int = Field(default=8, ge=1)
    """Responses a prompt."""
    drop_from: float = Field(default=1.0, gt=0, le=1)
    """Prompts with at least this share of correct responses are dropped: 1 drops those that are always solved."""
    drop_below: float = Field(default=0.0, ge=0, lt=1)
    """Prompts with a smaller share are dropped: 0 keeps those that are never solved."""

    @model_validator(mode="after")
    def _keeps_something(self) -> "FilterRecipe":
        if self.drop_below >= self.drop_from:
            raise ValueError(f"--drop-below {self.drop_below:g} should be smaller than --drop-from {self.drop_from:g}")
        return self


def filter_recipe(recipe: RLRecipe, *, samples: int, drop_from: float, drop_below: float) -> FilterRecipe:
    """Return the filter that goes with an RL recipe. Raises pydantic's ValidationError."""
    shared = ("run", "model", "data", "reward", "rollout", "evaluation", "checkpoint", "tracking", "cluster")
    sections = {name: getattr(recipe, name) for name in shared}
    return FilterRecipe(**sections, samples=samples, drop_from=drop_from, drop_below=drop_below)
