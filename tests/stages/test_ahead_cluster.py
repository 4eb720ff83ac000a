"""`python -m benchmarks.ahead_cluster`, small: lengths are what they should be, and the loop runs with each bound."""

from dataclasses import replace

import numpy as np
import pytest

from agapo.rollouts.engine import ResponseId
from benchmarks.ahead_cluster import Setting, simulate, table
from benchmarks.decoding import LIMIT, MEDIAN, length_of


def test_lengths_are_log_normal_and_cut() -> None:
    lengths = np.array([length_of(ResponseId(f"p{number}", 0, 0)) for number in range(20_000)])
    assert np.median(lengths) == pytest.approx(MEDIAN, rel=0.03)
    assert np.log(lengths[lengths < LIMIT]).std() == pytest.approx(1, abs=0.05)
    assert lengths.max() == LIMIT


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
def test_it_runs_with_each_bound() -> None:
    setting = Setting(actors=2, rate=20_000.0, steps=2)
    found = [simulate(setting, bound) for bound in (0, 1)]
    for bound, row in enumerate(found):
        assert row.staleness <= row.staleness_max <= row.max_staleness == bound
        # No less than the work that the windows do.
        assert row.step_s > row.sampling_s > 0.5 * setting.learning_s > 0
    assert "| perfect overlap |" in table(found)
    dropping = replace(setting, keep=0.5)
    plain, more = (simulate(dropping, 0, oversample=oversample) for oversample in (False, True))
    assert plain.sampling_s == pytest.approx(more.sampling_s), "both learn from the same prompts"
