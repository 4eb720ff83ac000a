"""Figures of several answers a question: closed forms, enumerations, and intervals that cover."""

import math
from collections.abc import Sequence
from itertools import combinations, permutations
from statistics import fmean

import numpy as np
import pytest

from agapo.evaluation.statistics import (
    majority_at_k,
    mean_difference,
    mean_of_questions,
    pass_at_k,
    powers_up_to,
    student_t,
)


@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_pass_at_k_is_the_closed_form_and_what_all_draws_give(samples: int) -> None:
    for correct in range(samples + 1):
        right = [True] * correct + [False] * (samples - correct)
        for k in range(1, samples + 1):
            drawn = fmean(any(draw) for draw in combinations(right, k))
            product = 1 - math.prod(1 - k / i for i in range(samples - correct + 1, samples + 1))
            assert pass_at_k(samples, correct, k) == pytest.approx(drawn) == pytest.approx(product)
    with pytest.raises(ValueError, match="k should be 1 to"):
        pass_at_k(samples, 0, samples + 1)


def voted(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """The definition: the chance to be right with a draw among the answers with the most votes."""
    given = [answer for answer in answers if answer is not None]
    best = [one for one in set(given) if given.count(one) == max(given.count(other) for other in given)]
    chances = [1.0 if correct[list(answers).index(one)] else 0.0 for one in best]
    return fmean(chances) if chances else 0.0


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_majority_is_over_all_orders_what_all_draws_of_k_give(k: int) -> None:
    answers, correct = ["7", "8", "7", None, "9"], [True, False, True, False, False]
    draws = [voted([answers[i] for i in draw], [correct[i] for i in draw]) for draw in combinations(range(5), k)]
    orders = [majority_at_k([answers[i] for i in o], [correct[i] for i in o], k) for o in permutations(range(5))]
    assert fmean(orders) == pytest.approx(fmean(draws))


def test_ties_share_and_who_gives_no_answer_has_no_vote() -> None:
    assert majority_at_k(["7", "8"], [True, False], 2) == 0.5
    assert majority_at_k(["7", None, None], [True, False, False], 3) == 1.0
    assert majority_at_k([None, None], [False, False], 2) == 0.0
    # Two blocks, and one answer that makes no block.
    assert majority_at_k(["7", "7", "8", "8", "7"], [True, True, False, False, True], 2) == 0.5


@pytest.mark.parametrize(("freedom", "tabled"), [(1, 12.706), (2, 4.303), (3, 3.182), (9, 2.262), (29, 2.045)])
def test_students_points(freedom: int, tabled: float) -> None:
    assert student_t(freedom) == pytest.approx(tabled, rel=0.01)


@pytest.mark.parametrize("questions", [5, 10, 30, 100])
def test_intervals_of_one_answer_a_question_cover_whatever_the_share(questions: int) -> None:
    """Exactly: over all numbers of right answers, each with its probability."""
    found = [mean_of_questions([1.0] * right + [0.0] * (questions - right)) for right in range(questions + 1)]
    for share in np.linspace(0.005, 0.995, 199):
        chances = [math.comb(questions, c) * share**c * (1 - share) ** (questions - c) for c in range(questions + 1)]
        covered = sum(p for p, one in zip(chances, found, strict=True) if one.low <= share <= one.high)
        assert covered >= 0.94


SKEWED = {"hard": (0.2, 4.0), "easy": (5.0, 0.5), "either": (0.3, 0.3)}


@pytest.mark.parametrize("skew", SKEWED)
@pytest.mark.parametrize("samples", [1, 8])
def test_intervals_over_questions_of_skewed_difficulty_cover(skew: str, samples: int) -> None:
    draw, (a, b), runs = np.random.default_rng(0), SKEWED[skew], 1500
    shares = draw.beta(a, b, (runs, 30))
    values = draw.binomial(samples, shares) / samples
    found = [mean_of_questions(row.tolist()) for row in values]
    assert fmean(one.low <= a / (a + b) <= one.high for one in found) >= 0.94


@pytest.mark.parametrize("skew", SKEWED)
def test_intervals_of_paired_differences_cover(skew: str) -> None:
    draw, (a, b), runs, samples = np.random.default_rng(1), SKEWED[skew], 1500, 4
    shares = draw.beta(a, b, (runs, 30))
    # The other model loses one question in ten whole.
    kept = draw.random(shares.shape) > 0.1
    first, second = (draw.binomial(samples, p) / samples for p in (shares, shares * kept))
    found = [mean_difference(*pair) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    assert fmean(one.low <= -0.1 * a / (a + b) <= one.high for one in found) >= 0.94


def test_questions_and_not_answers_decide_how_sure_it_is() -> None:
    of_each = mean_of_questions([1.0, 0.0] * 10)
    assert mean_of_questions([1.0] * 20 + [0.0] * 20).high < of_each.high
    assert mean_of_questions([0.5] * 20).high < of_each.high
    all_right = mean_of_questions([1.0] * 20)
    assert all_right.low < 0.9 and all_right.high == 1.0
    alone = mean_of_questions([1.0])
    assert (alone.low, alone.high) == (0.0, 1.0)


def test_the_k_of_tables() -> None:
    assert [powers_up_to(n) for n in (1, 4, 6)] == [[1], [1, 2, 4], [1, 2, 4, 6]]
