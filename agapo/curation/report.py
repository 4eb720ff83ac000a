"""What curation did: how many rows came and stayed, and which were dropped, by which filter, why."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_SHORTENED = 240
"""Characters of a text in a sample, half from its start and half from its end."""


class Finding(NamedTuple):
    """Why a filter drops a row."""

    reason: str
    """One of a few, so that they can be counted: `loop in the thinking`."""
    detail: str = ""
    """What was found in this row: the phrase that is repeated, the row that it is a duplicate of."""


@dataclass(frozen=True)
class Dropped:
    """A row that was dropped."""

    place: str
    """`file:line` where the source says it, else the source's name and the row's number."""
    source: str
    filter: str
    reason: str
    detail: str
    messages: tuple[Mapping[str, Any], ...]
    """Its turns, long texts shortened in the middle."""


@dataclass
class CurationReport:
    """What happened to the rows; one report may serve several sources, one after the other or interleaved."""

    most_samples: int = 3
    """Dropped rows that are kept to look at, by source, filter and reason."""
    seen: Counter[str] = field(default_factory=Counter)
    """Rows that came, by source."""
    kept: Counter[str] = field(default_factory=Counter)
    """Rows that passed every filter, by source."""
    dropped: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Rows by (source, filter, reason)."""
    samples: list[Dropped] = field(default_factory=list)
    on_drop: Callable[[Dropped], None] | None = None
    """Called with every row that is dropped, for those who write them all down."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """Rows that were verified, by verdict: `correct`, `wrong`, `no verdict`."""

    def drop(self, row: Mapping[str, Any], place: str, source: str, name: str, finding: Finding) -> None:
        """Count a row as dropped by the filter `name`."""
        key = (source, name, finding.reason)
        self.dropped[key] += 1
        sampled = self.dropped[key] <= self.most_samples
        if not sampled and not self.on_drop:
            return
        turns = tuple(_shortened(turn) for turn in row["messages"])
        dropped = Dropped(place, source, name, finding.reason, finding.detail, turns)
        if sampled:
            self.samples.append(dropped)
        if self.on_drop:
            self.on_drop(dropped)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "seen": sum(self.seen.values()),
            "kept": sum(self.kept.values()),
            "sources": {name: {"seen": seen, "kept": self.kept[name]} for name, seen in self.seen.items()},
            "dropped": [
                {"source": source, "filter": name, "reason": reason, "rows": rows}
                for (source, name, reason), rows in sorted(self.dropped.items())
            ],
            "verdicts": dict(self.verdicts),
            "samples": [vars(sample) for sample in self.samples],
        }


def _shortened(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {name: shorten(value) if isinstance(value, str) else value for name, value in turn.items()}


def shorten(text: str, most: int = _SHORTENED) -> str:
    """Return a text of at most about `most` characters: its start and its end."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} […] {text[-most // 2 :]}"
