"""What goes into the verifier pool and what comes out: terms, samples, groups, scores, and the requests they become.

Plain records without a process or a thread; they travel to worker processes and to other hosts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agapo.rollouts.verifier_worker import frame

ErrorKind = Literal["timeout", "crash", "exception", "bad_return", "infrastructure"]
KINDS: tuple[ErrorKind, ...] = ("timeout", "crash", "exception", "bad_return", "infrastructure")
BLAMED: frozenset[str] = frozenset({"timeout", "crash", "exception"})
"""What a response may have caused by itself: it scores 0, else a policy would learn to escape its verifier."""


@dataclass(frozen=True)
class Term:
    """One reward function, as the recipe names it."""

    function: str
    """`package.module:function`."""
    domains: Sequence[str] = ()
    """Judges only samples whose column `domain` is one of these; empty for all."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Plain keyword arguments besides the columns."""
    deadline_s: float | None = None
    """Wall-clock limit of this term; None for the pool's."""

    def applies_to(self, domain: str | None) -> bool:
        """Whether it judges samples of the domain."""
        return not self.domains or domain in self.domains


@dataclass(frozen=True)
class Sample:
    """One response to judge."""

    prompt: list[dict[str, Any]]
    """The chat that was answered."""
    completion: str
    """The decoded response."""
    columns: Mapping[str, Any]
    """What else the rewards read: `mode`, `domain`, `language` and the data row's own columns."""


@dataclass(frozen=True)
class GroupSample:
    """All responses to one prompt, for the terms that judge a group as a whole."""

    prompt: list[dict[str, Any]]
    completions: list[str]
    """[G] the decoded responses."""
    scores: list[float | None]
    """[G] what the verdict term said of each response."""
    columns: Mapping[str, Any]
    """As in `Sample`."""


@dataclass(frozen=True)
class Score:
    """What one reward term says of one sample."""

    value: float | None
    """None where there is no verdict."""
    error: str | None = None
    """One of `KINDS`, or None."""
    detail: str = ""
    """One line about the error."""


Scores = dict[str, Score]
"""By term."""


@dataclass(frozen=True, slots=True)
class Request:
    """A sample or a group on its way to a worker: pickled once, whatever becomes of its workers."""

    terms: tuple[str, ...]
    """Which terms judge it, in this order."""
    content: bytes = field(repr=False)
    """A frame with the arguments."""
    size: int | None = None
    """G of a group; None for a sample."""

    def filled(self, kind: str, detail: str) -> list[Score]:
        """Return the scores of an error. A group's error is no single response's doing, so nobody gets a 0 for it."""
        value = 0.0 if kind in BLAMED and self.size is None else None
        return [Score(value, kind, detail)] * (self.size or 1)


def sample_request(sample: Sample, terms: tuple[str, ...]) -> Request:
    """Raises what pickle raises when the sample cannot be sent."""
    return Request(terms, frame((sample.prompt, sample.completion, dict(sample.columns))))


def group_request(group: GroupSample, terms: tuple[str, ...]) -> Request:
    """Raises what pickle raises when the group cannot be sent."""
    content = (group.prompt, list(group.completions), list(group.scores), dict(group.columns))
    return Request(terms, frame(content), len(group.completions))
