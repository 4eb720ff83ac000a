"""Older weights sampled: what the weights of `algorithm.importance` make of the gradient, by enumeration."""

import math

import pytest
import torch

from agapo.algorithm.objective import Objective, TokenBatch, importance_weights
from benchmarks.off_policy import CAPS, LEVELS, draw_policies, expected_gradient, main, on_policy_gradient, responses


@pytest.fixture(scope="module")
def far():
    policy, sampler = draw_policies(0.5)
    return policy, sampler, on_policy_gradient(policy)


def error(policy, sampler, exact, level, cap) -> float:
    found, _ = expected_gradient(policy, sampler, Objective(importance=level, importance_cap=cap))
    return float((found - exact).norm() / exact.norm())


def test_responses_are_all_that_there_are(far):
    policy, sampler, _ = far
    for item in (policy, sampler):
        assert sum(float(item.logprobs(r).sum().exp()) for r, _ in responses()) == pytest.approx(1)


@pytest.mark.parametrize("level", LEVELS)
def test_on_policy_every_level_gives_the_gradient(far, level):
    policy, _, exact = far
    assert error(policy, policy, exact, level, 1.0) < 1e-12


def test_ratios_of_whole_responses_give_it_off_policy_as_the_cap_goes_up(far):
    errors = [error(*far, "sequence", cap) for cap in CAPS]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 1e-9


def test_every_correction_is_better_than_none(far):
    without = error(*far, "none", math.inf)
    assert all(error(*far, level, 2.0) < without for level in ("token", "geometric", "sequence"))


def test_a_band_leaves_out_what_is_outside():
    zeros = torch.zeros(4)
    ratio = torch.tensor([0.4, 0.6, 1.9, 2.1])
    tokens = TokenBatch(torch.tensor([0, 0, 1, 1]), 2, zeros + 1, zeros, zeros, zeros, zeros, zeros)
    own = Objective(importance="token", importance_cap=1.5, importance_band=(0.5, 2.0))
    torch.testing.assert_close(importance_weights(ratio.log(), tokens, own), torch.tensor([0.0, 0.6, 1.5, 0.0]))
    # The products are what counts here, and both are inside.
    own = Objective(importance="sequence", importance_cap=9.0, importance_band=(0.2, 4.0))
    found = importance_weights(ratio.log(), tokens, own)
    torch.testing.assert_close(found, torch.tensor([0.24, 0.24, 3.99, 3.99]))


def test_the_table_is_printed(capsys):
    main()
    assert capsys.readouterr().out.count("| sequence |") == 2
