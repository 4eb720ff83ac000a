"""The recipe of the SFT stage (thin: what the RL start needs; the full stage grows from here)."""

from typing import Literal

from pydantic import Field, model_validator

from agapo.recipe.base import DataConfig, Recipe, Strict
from agapo.recipe.curation import CurationConfig
from agapo.recipe.rl import EvaluationConfig, RewardConfig, RolloutConfig


class CreateModelConfig(Strict):
    """A small EXAONE 4 model with random weights and the project's own byte-level tokenizer."""

    hidden_size: int = Field(default=96, ge=8)
    intermediate_size: int = Field(default=288, ge=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    kv_heads: int = Field(default=2, ge=1)
    sliding_window: int = Field(default=24, ge=1)
    sliding_window_pattern: int = Field(default=4, ge=1)
    """Every so many layers one is global, the others local (EXAONE 4: 3 local : 1 global)."""
    max_position_embeddings: int = Field(default=4096, ge=16)


class SFTTrainingConfig(Strict):
    """How the model is fine-tuned."""

    learning_rate: float = Field(default=5e-3, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    rows_per_step: int = Field(default=8, ge=1)
    """Packed rows a step."""
    row_tokens: int = Field(default=128, ge=16)
    """Tokens a packed row."""
    threads: int = Field(default=0, ge=0)
    """CPU threads; 0 uses all cores."""


class SFTRecipe(Recipe):
    """`agapo sft RECIPE`."""

    stage: Literal["sft"] = "sft"  # pyright: ignore[reportIncompatibleVariableOverride]
    steps: int = Field(ge=1)
    create: CreateModelConfig | None = None
    """Start from random weights instead of `model.path`."""
    data: DataConfig
    """Dialogues to train on: rows with `messages` that end with the assistant's turn, and `mode`."""
    curation: CurationConfig = CurationConfig()
    """Which of them are left out (docs/curation.md)."""
    prompts: DataConfig
    """Questions for the accuracy before and after."""
    reward: RewardConfig
    training: SFTTrainingConfig = SFTTrainingConfig()
    rollout: RolloutConfig = RolloutConfig()
    """How the evaluation samples."""
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _one_start(self) -> "SFTRecipe":
        if bool(self.create) == bool(self.model.path):
            raise ValueError("give either 'create' (random weights) or 'model.path' (a model), not both or neither")
        return self
