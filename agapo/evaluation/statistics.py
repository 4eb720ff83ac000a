"""What several answers a question say of a model: avg@n, pass@k, maj@k, and how sure that is. Pure functions.

A question is the unit: its answers hang together, so every figure is a mean over questions of a value between 0 and 1,
and every interval is over questions, however many answers each has.

Deliberately left out: intervals at other levels than 95 %, and corrections for comparing many models.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

Z = NormalDist().inv_cdf(0.975)
_FEW = {1: 12.706, 2: 4.303}
"""Student's t at 97.5 % where the expansion of `student_t` is too coarse."""


@dataclass(frozen=True)
class Estimate:
    """A mean over questions, with its interval."""

    value: float
    low: float
    high: float
    """`low` to `high` holds the mean over all such questions in 95 of 100 evaluations."""


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Return 1 − C(n−c, k) / C(n, k): the chance that k of the n answers, drawn without return, hold a correct one.

    Unbiased for k new answers (Chen et al., arXiv 2107.03374, equation 1). k is 1 to n.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k should be 1 to {samples}, is {k}")
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool], k: int) -> float:
    """Return how often the answer that most of k give is correct: the mean over the blocks of k answers that there are.

    Unbiased for k new answers. `answers`, [n], are in a form in which the same answer is the same value; None gives
    none, and has no vote. Answers with equally many votes share the block: one of them would be drawn. A block without
    any vote is wrong.
    """
    if not 1 <= k <= len(answers):
        raise ValueError(f"k should be 1 to {len(answers)}, is {k}")
    starts = range(0, len(answers) - k + 1, k)
    return fmean(_majority(answers[start : start + k], correct[start : start + k]) for start in starts)


def _majority(answers: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    tied = [answer for answer, count in votes.items() if count == most]
    # Two forms of an answer that the reward tells apart may be one here: then the vote is right as often as they are.
    return fmean(right for answer, right in zip(answers, correct, strict=True) if answer in tied)


def mean_of_questions(values: Sequence[float]) -> Estimate:
    """Return the mean of the questions' values, [N] from 0 to 1, with its 95 % interval.

    The interval is that of Agresti and Coull, for values between 0 and 1 as well: Student's interval of the values and
    four more, two of 0 and two of 1, so that it has a width where all are right, and covers where few are wrong. Over
    all shares of right answers it holds the true one in 94 % and more of the cases, from 5 questions on.
    """
    return _estimate(values, (0.0, 0.0, 1.0, 1.0))


def mean_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Return the mean of `second` − `first`, [N] values each of the same questions in the same order; 95 % interval.

    The interval is that of Bonett and Price for paired proportions, for values between 0 and 1 as well: Student's
    interval of the differences and two more, −1 and 1. It is wide where many answers a question make them nearly equal.
    """
    return _estimate([new - old for old, new in zip(first, second, strict=True)], (-1.0, 1.0))


def _estimate(values: Sequence[float], more: tuple[float, ...]) -> Estimate:
    """Return the mean of the values, and Student's interval of them and `more`, the least and the most there can be."""
    value = fmean(values) if values else 0.0
    if len(values) < 2:
        return Estimate(value, min(more), max(more))
    padded = [*values, *more]
    middle = fmean(padded)
    variance = fmean((one - middle) ** 2 for one in padded)
    half = student_t(len(values) - 1) * math.sqrt(variance / len(padded))
    # `middle` lies a little towards the centre of what there can be; the value itself is always inside.
    return Estimate(value, max(min(more), min(value, middle - half)), min(max(more), max(value, middle + half)))


def student_t(freedom: int) -> float:
    """Return the 97.5 % point of Student's t, by its expansion in 1 / degrees of freedom (within 1 % from 3 on)."""
    if freedom in _FEW:
        return _FEW[freedom]
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
    )
    return Z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def powers_up_to(samples: int) -> list[int]:
    """Return 1, 2, 4, … and `samples` itself: the k that tables and curves have."""
    return sorted({2**power for power in range(samples.bit_length()) if 2**power <= samples} | {samples})
