"""The recipe of the SFT stage: both modes in one run, mixed by trained tokens."""

from typing import Any, Literal

from pydantic import Field, model_validator

from agapo.recipe.base import Recipe
from agapo.recipe.curation import CurationConfig
from agapo.recipe.data import DataConfig
from agapo.recipe.dialogues import DialogueDataConfig
from agapo.recipe.evaluation import SFTEvaluationConfig
from agapo.recipe.model import CreateModelConfig
from agapo.recipe.needle import NeedleConfig
from agapo.recipe.reward import RewardConfig
from agapo.recipe.rollout import RolloutConfig
from agapo.recipe.trainer import SFTTrainingConfig

PRETRAINED = {"learning_rate": 2e-5, "row_tokens": 2048, "warmup_steps": 5, "micro_batch_rows": 1}
"""Defaults of `training` for a model that knows a language already; with `lora`, ten times the learning rate."""
LORA_RATE = 2e-4


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
    prompts: DataConfig | None = None
    """Questions for the accuracy before and after. Without: the loss on dialogues held out of training is taken."""
    reward: RewardConfig | None = None
    """What judges the answers to them."""
    training: SFTTrainingConfig = SFTTrainingConfig()
    rollout: RolloutConfig = RolloutConfig()
    """How the evaluation samples."""
    evaluation: SFTEvaluationConfig = SFTEvaluationConfig()
    needle: NeedleConfig | None = None
    """The needle test after training: facts found again at every length and place of the context."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_a_pretrained_model(cls, content: Any) -> Any:
        """Random weights want a large step and short rows, and have their defaults in `SFTTrainingConfig`."""
        if not isinstance(content, dict) or content.get("create") is not None:
            return content
        training = content.get("training")
        if not isinstance(training, dict | None):
            return content
        own = training or {}
        rate = {"learning_rate": LORA_RATE} if own.get("lora") is not None else {}
        return {**content, "training": {**PRETRAINED, **rate, **own}}

    @model_validator(mode="after")
    def _questions_have_a_judge(self) -> "SFTRecipe":
        if bool(self.prompts) != bool(self.reward):
            raise ValueError(
                "'prompts' and 'reward' go together: the questions, and what judges the answers; without both, the "
                "loss on held-out dialogues is the measure"
            )
        return self

    @model_validator(mode="after")
    def _one_start(self) -> "SFTRecipe":
        starts = [bool(self.create), bool(self.model.path), bool(self.model.start)]
        if sum(starts) != 1:
            raise ValueError(
                "give one of 'create' (random weights), 'model.path' (a model) and 'model.start' (another SFT recipe)"
            )
        if self.create and self.model.chat_template:
            raise ValueError("model.chat_template: a model made with 'create' has its own; leave it out")
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
