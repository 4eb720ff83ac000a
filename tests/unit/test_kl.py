"""The KL estimators against autograd of the exact KL, on a policy so small that every response can be listed.

Three tokens, of which END ends a response, and at most three tokens a response: 15 responses, 225 groups of two.
Everything is float64, so an unbiased estimator agrees to rounding.
"""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agapo.algorithm.kl import kl_baseline, kl_coefficients
from agapo.algorithm.objective import Objective, TokenBatch, policy_loss

END, VOCABULARY, LONGEST = 2, 3, 3
PREFIXES = [prefix for size in range(LONGEST) for prefix in product(range(END), repeat=size)]
RESPONSES = [(*prefix, END) for prefix in PREFIXES] + list(product(range(END), repeat=LONGEST))
ESTIMATORS = ["sequence", "reward_to_go"]


def tables(seed):
    """Logits [prefix, vocabulary] of a policy."""
    return torch.randn(len(PREFIXES), VOCABULARY, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def policy():
    return tables(0).requires_grad_()


@pytest.fixture
def reference():
    return tables(1)


def logprobs(logits, response):
    """Return log π(o_t | o_<t) [T]."""
    table = logits.log_softmax(dim=-1)
    return torch.stack([table[PREFIXES.index(response[:t]), token] for t, token in enumerate(response)])


def exact_kl(policy, reference):
    total = torch.zeros((), dtype=torch.float64)
    for response in RESPONSES:
        log_policy, log_reference = logprobs(policy, response).sum(), logprobs(reference, response).sum()
        total = total + log_policy.exp() * (log_policy - log_reference)
    return total


def gradient(value, policy):
    return torch.autograd.grad(value, policy)[0]


def padded(values):
    """[G, LONGEST] of values [T] each, zero on the right."""
    return torch.stack([torch.nn.functional.pad(item, (0, LONGEST - len(item))) for item in values])


def baselines(group, sampler, reference, estimator):
    """The group's baselines, flat as the tokens are."""
    lengths = torch.tensor([len(response) for response in group])
    mask = torch.arange(LONGEST)[None] < lengths[:, None]
    ratio = padded([sampler[response] - reference[response] for response in group])
    return kl_baseline(ratio, mask, torch.ones(len(group), dtype=torch.bool), estimator)[mask]


def rows(logits):
    """Return log π [T] of every response."""
    return {response: logprobs(logits, response) for response in RESPONSES}


def token_batch(group, sampler, reference, baseline=None):
    sampled = torch.cat([sampler[response] for response in group])
    lengths = torch.tensor([len(response) for response in group])
    return TokenBatch(
        response=torch.arange(len(group)).repeat_interleave(lengths),
        responses=len(group),
        mask=torch.ones_like(sampled),
        sampler_logprobs=sampled,
        reference_logprobs=torch.cat([reference[response] for response in group]),
        advantages=torch.zeros_like(sampled),
        kl_weights=torch.ones_like(sampled),
        kl_baselines=torch.zeros_like(sampled) if baseline is None else baseline,
    )


def expected_gradient(policy, sampler, reference, objective, size=1, with_baseline=False):
    """The mean, over every group of `size` responses that `sampler` can give, of the loss's gradient."""
    total = torch.zeros((), dtype=torch.float64)
    current, sampler, reference = rows(policy), rows(sampler), rows(reference)
    for group in product(RESPONSES, repeat=size):
        baseline = baselines(group, sampler, reference, objective.kl_estimator) if with_baseline else None
        tokens = token_batch(group, sampler, reference, baseline)
        loss, _ = policy_loss(torch.cat([current[item] for item in group]), tokens, objective, denominator=size)
        total = total + tokens.sampler_logprobs.sum().exp() * loss
    return gradient(total, policy)


def test_every_response_is_listed(policy):
    assert len(RESPONSES) == len(set(RESPONSES)) == 15
    assert sum(logprobs(policy, response).sum().exp() for response in RESPONSES).item() == pytest.approx(1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
class TestUnbiased:
    def test_single_responses(self, estimator, policy, reference):
        objective = Objective(kl_coefficient=1.0, kl_estimator=estimator)
        expected = gradient(exact_kl(policy, reference), policy)
        found = expected_gradient(policy, policy.detach(), reference, objective)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)

    def test_groups_with_baselines(self, estimator, policy, reference):
        objective = Objective(kl_coefficient=1.0, kl_estimator=estimator)
        expected = gradient(exact_kl(policy, reference), policy)
        found = expected_gradient(policy, policy.detach(), reference, objective, size=2, with_baseline=True)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)

    def test_other_policies_samples_with_sequence_weights(self, estimator, policy, reference):
        objective = Objective(kl_coefficient=1.0, kl_estimator=estimator, importance="sequence", importance_cap=1e30)
        expected = gradient(exact_kl(policy, reference), policy)
        found = expected_gradient(policy, tables(2), reference, objective, size=2, with_baseline=True)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)

    def test_coefficient_scales(self, estimator, policy, reference):
        objective = Objective(kl_coefficient=0.3, kl_estimator=estimator)
        expected = 0.3 * gradient(exact_kl(policy, reference), policy)
        found = expected_gradient(policy, policy.detach(), reference, objective)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)

    def test_nothing_to_pull_at_the_reference_itself(self, estimator, policy):
        objective = Objective(kl_coefficient=1.0, kl_estimator=estimator)
        found = expected_gradient(policy, policy.detach(), policy.detach(), objective)
        assert found.abs().max().item() < 1e-15


class TestPeers:
    """Documents what the per-token penalties of the peers do: neither is the gradient of the KL of responses."""

    def test_k1_in_the_loss_has_no_gradient_at_all(self, policy, reference):
        total = torch.zeros((), dtype=torch.float64)
        for response in RESPONSES:
            current = logprobs(policy, response)
            total = total + current.sum().exp().detach() * (current - logprobs(reference, response)).sum()
        assert gradient(total, policy).abs().max().item() < 1e-15
        assert gradient(exact_kl(policy, reference), policy).abs().max().item() > 0.05

    def test_k2_sees_each_token_alone(self, policy, reference):
        """Its gradient is that of the exact KL with every prefix's probability held fixed."""
        held = torch.zeros((), dtype=torch.float64)
        for state, prefix in enumerate(PREFIXES):
            reach = logprobs(policy, prefix).sum().exp().detach() if prefix else 1.0
            log_policy, log_reference = policy.log_softmax(-1)[state], reference.log_softmax(-1)[state]
            held = held + reach * (log_policy.exp() * (log_policy - log_reference)).sum()
        expected = gradient(held, policy)
        found = expected_gradient(policy, policy.detach(), reference, Objective(kl_coefficient=1.0, kl_estimator="k2"))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)
        assert (expected - gradient(exact_kl(policy, reference), policy)).abs().max().item() > 0.05

    def test_k3_in_the_loss_pulls_along_the_other_divergence(self, policy, reference):
        """E[∇k3] = E[(1 − π_ref/π) ∇log π] = −Σ π_ref ∇log π: the gradient of KL(π_ref ‖ π), prefixes held."""
        held = torch.zeros((), dtype=torch.float64)
        for state, prefix in enumerate(PREFIXES):
            reach = logprobs(policy, prefix).sum().exp().detach() if prefix else 1.0
            held = held - reach * (reference.softmax(-1)[state] * policy.log_softmax(-1)[state]).sum()
        found = expected_gradient(policy, policy.detach(), reference, Objective(kl_coefficient=1.0, kl_estimator="k3"))
        torch.testing.assert_close(found, gradient(held, policy), rtol=1e-6, atol=1e-12)


class TestCoefficients:
    RATIO = torch.tensor([1.0, 2.0, 4.0, 10.0, 30.0])
    RESPONSE = torch.tensor([0, 0, 0, 2, 2])  # response 1 has no tokens

    def test_sequence_is_the_whole_responses_sum(self):
        found = kl_coefficients(self.RATIO, self.RESPONSE, 3, "sequence")
        assert found.tolist() == [7, 7, 7, 40, 40]

    def test_reward_to_go_is_the_tail_with_the_token_itself(self):
        found = kl_coefficients(self.RATIO, self.RESPONSE, 3, "reward_to_go")
        assert found.tolist() == [7, 6, 4, 40, 30]

    @given(st.lists(st.lists(st.floats(-5, 5), max_size=6), min_size=1, max_size=5))
    def test_tails_of_each_response(self, ratios):
        flat = torch.tensor([value for row in ratios for value in row], dtype=torch.float64)
        response = torch.tensor([index for index, row in enumerate(ratios) for _ in row], dtype=torch.long)
        expected = [sum(row[t:]) for row in ratios for t in range(len(row))]
        found = kl_coefficients(flat, response, len(ratios), "reward_to_go")
        assert found.tolist() == pytest.approx(expected, abs=1e-9)


class TestBaseline:
    RATIO = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 99.0], [100.0, 99.0, 99.0]])
    MASK = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])

    def test_sequence_is_the_mean_of_the_others(self):
        found = kl_baseline(self.RATIO, self.MASK, torch.tensor([True] * 3), "sequence")
        assert found.tolist() == [[65] * 3, [53] * 3, [18] * 3]

    def test_reward_to_go_counts_an_ended_response_as_0(self):
        # Tails: 6 5 3 | 30 20 0 | 100 0 0.
        found = kl_baseline(self.RATIO, self.MASK, torch.tensor([True] * 3), "reward_to_go")
        assert found.tolist() == [[65, 10, 0], [53, 2.5, 1.5], [18, 12.5, 1.5]]

    def test_response_that_does_not_count_is_nobodys_baseline(self):
        found = kl_baseline(self.RATIO, self.MASK, torch.tensor([True, False, True]), "reward_to_go")
        assert found[[0, 2]].tolist() == [[100, 0, 0], [6, 5, 3]]

    def test_response_that_counts_alone_has_none(self):
        found = kl_baseline(self.RATIO, self.MASK, torch.tensor([True, False, False]), "sequence")
        assert found[0].tolist() == [0, 0, 0]

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    @given(value=st.floats(-50, 50), row=st.integers(0, 2))
    def test_does_not_depend_on_the_response_itself(self, estimator, value, row):
        changed = self.RATIO.clone()
        changed[row] = value
        valid = torch.tensor([True] * 3)
        before, after = (kl_baseline(ratio, self.MASK, valid, estimator)[row] for ratio in (self.RATIO, changed))
        torch.testing.assert_close(after, before)
