"""A reward that a random model sometimes gets right, so that groups are mixed."""

from typing import Any


def score(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """1 when the completion has an even number of characters."""
    return [float(len(completion) % 2 == 0) for completion in completions]


def mostly(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """1 unless the number of characters is a multiple of three: a fifth of the groups of four are right throughout."""
    return [float(len(completion) % 3 != 0) for completion in completions]


def short(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """1 for eight characters at most, which is learnt in a few steps."""
    return [float(len(completion) <= 8) for completion in completions]


def shaped(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """0.9 for an even number of characters, and a little less for each of them: it never reaches 1."""
    return [0.9 * (len(completion) % 2 == 0) - 0.001 * len(completion) for completion in completions]
