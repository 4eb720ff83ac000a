"""Two finished evaluations, question by question: which model is better, and how sure that is.

Both are asked the same questions, so the difference of each question counts: most of what makes questions easy or hard
falls out, and the interval is that of the differences (`agapo.evaluation.statistics.mean_difference`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from agapo.evaluation.answers import Answered, read_answered
from agapo.evaluation.statistics import mean_difference
from agapo.evaluation.tables import budget_name, majority_values, pass_values
from agapo.tracking import make_console, read_json, say, write_json_atomic
from agapo.tracking.progress import percent, print_table

Pair = tuple[Answered, Answered]
Part = tuple[str, str]
"""(domain, set or language, its name)."""


def compare_evaluations(runs: Sequence[Path], out: Path | None) -> None:
    """Print what each of the later runs' models is better or worse at than the first's; write it to `out` as JSON.

    Raises UserError where a run is not finished, or two have no question in common.
    """
    first, *others = runs
    found = [_comparison(first, other) for other in others]
    for one in found:
        _print(one)
    if out:
        write_json_atomic(out, {"comparisons": found})
        print(out)


def _comparison(first: Path, second: Path) -> dict[str, Any]:
    pairs, alone = _paired(_answers(first), _answers(second))
    if not pairs:
        raise UserError(
            f"{second}: no question was asked in the same mode as in {first}; evaluate both with the same questions"
        )
    ways: dict[tuple[str, int | None], list[Pair]] = {}
    for pair in pairs:
        ways.setdefault((pair[0].mode, pair[0].budget), []).append(pair)
    rows = [
        {"mode": mode, "budget": budget, "part": kind, "name": name, **_differences(own)}
        for (mode, budget), asked in ways.items()
        for (kind, name), own in _parts(asked).items()
    ]
    models = [(read_json(run / "summary.json") or {}).get("model") for run in (first, second)]
    return {"runs": [str(first), str(second)], "models": models, "asked_of_one_alone": alone, "rows": rows}


def _answers(run: Path) -> list[Answered]:
    if not (read_json(run / "summary.json") or {}).get("finished"):
        raise UserError(f"{run}: is not finished; go on with it first (agapo eval)")
    found = read_answered(run / "answers.jsonl")
    if not found:
        raise UserError(f"{run}: has no answers (answers.jsonl) to compare by; evaluate it on questions ('prompts')")
    return found


def _paired(first: Sequence[Answered], second: Sequence[Answered]) -> tuple[list[Pair], int]:
    """Return what both were asked, and how many questions only one of them was."""
    ours, theirs = ({_identity(one): one for one in found} for found in (first, second))
    pairs = [(one, theirs[key]) for key, one in ours.items() if key in theirs]
    return pairs, len(ours) + len(theirs) - 2 * len(pairs)


def _identity(one: Answered) -> tuple[object, ...]:
    return one.suite, one.question, one.mode, one.budget


def _parts(pairs: Sequence[Pair]) -> dict[Part, list[Pair]]:
    """Return all pairs, then those of each domain, set and language, where there are several."""
    parts: dict[Part, list[Pair]] = {("all", "all"): list(pairs)}
    for kind, name in (("domain", "domain"), ("set", "suite"), ("language", "language")):
        own: dict[Part, list[Pair]] = {}
        for pair in pairs:
            own.setdefault((kind, getattr(pair[0], name)), []).append(pair)
        parts |= own if len(own) > 1 else {}
    return parts


def _differences(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return the accuracy of both, and by measure the difference, `[value, low, high]`."""
    before, after = ([one.accuracy for one in side] for side in zip(*pairs, strict=True))
    moved = [new - old for old, new in zip(before, after, strict=True)]
    return {
        "questions": len(pairs),
        "first": sum(before) / len(pairs),
        "second": sum(after) / len(pairs),
        "better": sum(step > 0 for step in moved),
        "worse": sum(step < 0 for step in moved),
        "avg": _three(before, after),
        **_of_several(pairs),
    }


def _of_several(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return the differences in pass@n and maj@n, with the fewest answers that a question has on either side as n."""
    sides = [list(side) for side in zip(*pairs, strict=True)]
    k = min(len(one.correct) for one in chain(*sides))
    if k == 1:
        return {}
    found = {f"pass@{k}": _three(*(pass_values(side, k) for side in sides))}
    if all(one.answers is not None for one in chain(*sides)):
        found[f"maj@{k}"] = _three(*(majority_values(side, k) for side in sides))
    return found


def _three(first: Sequence[float], second: Sequence[float]) -> list[float]:
    found = mean_difference(first, second)
    return [found.value, found.low, found.high]


def _print(found: dict[str, Any]) -> None:
    console, rows = make_console(), found["rows"]
    for place, run, model in zip(("first", "second"), found["runs"], found["models"], strict=True):
        say(f"{place}: {run} ({model})")
    for mode, budget in dict.fromkeys((row["mode"], row["budget"]) for row in rows):
        own = [row for row in rows if (row["mode"], row["budget"]) == (mode, budget)]
        lines = [_line(row) for row in own if not _says_the_same(row, own)]
        heads = ("", "asked", "first", "second", "gain", "up", "down")
        print_table(f"{_way(mode, budget)}: gain in points", heads, lines, console)
    several = [row for row in rows if row["part"] == "all" and any("@" in name for name in row)]
    if several:
        lines = [
            (_way(row["mode"], row["budget"]), *(_gain(row, kind) for kind in ("pass@", "maj@"))) for row in several
        ]
        print_table("Of several answers, gain in points", ("", "pass@n", "maj@n"), lines, console)
    if found["asked_of_one_alone"]:
        say(f"{found['asked_of_one_alone']} questions were asked of one of them alone, and are left out.")


def _line(row: Mapping[str, Any]) -> list[Any]:
    both = (percent(row["first"]), percent(row["second"]))
    return [row["name"], row["questions"], *both, points(row["avg"]), row["better"], row["worse"]]


def _says_the_same(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a row of a set is that of a domain: where each set is one."""
    parts = Counter(other["part"] for other in rows)
    return row["part"] == "set" and parts["set"] == parts["domain"]


def _way(mode: str, budget: int | None) -> str:
    return mode.replace("_", "-") + ("" if budget is None else f", thinking up to {budget_name(budget)} tokens")


def _gain(row: Mapping[str, Any], kind: str) -> str:
    found = next((value for name, value in row.items() if name.startswith(kind)), None)
    return "–" if found is None else points(found)


def points(difference: Sequence[float]) -> str:
    """Return a difference with its interval in points, as `+2.1 (−0.4 to +4.6)`."""
    value, low, high = (f"{100 * one:+.1f}".replace("-", "−") for one in difference)
    return f"{value} ({low} to {high})"
