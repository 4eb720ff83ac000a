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
    """Greedy accuracy on the test split, before and after training."""

    modes: list[Mode] = Field(default_factory=lambda: list(MODES), min_length=1)
    """Modes that each question is asked in."""
    test_size: int = Field(default=512, ge=1)
    """Questions of the test split, shared out by the sources' weights."""
    chunk_prompts: int = Field(default=128, ge=1)
    """Prompts that one actor answers together."""


class AnswerSamplingConfig(Strict):
    """How a mode's answers are drawn."""

    temperature: float = Field(default=0.6, gt=0)
    """Lower is surer; for greedy answers leave the mode out."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability."""


class SampledEvaluationConfig(EvaluationConfig):
    """`agapo eval` can ask for several answers a question, and for less and more thinking."""

    samples: int = Field(default=1, ge=1)
    """Answers to each question in the modes that sample, for avg@n, pass@k and maj@k. Greedy answers are all alike: in
    a mode that does not sample it is one."""
    sampling: dict[Mode, AnswerSamplingConfig] | None = None
    """How answers are drawn, by mode; a mode that is not named is greedy. None: with `samples` above 1 `reasoning` at
    temperature 0.6 and top-p 0.95, as EXAONE 4.0 was evaluated; with 1 all is greedy."""
    thinking_budgets: list[int] = Field(default_factory=list)
    """Ask the questions in `reasoning` mode also with so many tokens of thinking at most, each in turn
    (`rollout.thinking_budget` is that of the other figures)."""

    @property
    def sampled(self) -> dict[Mode, AnswerSamplingConfig]:
        """The modes that sample, and how."""
        if self.sampling is not None:
            return self.sampling
        return {"reasoning": AnswerSamplingConfig()} if self.samples > 1 else {}

    @field_validator("thinking_budgets")
    @classmethod
    def _ascending(cls, budgets: list[int]) -> list[int]:
        if sorted(set(budgets)) != budgets or (budgets and budgets[0] < 1):
            raise ValueError("should be ascending, from 1 on, without repeats")
        return budgets

    @model_validator(mode="after")
    def _answers_differ(self) -> "SampledEvaluationConfig":
        if self.samples > 1 and not set(self.modes) & set(self.sampled):
            asked = ", ".join(self.modes)
            raise ValueError(
                f"samples {self.samples}: greedy answers are all alike, and no mode that is asked ({asked}) samples; "
                f"name one in 'sampling' (sampling: {{{self.modes[0]}: {{temperature: 0.6, top_p: 0.95}}}})"
            )
        if self.thinking_budgets and "reasoning" not in self.modes:
            raise ValueError("thinking_budgets: nothing thinks without the mode 'reasoning'; add it to 'modes'")
        return self


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
