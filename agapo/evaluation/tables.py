"""An evaluation's answers as tables: accuracy with its interval, pass@k and maj@k, by mode, domain, set and language.

Intervals are over questions (`agapo.evaluation.statistics`).
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean as mean
from typing import Any

from rich.console import Console

from agapo.evaluation.answers import Answered
from agapo.evaluation.statistics import majority_at_k, mean_of_questions, pass_at_k, powers_up_to
from agapo.tracking.progress import percent, print_table


def accuracy_figures(answered: Sequence[Answered]) -> dict[str, Any]:
    """Return a summary's `accuracy`: tables by mode of domains, sets and languages, and the sweep of thinking budgets.

    Each row has `questions`, `samples` (answers a question), `all` (the accuracy, avg@n), its `interval`, and by k
    `pass` and `majority`, each `[value, low, high]`.
    """
    asked = [one for one in answered if one.budget is None]
    by_mode = _parted(asked, "mode")
    return {
        "modes": {mode: _like(own) for mode, own in by_mode.items()},
        "errors": sum(one.errors for one in answered),
        "tokens": sum(sum(one.tokens) for one in answered),
        "table": _tabled(by_mode, "domain", leading=True),
        "sets": _tabled(by_mode, "suite"),
        "languages": _tabled(by_mode, "language"),
        "budgets": _sweep(answered),
    }


def _parted(answered: Iterable[Answered], name: str) -> dict[Any, list[Answered]]:
    found: dict[Any, list[Answered]] = {}
    for one in answered:
        found.setdefault(getattr(one, name), []).append(one)
    return found


def _like(answered: Sequence[Answered]) -> dict[str, Any]:
    """How many questions there are, accuracy, mean tokens an answer, shares of answers that were cut and that think."""
    flat = {name: [value for one in answered for value in getattr(one, name)] for name in ("tokens", "cut", "thinks")}
    return {
        "questions": len(answered),
        "accuracy": mean([one.accuracy for one in answered]),
        "tokens": mean(flat["tokens"]),
        "truncated": mean(flat["cut"]),
        "thinks": mean(flat["thinks"]),
    }


def _tabled(by_mode: Mapping[str, Sequence[Answered]], part: str, *, leading: bool = False) -> list[dict[str, Any]]:
    """Return a row for each mode and part; with `leading` a row of all of a mode first, and no part that is alone."""
    rows = []
    for mode, own in by_mode.items():
        parts = _parted(own, part)
        named = parts if not leading else {"all": own} | (parts if len(parts) > 1 else {})
        rows += [{"mode": mode, part.replace("suite", "set"): name, **_row(found)} for name, found in named.items()]
    return rows


def _row(answered: Sequence[Answered]) -> dict[str, Any]:
    found = mean_of_questions([one.accuracy for one in answered])
    languages = {
        name: mean([one.accuracy for one in own]) for name, own in sorted(_parted(answered, "language").items())
    }
    samples = min(len(one.correct) for one in answered)
    return {
        "questions": len(answered),
        "samples": samples,
        "all": found.value,
        "interval": [found.low, found.high],
        "languages": languages,
        "pass": {str(k): _three(pass_values(answered, k)) for k in powers_up_to(samples)},
        "majority": {str(k): _three(majority_values(answered, k)) for k in powers_up_to(samples) if _votes(answered)},
    }


def _votes(answered: Sequence[Answered]) -> bool:
    return len(answered) > 0 and all(one.answers is not None for one in answered)


def pass_values(answered: Iterable[Answered], k: int) -> list[float]:
    """Return each question's pass@k."""
    return [pass_at_k(len(one.correct), sum(one.correct), k) for one in answered]


def majority_values(answered: Iterable[Answered], k: int) -> list[float]:
    """Return each question's maj@k; all of them have answers that can be compared."""
    return [majority_at_k(one.answers or (), one.correct, k) for one in answered]


def _three(values: Sequence[float]) -> list[float]:
    found = mean_of_questions(values)
    return [found.value, found.low, found.high]


def _sweep(answered: Sequence[Answered]) -> list[dict[str, Any]]:
    """Return a row for each thinking budget, the last for what is asked as `rollout` says; none without a sweep."""
    thinking = _parted([one for one in answered if one.mode == "reasoning"], "budget")
    budgets = sorted(budget for budget in thinking if budget is not None)
    if not budgets:
        return []
    rows = [(budget, thinking[budget]) for budget in (*budgets, None) if budget in thinking]
    return [{"budget": budget, **_like(own), **_row(own)} for budget, own in rows]


def print_accuracy(accuracy: Mapping[str, Any], console: Console) -> None:
    """Print an evaluation's `accuracy`: by mode and domain or set, then what the responses were like, and the sweep."""
    table, sets = accuracy["table"], accuracy.get("sets", [])
    languages = sorted({language for row in table for language in row["languages"]})
    # Beside pass@n and maj@n there is no room for them.
    beside = len(languages) > 1 and _most(table) == 1
    shown = languages if beside else []
    print_scores("Accuracy", "domain", table, console, shown)
    # Where each set is a domain they would say the same.
    if len(sets) > len({row["mode"] for row in sets}) and len(sets) != len([r for r in table if r["domain"] != "all"]):
        print_scores("Accuracy by set", "set", sets, console, shown)
    if len(languages) > 1 and not beside:
        print_scores("Accuracy by language", "language", accuracy["languages"], console)
    figures = [
        (mode, f"{found['tokens']:.0f}", percent(found["truncated"]), percent(found["thinks"]))
        for mode, found in accuracy["modes"].items()
    ]
    print_table("Responses", ("mode", "tokens", "cut", "think"), figures, console)
    if budgets := accuracy.get("budgets"):
        most = _most(budgets)
        swept = [
            (budget_name(row["budget"]), *_scores(row, most), f"{row['tokens']:.0f}", percent(row["truncated"]))
            for row in budgets
        ]
        heads = ("thinking", *_heads(most), "tokens", "cut")
        title = _titled("Accuracy in reasoning mode by tokens of thinking", most)
        print_table(title, heads, swept, console)


def print_scores(
    title: str, part: str, rows: Sequence[Mapping[str, Any]], console: Console, languages: Sequence[str] = ()
) -> None:
    """Print a table's rows: avg@n, pass@n and maj@n, where there are several answers a question."""
    most = _most(rows)
    lines = [
        [row["mode"], row[part], *_scores(row, most)]
        + [percent(row["languages"].get(language)) for language in languages]
        for row in rows
    ]
    print_table(_titled(title, most), ("mode", part, *_heads(most), *languages), lines, console, left=(1,))


def _most(rows: Sequence[Mapping[str, Any]]) -> int:
    # Evaluations of before have one answer a question, and do not say so.
    return max(row.get("samples", 1) for row in rows)


def _heads(samples: int) -> list[str]:
    return ["questions", *(["correct"] if samples == 1 else ["avg@n", "pass@n", "maj@n"])]


def _titled(title: str, samples: int) -> str:
    return title if samples == 1 else f"{title} (n = {samples}; greedily 1)"


def _scores(row: Mapping[str, Any], most: int) -> list[Any]:
    own = str(row.get("samples", 1))
    first = with_interval(row["all"], *row["interval"]) if "interval" in row else percent(row["all"], row["questions"])
    if most == 1:
        return [row["questions"], first]
    others = (percent(row[name].get(own, [None])[0]) if own != "1" else "–" for name in ("pass", "majority"))
    return [row["questions"], first, *others]


def with_interval(value: float, low: float, high: float) -> str:
    """Return a share with its interval, as `94.7% (92–96)`."""
    return f"{percent(value)} ({100 * low:.0f}–{100 * high:.0f})"


def budget_name(budget: int | None) -> str:
    """Return what a table or picture calls a thinking budget."""
    return "as it likes" if budget is None else f"{budget:,}"
