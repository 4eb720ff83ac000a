"""Bounds on the length of the last turn."""

from collections.abc import Callable
from typing import Any

from agapo.curation.report import Finding
from agapo.curation.text import response

Bounds = tuple[int | None, int | None]
"""(least, most); None does not bind."""


def out_of_bounds(
    row: dict[str, Any],
    *,
    answer: Bounds,
    thinking: Bounds,
    count: Callable[[str], int] = len,
    unit: str = "characters",
) -> Finding | None:
    """Return which bound the last turn's answer or thinking breaks, or None.

    `count` measures a text in `unit`. The answer includes its tool calls; rows that do not think have no thinking to
    be too short.
    """
    thought, answered = response(row)
    for name, text, (least, most) in (("answer", answered, answer), ("thinking", thought, thinking)):
        if (least is None and most is None) or (name == "thinking" and row.get("mode") != "reasoning"):
            continue
        length = count(text)
        if least is not None and length < least:
            return Finding(f"{name} of less than {least} {unit}", str(length))
        if most is not None and length > most:
            return Finding(f"{name} of more than {most} {unit}", str(length))
    return None
