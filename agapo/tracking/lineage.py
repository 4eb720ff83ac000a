"""Where a model came from: the runs that made it, one after another, from the summaries that they left."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from agapo.recipe.model import ORIGIN
from agapo.tracking.files import read_json
from agapo.tracking.progress import ROOMY, make_console, percent, print_table, table_width

Lineage = list[dict[str, Any]]

COLUMNS = ("correct", "tokens", "if correct", "think")
"""What is shown of a model's measures; see `cells` and `LEGEND`."""

LEGEND = (
    "± is the standard error; tokens: mean tokens of a response; if correct: of the correct responses alone; "
    "think: the share of responses with a thinking block."
)

MOST_TERMS = 1
"""Terms that a table of `ROOMY` columns has room for; a narrower one has none."""


def lineage_of(model: str | Path | None) -> Lineage:
    """Return the runs that made a model, the first one first; a model that no run of ours made is one entry alone.

    Empty for None: random weights.
    """
    if model is None:
        return []
    folder = Path(model)
    if (folder / ORIGIN).is_file():
        origin = (folder / ORIGIN).read_text(encoding="utf-8")
        return lineage_of((folder / origin).resolve() if origin.startswith("..") else origin)
    summary = read_json(folder.parent / "summary.json") if folder.name == "hf" else None
    if summary is None:
        return [{"model": str(model)}]
    return [*summary.get("lineage", lineage_of(summary.get("parent"))), lineage_entry(folder.parent, summary)]


def lineage_entry(run: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what later stages say of a run."""
    names = ("stage", "recipe", "seed", "steps", "model", "after", "test")
    measured = (summary.get("measures") or {}).get("after") or {}
    return {"run": run.name, **{name: summary.get(name) for name in names}, "measures": measured}


def same_test(lineage: Sequence[Mapping[str, Any]]) -> tuple[Lineage, str]:
    """Return (the measured runs that had the last one's test, the line that says which others there are, and why).

    Accuracies on other questions, by another verdict or with other limits are not to be compared.
    """
    measured = [dict(entry) for entry in lineage if entry.get("measures")]
    last = _mark(measured[-1]) if measured else None
    others = [entry for entry in measured if _mark(entry) != last]
    return [entry for entry in measured if _mark(entry) == last], _not_shown(last, others) if others else ""


def _mark(entry: Mapping[str, Any]) -> str | None:
    return (entry.get("test") or {}).get("mark")


def _not_shown(last: str | None, others: Sequence[Mapping[str, Any]]) -> str:
    # Summaries of before have no mark.
    named = "measured on other questions, by another verdict or with other limits"
    whys = {True: named if last else "since the last run's test is not noted", False: "whose test is not noted"}
    parts = []
    for noted, why in whys.items():
        names = [f"{entry['stage']} {entry['run']}" for entry in others if (_mark(entry) is not None) == noted]
        parts += [f"{', '.join(names)}, {why}"] if names else []
    return f"Not shown: {'; '.join(parts)}."


def cells(found: Mapping[str, Any]) -> list[str]:
    """Return a mode's measures as they stand under `COLUMNS`."""
    return [
        percent(found.get("accuracy"), found.get("questions")),
        *(_number(found.get(name), ".1f") for name in ("tokens", "tokens_correct")),
        percent(found.get("thinks")),
    ]


def lineage_table(lineage: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print what each run's model came to, by mode: the whole way at a glance, of the runs that had the same test.

    Reward terms that the last run shows come as well, where they are few and the console is wide enough, but for those
    that say there what the verdict says.
    """
    entries, others = same_test(lineage)
    if not entries:
        return
    console = console or make_console()
    terms = _terms(list(entries[-1]["measures"].values())) if table_width(console) >= ROOMY else []
    rows = []
    for entry in entries:
        for number, (mode, found) in enumerate(entry["measures"].items()):
            rewards = found.get("rewards") or {}
            name = "" if number else f"{entry['stage']} {entry['run']}"
            rows.append((name, mode, *cells(found), *(_number(rewards.get(term), ".2f") for term in terms)))
    columns = ("after", "mode", *COLUMNS, *terms)
    print_table("The way here, greedy on the test questions", columns, rows, console, left=(1,))
    for line in (LEGEND, *([others] if others else [])):
        console.print(f"  {line}", soft_wrap=True, highlight=False)


def _terms(last: Sequence[Mapping[str, Any]]) -> list[str]:
    named = last[-1].get("rewards") or {}
    terms = [
        term for term in named if any(found.get("rewards", {}).get(term) != found.get("accuracy") for found in last)
    ]
    return terms if len(terms) <= MOST_TERMS else []


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
