"""The section `evaluation`: how a model's accuracy on test questions is measured, in every stage."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from agapo.recipe.data import SetConfig
from agapo.recipe.section import Strict
from agapo.schema import MODES, Mode

VALIDATION = "validation"
"""What the validation questions are called in `answers.jsonl`, beside the sets."""


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
    sets: dict[str, SetConfig] = Field(default_factory=dict)
    """More questions to measure on beside the validation questions (every `every` steps), by name: the test splits of
    other sources, each up to `test_size`, judged by the same rewards. They choose nothing, and what is asked in them is
    not trained on."""

    @field_validator("sets")
    @classmethod
    def _names_of_their_own(cls, sets: dict[str, SetConfig]) -> dict[str, SetConfig]:
        for name in sets:
            if name in (*MODES, "reward") or not re.fullmatch(r"[\w\-.]+", name):
                raise ValueError(f"'{name}' cannot be a set's name: take letters, digits, '-', '_', and no mode's name")
            if name in (VALIDATION, "test"):
                raise ValueError(f"'{name}' cannot be a set's name: the recipe's own questions go by it; take another")
        return sets

    @model_validator(mode="after")
    def _sets_are_measured(self) -> "RLEvaluationConfig":
        if self.sets and not self.every:
            raise ValueError("sets: are measured every 'every' steps, and with 0 never; raise it or leave them out")
        return self
