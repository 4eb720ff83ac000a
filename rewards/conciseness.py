"""How short is a correct response, beside the other correct responses to the same prompt?

The first preference stage of EXAONE 4.0 (arXiv 2507.11407, §2.4.3) rewards conciseness among correct responses. Here it
is a relative of Kimi k1.5's length reward (arXiv 2501.12599, §2.3.3), with the incorrect ones at 0 and lengths compared
among the correct ones alone, so that a short wrong answer moves nothing.

Lengths are in characters of thinking and answer together: a reward sees text, not tokens.
"""

from collections.abc import Sequence
from typing import Any

from agapo.chat import Completion, completion_text


def score_group(
    prompt: Any,
    completions: Sequence[Completion],
    scores: Sequence[float | None],
    *,
    floor: int = 0,
    correct: Sequence[bool] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Return [G] values: 0 for what is not correct (by `correct`, or else `scores` < 1 or None), for the correct

        1 − (length − shortest) / (longest − shortest)        over the correct ones,

    1 for the shortest to 0 for the longest; 1 for all where they are equally long, or where there is one alone. Lengths
    below `floor` count as `floor`: shorter than that is not better.
    """
    lengths = [max(floor, len(completion_text(completion))) for completion in completions]
    if correct is None:
        correct = [value is not None and value >= 1 for value in scores]
    known = [length for length, is_correct in zip(lengths, correct, strict=True) if is_correct]
    if not known:
        return [0.0] * len(completions)
    shortest, span = min(known), max(known) - min(known)
    return [
        (1 - (length - shortest) / span if span else 1.0) if is_correct else 0.0
        for length, is_correct in zip(lengths, correct, strict=True)
    ]
