"""The section `data` of an SFT recipe: dialogues, mixed by trained tokens."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from agapo.recipe.data import DataConfig, SourceConfig
from agapo.recipe.section import Strict, check_modes
from agapo.schema import MODES, Mode

REPORT_MODES: dict[Mode, float] = {"reasoning": 1.5, "non_reasoning": 1.0}


class MixConfig(Strict):
    """What the run is made of, in trained tokens: after the chat template, truncation and the loss mask."""

    modes: dict[Mode, float] | None = None
    """Shares of the modes. Without: the report's 1.5 : 1 (arXiv 2507.11407, §2.4.1), or, where one mode is not there
    or so scarce that it would have to be held (`max_repeats`), as the dialogues are."""
    domains: dict[str, float | dict[str, float]] = Field(default_factory=dict)
    """Shares of the domains inside each mode, for both modes at once or by mode. Empty: whatever the sources'
    weights give."""
    max_repeats: float = Field(default=8.0, ge=1)
    """No mode, domain or source is passed over more than so many times while the data is passed over once; what its
    share has beyond that goes to the others, and a warning says so."""

    _modes = field_validator("modes")(lambda modes: None if modes is None else check_modes(modes))

    @property
    def shares_of_modes(self) -> dict[str, float]:
        """The shares of the modes, given or not."""
        return {str(mode): share for mode, share in (self.modes or REPORT_MODES).items()}

    def domains_of(self, mode: str) -> dict[str, float]:
        """Return the shares of the domains inside a mode; empty where the recipe leaves them to the sources."""
        by_mode = {name: value for name, value in self.domains.items() if isinstance(value, dict)}
        if by_mode:
            return by_mode.get(mode, {})
        return {name: value for name, value in self.domains.items() if isinstance(value, float | int)}

    @model_validator(mode="after")
    def _domains_are_one_form(self) -> "MixConfig":
        by_mode = [name for name, value in self.domains.items() if isinstance(value, dict)]
        if by_mode and set(by_mode) != set(self.domains):
            raise ValueError("domains: give shares by domain, or by mode and domain, not both")
        if unknown := set(by_mode) - set(MODES):
            raise ValueError(f"domains: {', '.join(sorted(unknown))} should be {' or '.join(MODES)}")
        shares = [share for mode in MODES for share in self.domains_of(mode).values()]
        if shares and (min(shares) < 0 or max(shares) <= 0):
            raise ValueError("domains: shares should be ≥ 0 with one above 0")
        return self


class DialogueSourceConfig(SourceConfig):
    """One source of dialogues. `weight` is its share of the trained tokens inside each mode (or domain)."""

    limit: int | None = Field(default=None, ge=1)
    """Take only the first so many rows."""


class DialogueDataConfig(DataConfig):
    """Where dialogues come from, and what becomes of those that do not fit."""

    sources: dict[str, DialogueSourceConfig] = Field(default_factory=dict)  # pyright: ignore[reportIncompatibleVariableOverride]
    """Instead of `source`: sources by name."""
    mix: MixConfig = MixConfig()
    order: Literal["shuffled", "source"] = "shuffled"
    """Each pass in another order, or in the source's own, which may be a curriculum."""
    overlong: Literal["refuse", "drop", "truncate"] = "drop"  # pyright: ignore[reportIncompatibleVariableOverride]
    """What to do about dialogues longer than `training.row_tokens`: stop, leave out, or cut at the end."""
    malformed: Literal["refuse", "drop"] = "refuse"
    """What to do about rows that are no dialogues: stop, or leave out. Those left out are in `dropped.jsonl`."""

    @property
    def parts(self) -> dict[str, SourceConfig]:
        """The sources by name; a single one goes by its own."""
        return dict(self.sources) or super().parts
