"""The section `evaluation`: how a model's accuracy on test questions is measured, in every stage."""

from typing import Literal

from pydantic import Field

from agapo.recipe.section import Strict
from agapo.schema import MODES, Mode


class EvaluationConfig(Strict):
    """Greedy accuracy on the test split: before and after training, or of the model that `agapo eval` is given."""

    modes: list[Mode] = Field(default_factory=lambda: list(MODES), min_length=1)
    """Modes that each question is asked in."""
    test_size: int = Field(default=512, ge=1)
    """Questions of the test split, shared out by the sources' weights."""
    chunk_prompts: int = Field(default=128, ge=1)
    """Prompts that one actor answers together."""


class SFTEvaluationConfig(EvaluationConfig):
    """SFT's also has dialogues held out of training, for the loss before and after."""

    held_out: int | None = Field(default=None, ge=0)
    """Dialogues held out, all those to a question together. None: without `prompts` one in twenty, at most 256; with
    them none."""


class RLEvaluationConfig(EvaluationConfig):
    """RL's also has questions held out of training: for the curve, and for choosing what is exported."""

    every: int = Field(default=20, ge=0)
    """Steps between evaluations on the validation questions; 0 never."""
    validation_size: int = Field(default=128, ge=1)
    """Questions held out of training, for the curve and for choosing the best checkpoint."""
    pass_at: int = Field(default=0, ge=0)
    """Before training, sample so many responses a validation question and report pass@k; 0 skips it."""
    keep: Literal["best", "last"] = "best"
    """Which weights are exported: the best on the validation questions, or the last."""
