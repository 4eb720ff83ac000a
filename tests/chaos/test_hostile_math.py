"""Hostile answers through the pool: each is over at its deadline, none is right, and honest ones score as before."""

import time

import pytest

from agapo.rewarding.pool import Sample, VerifierPool
from tests.hostile_math import HOSTILE

pytestmark = pytest.mark.slow

DEADLINE_S = 5.0
HONEST = [Sample([], f"\\boxed{{{n if n % 2 else n + 1}}}", {"answer": str(n), "mode": None}) for n in range(200)]


def test_hostile_answers_are_wrong_and_over_in_time() -> None:
    hostile = [Sample([], f"\\boxed{{{answer}}}", {"answer": gold, "mode": None}) for answer, gold in HOSTILE]
    assert len(hostile) >= 50
    with VerifierPool({"answer": "rewards.math_answer:score"}, workers=2, deadline_s=DEADLINE_S) as pool:
        before = [score["answer"].value for score in pool.score(HONEST)]
        started = time.monotonic()
        scores = [score["answer"] for score in pool.score(hostile)]
        seconds = time.monotonic() - started
        after = [score["answer"].value for score in pool.score(HONEST)]
    assert {score.error for score in scores} <= {None, "timeout"}
    assert [answer for (answer, _), score in zip(HOSTILE, scores, strict=True) if score.value != 0.0] == []
    assert seconds < len(hostile) * DEADLINE_S
    assert before == after == [float(n % 2) for n in range(200)]
