"""The section `curation` of an SFT recipe: which rows are left out before training, one filter a section.

A section that is null (or absent, where that is the default) switches its filter off; `{}` switches it on as it is.
"""

from typing import Literal

from pydantic import Field, model_validator

from agapo.recipe.reward import RewardConfig
from agapo.recipe.section import Strict


class LengthsConfig(Strict):
    """Bounds on the last turn; a bound that is not given does not bind."""

    unit: Literal["characters", "tokens"] = "characters"
    """`tokens` are those of the recipe's model."""
    least_answer: int | None = Field(default=None, ge=1)
    """The answer includes its tool calls."""
    most_answer: int | None = Field(default=None, ge=1)
    """The answer includes its tool calls."""
    least_thinking: int | None = Field(default=None, ge=1)
    """Of rows in reasoning mode."""
    most_thinking: int | None = Field(default=None, ge=1)
    """Of rows in reasoning mode."""

    @model_validator(mode="after")
    def _in_order(self) -> "LengthsConfig":
        for part in ("answer", "thinking"):
            least, most = getattr(self, f"least_{part}"), getattr(self, f"most_{part}")
            if least and most and least > most:
                raise ValueError(f"least_{part} {least} is above most_{part} {most}")
        return self


class DegenerationConfig(Strict):
    """Responses that repeat themselves, or were cut off."""

    times: int = Field(default=8, ge=3)
    """A phrase so many times in a row (a passage of 16 words and more: half as often) is a loop."""
    code_times: int = Field(default=16, ge=3)
    """A line of code so many times in a row (a block of four lines and more: a quarter as often) is a loop."""
    repetition: float = Field(default=0.5, gt=0, le=1)
    """Dropped from this share of words on that lie in phrases of eight words said four times or more."""
    truncated: bool = True
    """Drop thinking or answers that end in mid-sentence, in an open code fence or in an open thinking block."""


class LanguageConfig(Strict):
    """Responses in another language than the row's `language`."""

    tolerated: float = Field(default=0.3, ge=0, lt=1)
    """Dropped above this share of letters in sentences that are surely in another language."""
    thinking: Literal["any", "same"] = "any"
    """`same` asks the row's language of the thinking too."""


class DuplicatesConfig(Strict):
    """Rows whose turns are the same, but for case and spacing; the first stays."""


class NearDuplicatesConfig(Strict):
    """Rows whose question and whose response are both nearly those of an earlier row; the first stays."""

    similarity: float = Field(default=0.8, ge=0.6, le=1)
    """Jaccard similarity of the character n-grams, asked of the question and of the response; estimated by MinHash."""
    same_numbers: bool = True
    """Questions with other numbers in them are other questions, however alike their words are."""


class DistinctConfig(Strict):
    """Several responses to one question: those that differ, and not too many."""

    most: int = Field(default=4, ge=1)
    """Responses kept a question and mode."""
    similarity: float = Field(default=0.8, ge=0.6, le=1)
    """A response that is at least so similar to one that is kept does not count as another."""
    choose: Literal["seeded", "first"] = "seeded"
    """`seeded` chooses by `run.seed`, whatever the order of the rows, and holds them in memory; `first` does not."""


class CurationConfig(Strict):
    """Which rows are trained on. By default what is broken is left out, and duplicates, which may be meant, stay."""

    lengths: LengthsConfig | None = None
    degeneration: DegenerationConfig | None = DegenerationConfig()
    language: LanguageConfig | None = LanguageConfig()
    duplicates: DuplicatesConfig | None = None
    verify: RewardConfig | None = None
    """Rewards (as in `reward`) whose verdict is asked; rows that it calls wrong are dropped."""
    near_duplicates: NearDuplicatesConfig | None = None
    distinct: DistinctConfig | None = None
