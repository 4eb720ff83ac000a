"""Judged responses as figures: accuracy by mode, domain and language, and what the responses were like."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from agapo.evaluation.evaluator import thinks
from agapo.schema import Group
from agapo.tracking.progress import percent, print_table


def mode_figures(groups: Sequence[Group]) -> dict[str, float]:
    """How many questions there are, accuracy, mean tokens a response, shares of responses that were cut and think."""
    responses = [group.responses[0] for group in groups]
    return {
        "questions": len(groups),
        "accuracy": _mean([response.correct is True for response in responses]),
        "tokens": _mean([len(response.token_ids) for response in responses]),
        "truncated": _mean([response.finish == "length" for response in responses]),
        "thinks": _mean([thinks(group.responses[0].text, group.prompt.mode) for group in groups]),
    }


def measures(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return by mode what greedy responses are like: `mode_figures`, and how long the correct ones are.

    `tokens_correct` is their mean, None where none is correct; `rewards` has the mean of each reward term.
    """
    found: dict[str, dict[str, Any]] = {}
    for mode in dict.fromkeys(group.prompt.mode for group in groups):
        own = [group for group in groups if group.prompt.mode == mode]
        lengths = [len(group.responses[0].token_ids) for group in own if group.responses[0].correct]
        of_correct = _mean(lengths) if lengths else None
        found[mode] = {**mode_figures(own), "tokens_correct": of_correct, "rewards": term_means(own)}
    return found


def accuracy_table(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return the accuracy of each mode and domain, over all languages and by language.

    Rows are `{"mode", "domain", "questions", "all", "languages": {code: accuracy}}`; the domain `all` leads each mode.
    """
    rows = []
    for mode in dict.fromkeys(group.prompt.mode for group in groups):
        asked = [group for group in groups if group.prompt.mode == mode]
        domains = list(dict.fromkeys(group.prompt.domain for group in asked))
        rows.append(_row(mode, "all", asked))
        if len(domains) > 1:
            rows += [_row(mode, name, [group for group in asked if group.prompt.domain == name]) for name in domains]
    return rows


def _row(mode: str, domain: str, groups: Sequence[Group]) -> dict[str, Any]:
    by_language: dict[str, list[bool]] = {}
    for group in groups:
        by_language.setdefault(group.prompt.language, []).append(group.responses[0].correct is True)
    languages = {language: _mean(by_language[language]) for language in sorted(by_language)}
    correct = _mean([group.responses[0].correct is True for group in groups])
    return {"mode": mode, "domain": domain, "questions": len(groups), "all": correct, "languages": languages}


def print_accuracy(accuracy: Mapping[str, Any], console: Console) -> None:
    """Print an evaluation's `accuracy`: by mode, domain and language, then what the responses were like."""
    table = accuracy["table"]
    languages = sorted({language for row in table for language in row["languages"]})
    shown = languages if len(languages) > 1 else []
    rows = [
        [row["mode"], row["domain"], row["questions"], percent(row["all"], row["questions"])]
        + [percent(row["languages"].get(language)) for language in shown]
        for row in table
    ]
    print_table("Accuracy", ("mode", "domain", "questions", "correct", *shown), rows, console, left=(1,))
    figures = [
        (mode, f"{found['tokens']:.0f}", percent(found["truncated"]), percent(found["thinks"]))
        for mode, found in accuracy["modes"].items()
    ]
    print_table("Responses", ("mode", "tokens", "cut", "think"), figures, console)


def term_means(groups: Sequence[Group]) -> dict[str, float]:
    """Return the mean of each reward term, before weighting, over the responses that have it."""
    found: dict[str, list[float]] = {}
    for response in (response for group in groups for response in group.responses):
        for name, value in response.reward_parts.items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: _mean(values) for name, values in found.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
