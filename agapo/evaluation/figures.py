"""What a training's greedy test responses were like: accuracy, lengths, shares that were cut and think, rewards."""

from collections.abc import Sequence
from typing import Any

from agapo.evaluation.evaluator import thinks
from agapo.schema import Group


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
