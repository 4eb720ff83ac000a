"""Several responses to one question: those that differ from each other, and no more than so many.

The EXAONE 4.0 report has several different responses a unique query where the truth is hard to verify (math, code,
logic). Responses to a question count by mode: one with thinking and one without are two.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from agapo.curation.duplicates import digest
from agapo.curation.minhash import signature, similarity
from agapo.curation.report import Finding
from agapo.curation.text import normalised, question, response

T = TypeVar("T")
Judged = Iterator[tuple[T, Finding | None]]

ALIKE, ENOUGH = "like another response to the question", "more responses to the question than are kept"


class Responses:
    """The responses to one question that are kept."""

    def __init__(self, most: int, least: float) -> None:
        self._most, self._least = most, least
        self._kept: list[np.ndarray] = []

    def __call__(self, row: dict[str, Any]) -> Finding | None:
        """Return why the row's response is not kept, or None; then it is one that is."""
        own = signature("\n".join(response(row)))
        alike = max((float(similarity(own, other)) for other in self._kept), default=0.0)
        if alike >= self._least:
            return Finding(ALIKE, f"{alike:.2f}")
        if len(self._kept) >= self._most:
            return Finding(ENOUGH, str(self._most))
        self._kept.append(own)
        return None


def first_distinct(items: Iterable[T], row_of: Callable[[T], dict[str, Any]], most: int, least: float) -> Judged[T]:
    """Yield each item with why it is dropped, or None: the first `most` different responses of each question stay."""
    known: dict[bytes, Responses] = {}
    for item in items:
        row = row_of(item)
        key = _question_key(row)
        if key not in known:
            known[key] = Responses(most, least)
        yield item, known[key](row)


def seeded_distinct(
    items: Iterable[T], row_of: Callable[[T], dict[str, Any]], most: int, least: float, seed: int
) -> Judged[T]:
    """Like `first_distinct`, but which responses stay goes by the seed, not by the order of the items.

    All items are held in memory; they come out in the order they came in.
    """
    held = list(items)
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, item in enumerate(held):
        groups[_question_key(row_of(item))].append(index)
    findings: dict[int, Finding | None] = {}
    for key, group in groups.items():
        judge = Responses(most, least)
        for index in sorted(group, key=lambda index: _rank(row_of(held[index]), key, seed)):
            findings[index] = judge(row_of(held[index]))
    yield from ((item, findings[index]) for index, item in enumerate(held))


def _question_key(row: dict[str, Any]) -> bytes:
    return digest(str(row.get("mode")), normalised(question(row)))


def _rank(row: dict[str, Any], key: bytes, seed: int) -> bytes:
    return digest(str(seed), key.hex(), *response(row))
