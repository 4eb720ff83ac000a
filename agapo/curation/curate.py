"""All filters over a stream of rows, cheap ones first; what they drop is counted, by source, filter and reason.

    rows ─► lengths ─► degeneration ─► language ─► duplicates ─► verify ─► near_duplicates ─► distinct ─► rows

Rewards are asked before near duplicates are looked for, so that no wrong row takes the place of a right one that is
nearly the same. Rows come out unchanged and in the order they came in.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from agapo.curation.degeneration import degeneration
from agapo.curation.distinct import first_distinct, seeded_distinct
from agapo.curation.duplicates import ExactDuplicates, NearDuplicates
from agapo.curation.language import language_mismatch
from agapo.curation.lengths import out_of_bounds
from agapo.curation.report import CurationReport, Finding
from agapo.recipe.curation import CurationConfig, DistinctConfig, LengthsConfig


class Item(NamedTuple):
    """A row on its way."""

    source: str
    place: str
    """`file:line`, or the source's name and the row's number."""
    row: dict[str, Any]


Judged = Iterator[tuple[Item, Finding | None]]
Filter = Callable[[Iterator[Item]], Judged]
"""Yields every item, in order, with why it is dropped; None keeps it."""


def curate_rows(
    rows: Iterable[dict[str, Any]],
    config: CurationConfig,
    *,
    seed: int,
    verify: Filter | None = None,
    report: CurationReport | None = None,
    count: Callable[[str], int] | None = None,
    source: str = "",
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one source that pass; see `curate`."""
    named = ((source, row) for row in rows)
    return (row for _, row in curate(named, config, seed=seed, verify=verify, report=report, count=count))


def curate(
    rows: Iterable[tuple[str, dict[str, Any]]],
    config: CurationConfig,
    *,
    seed: int,
    verify: Filter | None = None,
    report: CurationReport | None = None,
    count: Callable[[str], int] | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pairs (source's name, row) whose rows pass; duplicates are found across sources.

    Rows are normal dialogues, with their `place` where they know it. `verify` asks rewards, where the config has some;
    `count` measures texts in tokens, where lengths are in tokens. `report` is filled as the rows go by. Streams, but
    for `distinct` with `choose: seeded`. Raises ValueError where `verify` or `count` is needed and not given.
    """
    report = report or CurationReport()
    items = _counted(rows, report)
    for name, judge in filters(config, seed=seed, verify=verify, count=count):
        items = _passing(judge(items), name, report)
    return _kept(items, report)


def filters(
    config: CurationConfig, *, seed: int, verify: Filter | None = None, count: Callable[[str], int] | None = None
) -> list[tuple[str, Filter]]:
    """Return the filters that the config has on, by name, in the order they are asked."""
    found: list[tuple[str, Filter | None]] = [
        ("lengths", config.lengths and _lengths(config.lengths, count)),
        ("degeneration", config.degeneration and _each(partial(degeneration, **config.degeneration.model_dump()))),
        ("language", config.language and _each(partial(language_mismatch, **config.language.model_dump()))),
        ("duplicates", config.duplicates and _each_placed(ExactDuplicates())),
        ("verify", config.verify and _given(verify, "verify")),
        ("near_duplicates", config.near_duplicates and _each_placed(_near(config))),
        ("distinct", config.distinct and _distinct(config.distinct, seed)),
    ]
    return [(name, judge) for name, judge in found if judge]


def _lengths(config: LengthsConfig, count: Callable[[str], int] | None) -> Filter:
    return _each(
        partial(
            out_of_bounds,
            answer=(config.least_answer, config.most_answer),
            thinking=(config.least_thinking, config.most_thinking),
            count=len if config.unit == "characters" else _given(count, "lengths.unit: tokens"),
            unit=config.unit,
        )
    )


def _near(config: CurationConfig) -> NearDuplicates:
    assert config.near_duplicates
    return NearDuplicates(config.near_duplicates.similarity, same_numbers=config.near_duplicates.same_numbers)


def _distinct(config: DistinctConfig, seed: int) -> Filter:
    if config.choose == "first":
        return lambda items: first_distinct(items, _row, config.most, config.similarity)
    return lambda items: seeded_distinct(items, _row, config.most, config.similarity, seed)


def _given(value: Any, key: str) -> Any:
    if value is None:
        raise ValueError(f"curation.{key} needs a function that the caller did not give")
    return value


def _row(item: Item) -> dict[str, Any]:
    return item.row


def _each(check: Callable[[dict[str, Any]], Finding | None]) -> Filter:
    return lambda items: ((item, check(item.row)) for item in items)


def _each_placed(check: Callable[[dict[str, Any], str], Finding | None]) -> Filter:
    return lambda items: ((item, check(item.row, item.place)) for item in items)


def _counted(rows: Iterable[tuple[str, dict[str, Any]]], report: CurationReport) -> Iterator[Item]:
    numbers: Counter[str] = Counter()
    for source, row in rows:
        numbers[source] += 1
        report.seen[source] += 1
        yield Item(source, str(row.get("place") or f"{source or 'row'} {numbers[source]}"), row)


def _passing(judged: Judged, name: str, report: CurationReport) -> Iterator[Item]:
    for item, finding in judged:
        if finding is None:
            yield item
        else:
            report.drop(item.row, item.place, item.source, name, finding)


def _kept(items: Iterator[Item], report: CurationReport) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in items:
        report.kept[item.source] += 1
        yield item.source, item.row
