"""The recipe of an evaluation: a model, and what is measured of it."""

from typing import Literal

from pydantic import field_validator, model_validator

from agapo.recipe.base import Recipe
from agapo.recipe.data import DataConfig
from agapo.recipe.evaluation import SampledEvaluationConfig
from agapo.recipe.needle import NeedleConfig
from agapo.recipe.reward import RewardConfig
from agapo.recipe.rollout import RolloutConfig


class EvalRecipe(Recipe):
    """`agapo eval RECIPE`: accuracy on `prompts`, the needle test, or both."""

    stage: Literal["eval"] = "eval"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Nothing is trained on: the questions are `prompts`."""
    prompts: DataConfig | None = None
    """Questions for the accuracy; their test split is asked."""
    reward: RewardConfig | None = None
    """What judges the answers to them."""
    rollout: RolloutConfig = RolloutConfig()
    """How responses are sampled; `evaluation.sampling` says at which temperature, whatever this one's."""
    evaluation: SampledEvaluationConfig = SampledEvaluationConfig()
    needle: NeedleConfig | None = None

    @field_validator("data", mode="before")
    @classmethod
    def _no_data(cls, value: object) -> None:
        if value is not None:
            raise ValueError("an evaluation trains on nothing: give its questions as 'prompts'")

    @model_validator(mode="after")
    def _something_to_do(self) -> "EvalRecipe":
        if not (self.prompts or self.needle):
            raise ValueError("give questions ('prompts', with a 'reward'), the 'needle' test, or both")
        if bool(self.prompts) != bool(self.reward):
            raise ValueError("'prompts' and 'reward' go together: the questions, and what judges the answers")
        budgets, room = self.evaluation.thinking_budgets, self.rollout.max_new_tokens
        if budgets and budgets[-1] >= room:
            raise ValueError(
                f"evaluation.thinking_budgets: {budgets[-1]} leaves no room for an answer in rollout.max_new_tokens "
                f"({room}); lower the one or raise the other"
            )
        if self.model.path and self.model.start:
            raise ValueError(
                "model: give 'path' (a model) or 'start' (a recipe whose run makes it), not both; with neither it is "
                "the last finished run's"
            )
        if self.model.rope and not self.model.path:
            raise ValueError("model.rope: a run's model has its own; set it in the recipe that makes it")
        return self
