"""Where a model came from: the runs that made it, one after another, from the summaries that they left."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from agapo.recipe.model import ORIGIN
from agapo.tracking.files import read_json
from agapo.tracking.progress import make_console, print_table

Lineage = list[dict[str, Any]]

MEASURES = (
    ("accuracy", "correct", lambda value: f"{100 * value:.1f}%"),
    ("tokens", "tokens", lambda value: f"{value:.1f}"),
    ("tokens_correct", "if right", lambda value: f"{value:.1f}"),
    ("thinks", "think", lambda value: f"{100 * value:.1f}%"),
)
"""Name of a measure, its column and its format; `tokens_correct` are those of the correct responses."""

MOST_TERMS = 1
"""Terms that a table of 80 columns has room for."""


def lineage_of(model: str | Path | None) -> Lineage:
    """Return the runs that made a model, the first one first; a model that no run of ours made is one entry alone.

    Empty for None: random weights.
    """
    if model is None:
        return []
    folder = Path(model)
    if (folder / ORIGIN).is_file():
        return lineage_of((folder / ORIGIN).read_text(encoding="utf-8"))
    summary = read_json(folder.parent / "summary.json") if folder.name == "hf" else None
    if summary is None:
        return [{"model": str(model)}]
    return [*summary.get("lineage", lineage_of(summary.get("parent"))), lineage_entry(folder.parent, summary)]


def lineage_entry(run: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what later stages say of a run."""
    names = ("stage", "recipe", "seed", "steps", "model", "after")
    measured = (summary.get("measures") or {}).get("after") or {}
    return {"run": run.name, **{name: summary.get(name) for name in names}, "measures": measured}


def lineage_table(lineage: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print what each run's model came to, by mode: the whole way at a glance.

    Each run's own test questions and limits; where recipes differ in them, so do the figures. Reward terms that the
    last run shows come as well, where they are few, but for those that say there what the verdict says.
    """
    measured = [
        (f"{entry['stage']} {entry['run']}" if not number else "", mode, found)
        for entry in lineage
        for number, (mode, found) in enumerate((entry.get("measures") or {}).items())
    ]
    if not measured:
        return
    run = list(lineage[-1].get("measures", {}).values()) or [measured[-1][2]]
    terms = [
        term
        for term in run[-1].get("rewards") or {}
        if any(found.get("rewards", {}).get(term) != found.get("accuracy") for found in run)
    ]
    terms = terms if len(terms) <= MOST_TERMS else []
    rows = []
    for name, mode, found in measured:
        rewards = found.get("rewards") or {}
        figures = [_shown(found.get(key), form) for key, _, form in MEASURES]
        terms_shown = [_shown(rewards.get(term), lambda value: f"{100 * value:.1f}%") for term in terms]
        rows.append((name, mode.replace("non_reasoning", "plain"), *figures, *terms_shown))
    columns = ("after", "mode", *(column for _, column, _ in MEASURES), *terms)
    print_table("The way here, greedy on the test questions", columns, rows, console or make_console(), left=(1,))


def _shown(value: float | None, form: Any) -> str:
    return "–" if value is None else form(value)
