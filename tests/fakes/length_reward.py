"""A reward that a random model sometimes gets right, so that groups are mixed."""

from typing import Any


def score(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """1 when the completion has an even number of characters."""
    return [float(len(completion) % 2 == 0) for completion in completions]
