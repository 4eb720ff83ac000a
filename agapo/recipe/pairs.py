"""The sections `pairs` and `guards` of a preference recipe."""

from typing import Any, Literal

from pydantic import Field, field_validator

from agapo.recipe.section import AbsolutePath, Strict, check_once


class ReuseConfig(Strict):
    """Pairs of an earlier preference stage, trained on once more."""

    share: float = Field(default=0.2, gt=0, lt=1)
    """Their share of all pairs."""
    path: AbsolutePath | None = None
    """The earlier run's `pairs.jsonl`; None: that of the run that `model.start` names."""


class PairRowsConfig(Strict):
    """Pairs that exist already: rows with a prompt, a preferred response and one that is not (docs/dpo.md)."""

    source: str = "data.preferences:pairs"
    """`package.module:function`, called as `function("train", **args)`."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the source."""
    path: AbsolutePath | None = None
    """A local file or folder, handed to the source as `path`."""
    max_tokens: int = Field(default=2048, ge=16)
    """Rows whose prompt and longer response together have more tokens are left out."""
    malformed: Literal["refuse", "drop"] = "refuse"
    """What to do about rows that are no pairs: stop, or leave out."""


class PairsConfig(Strict):
    """Which responses are sampled, and which is preferred to which (docs/dpo.md)."""

    rows: PairRowsConfig | None = None
    """Take these pairs instead of sampling; of the keys below only `reuse` counts then."""

    prompts: int = Field(default=1024, ge=1)
    """Prompts that are sampled, each `rollout.group_size` times."""
    policy: Literal["concise", "preferred"] = "concise"
    """`concise`: the shortest correct response against an incorrect or a longer one (the report's first stage);
    `preferred`: by reward (its second)."""
    rejected: list[Literal["incorrect", "longer"]] = Field(
        default_factory=lambda: ["incorrect", "longer"], min_length=1
    )
    """`concise`: what the chosen response is set against, a pair of each kind where a prompt has one."""
    longer_by: float = Field(default=1.25, gt=1)
    """`concise`: how many times as long a correct response has to be, to be rejected."""
    min_margin: float = Field(default=0.1, gt=0)
    """`preferred`: how far the rewards have to lie apart."""
    correct_only: bool = True
    """`preferred`: never choose a response that the verdict calls wrong."""
    reuse: ReuseConfig | None = None

    _each_once = field_validator("rejected")(lambda kinds: check_once(kinds, "kind"))


class GuardsConfig(Strict):
    """How far the model may move before the run says that something is wrong. Nothing is stopped."""

    accuracy_drop: float = Field(default=0.02, ge=0, le=1)
    """Greedy accuracy, 0 to 1, that a mode may lose."""
    chosen_drop: float = Field(default=0.5, gt=0)
    """Nats a token that the chosen responses may become less likely than they were at the start."""
    length_growth: float = Field(default=1.25, gt=0)
    """How many times as long the responses of a mode may become."""
    leakage: float = Field(default=0.01, ge=0, le=1)
    """Share of responses that may think where they should not, or not where they should."""
