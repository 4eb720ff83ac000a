"""The sections `data` and `prompts`: where rows come from."""

from typing import Any, Literal

from pydantic import Field, model_validator

from agapo.recipe.section import AbsolutePath, Strict
from agapo.schema import Mode


class SetConfig(Strict):
    """One source whose test split is measured on (`evaluation.sets`)."""

    source: str
    """`package.module:function`, called as `function(split, **args)`; yields rows as dicts."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the source."""
    path: AbsolutePath | None = None
    """A local file or folder instead of the source's public data set; handed to the source as `path`."""


class SourceConfig(SetConfig):
    """One source of a mixture."""

    weight: float = Field(default=1.0, ge=0)
    """Its share of the rows, relative to the other sources'."""


class DataConfig(Strict):
    """Where rows come from: one source, or several with weights."""

    source: str = ""
    """`package.module:function`, called as `function(split, **args)`; yields rows as dicts."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the source."""
    path: AbsolutePath | None = None
    """A local file or folder instead of the source's public data set; handed to the source as `path`."""
    sources: dict[str, SourceConfig] = Field(default_factory=dict)
    """Instead of `source`: sources by name, mixed by weight."""
    modes: dict[Mode, float] = Field(default_factory=lambda: {"reasoning": 1.0})
    """Share of the training prompts asked in each mode."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Tokens that a rendered prompt may have."""
    overlong: Literal["refuse", "drop"] = "refuse"
    """What to do about prompts with more tokens: stop before the run, or leave them out and say how many."""

    @property
    def parts(self) -> dict[str, SourceConfig]:
        """The sources by name; a single one goes by its own."""
        return self.sources or {self.source: SourceConfig(source=self.source, args=self.args, path=self.path)}

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "DataConfig":
        if bool(self.source) == bool(self.sources):
            raise ValueError("give either 'source' (one) or 'sources' (several, with weights), not both or neither")
        if self.sources and (self.args or self.path):
            raise ValueError("with 'sources', 'args' and 'path' belong to each source (sources.NAME.path)")
        if self.sources and not any(source.weight for source in self.sources.values()):
            raise ValueError("sources: at least one weight should be above 0")
        return self
