"""The meter of engine against learner: its figures from closed forms, its bound, and the cause that it names."""

import math

import pytest
import torch

from agapo.algorithm.objective import Objective, TokenBatch, policy_loss
from agapo.errors import UserError
from agapo.recipe.rollout import MismatchConfig
from agapo.stages.rl.mismatch import mismatch_metrics, require_same_policy


def sums_of(learner: list[float], engine: list[float], mask: list[int]) -> dict[str, float]:
    tokens = len(learner)
    zeros = torch.zeros(tokens, dtype=torch.float64)
    batch = TokenBatch(
        response=torch.zeros(tokens, dtype=torch.long),
        responses=1,
        mask=torch.tensor(mask, dtype=torch.float64),
        sampler_logprobs=torch.tensor(engine, dtype=torch.float64),
        reference_logprobs=zeros,
        advantages=zeros,
        kl_weights=zeros,
        kl_baselines=zeros,
    )
    _, sums = policy_loss(torch.tensor(learner, dtype=torch.float64), batch, Objective(), 1.0)
    return {name: float(value) for name, value in sums.items()}


def test_figures_are_their_definitions() -> None:
    """Ratios 1/2, 2, 1; the fourth token is a tool's, all but impossible, and counts for nothing."""
    learner, engine = [-2.0, -1.0, -3.0, -900.0], [-2 + math.log(2), -1 - math.log(2), -3.0, 0.0]
    found = mismatch_metrics([sums_of(learner, engine, [1, 1, 1, 0])])
    assert found == pytest.approx(
        {
            "mismatch/mean": 2 * math.log(2) / 3,
            "mismatch/max": math.log(2),
            "mismatch/kl": ((0.5 - 1 + math.log(2)) + (2 - 1 - math.log(2)) + 0) / 3,
            "mismatch/ess": 3.5**2 / (0.25 + 4 + 1) / 3,
        }
    )


def test_kl_estimate_is_the_kl_over_a_whole_distribution() -> None:
    engine, learner = torch.tensor([0.1, 0.2, 0.7]).double(), torch.tensor([0.3, 0.3, 0.4]).double()
    found = [
        mismatch_metrics([sums_of([float(q)], [float(p)], [1])])
        for p, q in zip(engine.log(), learner.log(), strict=True)
    ]
    estimate = sum(float(p) * item["mismatch/kl"] for p, item in zip(engine, found, strict=True))
    assert estimate == pytest.approx(float((engine * (engine / learner).log()).sum()))


def test_the_same_policy_shows_nothing_and_no_update_measures_nothing() -> None:
    same = mismatch_metrics([sums_of([-1.0, -2.0], [-1.0, -2.0], [1, 1])])
    assert same == {"mismatch/mean": 0, "mismatch/max": 0, "mismatch/kl": 0, "mismatch/ess": 1}
    assert mismatch_metrics([]) == {}
    require_same_policy({}, 1e-9, 0)


def test_later_updates_of_a_batch_have_moved_on_by_design() -> None:
    first, second = sums_of([-1.0], [-1.0], [1]), sums_of([-5.0], [-1.0], [1])
    assert mismatch_metrics([first, second])["mismatch/mean"] == 0


@pytest.mark.parametrize(
    ("agreed", "cause"), [(0, "never agreed: likely another temperature, dtype"), (7, "over 7 steps, so weights are")]
)
def test_past_the_bound_the_run_stops_and_names_the_cause(agreed: int, cause: str) -> None:
    metrics = {"mismatch/mean": 0.01, "mismatch/max": 0.5}
    require_same_policy(metrics, 0.01, agreed)
    with pytest.raises(UserError, match=cause) as caught:
        require_same_policy(metrics, 0.009, agreed)
    assert "0.01 nats" in str(caught.value)
    assert "rollout.mismatch.stop_above" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_adapter_is_a_cause_where_adapters_are_trained() -> None:
    metrics = {"mismatch/mean": 0.01, "mismatch/max": 0.5}
    for adapters in (True, False):
        with pytest.raises(UserError, match="over 1 steps, so weights are") as caught:
            require_same_policy(metrics, 0.009, 1, adapters=adapters)
        assert ("an adapter that is not loaded" in str(caught.value)) == adapters


def test_a_difference_that_is_no_number_stops() -> None:
    with pytest.raises(UserError, match="nan nats"):
        require_same_policy({"mismatch/mean": math.nan, "mismatch/max": math.nan}, 0.1, 3)


def test_the_bound_is_the_dtypes_unless_said_otherwise() -> None:
    assert MismatchConfig().bound("float32") == 2e-3
    assert MismatchConfig().bound("bfloat16") == 0.15
    assert MismatchConfig(stop_above=0.3).bound("float32") == 0.3
