"""Several sources in fixed shares: which source is next, and how a number is shared out among them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agapo.curation.prompts import PromptStream
from agapo.schema import Prompt


def interleave(weights: Mapping[str, float]) -> Iterator[str]:
    """Yield source names without end, so that after any number of them each has had its share to within one.

    The source that is furthest behind its share comes next; ties go to the one that is named first.
    """
    whole = sum(weights.values())
    shares = {name: weight / whole for name, weight in weights.items() if weight}
    taken = dict.fromkeys(shares, 0)
    position = 0
    while True:
        position += 1
        chosen = max(shares, key=lambda name: shares[name] * position - taken[name])
        taken[chosen] += 1
        yield chosen


def share_out(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Return `total` in whole parts by weight, largest remainders first; a source with a weight gets at least 1."""
    weighted = {name: weight for name, weight in weights.items() if weight}
    parts = dict.fromkeys(weighted, 0)
    names = interleave(weighted)
    for _ in range(total):
        parts[next(names)] += 1
    return {name: max(1, parts.get(name, 0)) if name in weighted else 0 for name in weights}


@dataclass(frozen=True)
class MixedStream:
    """Several streams of prompts in fixed shares. Position k is the same in every run of the same seed."""

    streams: Mapping[str, PromptStream]
    weights: Mapping[str, float]

    def take(self, start: int, count: int) -> list[tuple[Prompt, int]]:
        """Return `count` pairs (prompt, visit) from position `start` on; see `PromptStream.take`."""
        schedule = self._schedule(start + count)
        return [self.streams[name].take(index, 1)[0] for name, index in schedule[start : start + count]]

    def _schedule(self, size: int) -> Sequence[tuple[str, int]]:
        """The first `size` positions: whose turn it is, and its how manieth."""
        known: list[tuple[str, int]] = self.__dict__.setdefault("_known", [])
        names = self.__dict__.setdefault("_names", interleave(self.weights))
        counts: dict[str, int] = self.__dict__.setdefault("_counts", dict.fromkeys(self.weights, 0))
        while len(known) < size:
            name = next(names)
            known.append((name, counts[name]))
            counts[name] += 1
        return known
