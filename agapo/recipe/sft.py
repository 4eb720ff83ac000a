"""The recipe of the SFT stage: both modes in one run, mixed by trained tokens."""

from typing import Literal

from pydantic import Field, model_validator

from agapo.recipe.base import Recipe
from agapo.recipe.curation import CurationConfig
from agapo.recipe.data import DataConfig
from agapo.recipe.dialogues import DialogueDataConfig
from agapo.recipe.evaluation import EvaluationConfig
from agapo.recipe.model import CreateModelConfig
from agapo.recipe.needle import NeedleConfig
from agapo.recipe.reward import RewardConfig
from agapo.recipe.rollout import RolloutConfig
from agapo.recipe.trainer import SFTTrainingConfig


class SFTRecipe(Recipe):
    """`agapo sft RECIPE`."""

    stage: Literal["sft"] = "sft"  # pyright: ignore[reportIncompatibleVariableOverride]
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; or give `epochs`."""
    epochs: float | None = Field(default=None, gt=0)
    """Train on so many times the tokens that the rows hold, mixed by share (a scarce domain comes more often)."""
    create: CreateModelConfig | None = None
    """Start from random weights instead of `model.path` or `model.start`."""
    data: DialogueDataConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    """Dialogues to train on (docs/data_format.md)."""
    curation: CurationConfig = CurationConfig()
    """Which of them are left out (docs/curation.md)."""
    prompts: DataConfig
    """Questions for the accuracy before and after."""
    reward: RewardConfig
    training: SFTTrainingConfig = SFTTrainingConfig()
    rollout: RolloutConfig = RolloutConfig()
    """How the evaluation samples."""
    evaluation: EvaluationConfig = EvaluationConfig()
    needle: NeedleConfig | None = None
    """The needle test after training: facts found again at every length and place of the context."""

    @model_validator(mode="after")
    def _one_start(self) -> "SFTRecipe":
        starts = [bool(self.create), bool(self.model.path), bool(self.model.start)]
        if sum(starts) != 1:
            raise ValueError(
                "give one of 'create' (random weights), 'model.path' (a model) and 'model.start' (another SFT recipe)"
            )
        if bool(self.steps) == bool(self.epochs):
            raise ValueError("give either 'steps' or 'epochs', not both or neither")
        return self

    @model_validator(mode="after")
    def _packed_dialogues_stay_apart(self) -> "SFTRecipe":
        # transformers gives flash attention the dialogues' boundaries only in a batch of one row.
        if self.model.attention == "flash_attention_2" and self.training.micro_rows > 1:
            raise ValueError(
                "training.micro_batch_rows: should be 1 with model.attention flash_attention_2, which tells the "
                "dialogues of a packed row apart only in a micro-batch of one row"
            )
        return self
