"""The recipe of the preference stage: sample, judge, pair, train with SimPER or DPO."""

from typing import Literal

from pydantic import field_validator, model_validator

from agapo.recipe.base import Recipe
from agapo.recipe.data import DataConfig
from agapo.recipe.evaluation import EvaluationConfig
from agapo.recipe.model import ModelConfig
from agapo.recipe.pairs import GuardsConfig, PairsConfig
from agapo.recipe.reward import RewardConfig
from agapo.recipe.rollout import RolloutConfig
from agapo.recipe.section import check_modes
from agapo.recipe.trainer import PreferenceTrainingConfig


class DPORecipe(Recipe):
    """`agapo dpo RECIPE`."""

    stage: Literal["dpo"] = "dpo"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: ModelConfig = ModelConfig()
    """Without `path` and `start`: what the last finished RL run made."""
    data: DataConfig | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Prompts to sample from, and, as its test split, the questions for before and after. With `pairs.rows` only the
    latter, and not needed: then accuracy, lengths and modes are not guarded."""
    reward: RewardConfig | None = None
    """What judges the responses, those sampled and those of the test questions alike."""
    rollout: RolloutConfig = RolloutConfig()
    pairs: PairsConfig = PairsConfig()
    training: PreferenceTrainingConfig = PreferenceTrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    guards: GuardsConfig = GuardsConfig()

    _modes = field_validator("data")(lambda data: data and check_modes(data.modes) and data)

    @model_validator(mode="after")
    def _pairs_come_from_somewhere(self) -> "DPORecipe":
        if not self.pairs.rows and not (self.data and self.reward):
            raise ValueError(
                "give 'data' and 'reward' (prompts to sample, and what judges the responses), or 'pairs.rows' (pairs "
                "that exist already)"
            )
        if bool(self.data) != bool(self.reward):
            raise ValueError("'data' and 'reward' go together: the questions, and what judges the answers")
        return self

    @model_validator(mode="after")
    def _policy_has_what_it_needs(self) -> "DPORecipe":
        if self.model.path and self.model.start:
            raise ValueError("model: give 'path' (a model) or 'start' (a recipe whose run makes it), not both")
        if self.pairs.reuse and not (self.pairs.reuse.path or self.model.start):
            raise ValueError(
                "pairs.reuse: whose pairs? Give pairs.reuse.path, or as model.start the recipe of the stage before"
            )
        return self
