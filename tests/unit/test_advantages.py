"""Advantages against closed forms worked out by hand and against numpy, and the all-wrong signal."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agapo.algorithm.advantages import advantages

PLAIN = {"group": "loo", "batch": "none"}


def compute(rewards, valid=None, all_wrong=None, **options):
    """Rewards [N][G], None where there is no verdict; a group is all wrong when its rewards are all 0."""
    known = [[0.0 if reward is None else reward for reward in row] for row in rewards]
    present = [[reward is not None for reward in row] for row in rewards] if valid is None else valid
    wrong = [not any(row) for row in known] if all_wrong is None else all_wrong
    table = torch.tensor(known, dtype=torch.float64)
    return advantages(table, torch.tensor(present), torch.tensor(wrong), **options).numpy()


class TestInsideAGroup:
    def test_leave_one_out(self):
        result = compute([[1, 0, 0, 0], [1, 1, 1, 0]], **PLAIN)
        assert result == pytest.approx(np.array([[1, -1 / 3, -1 / 3, -1 / 3], [1 / 3, 1 / 3, 1 / 3, -1]]))

    def test_leave_one_out_of_uneven_rewards(self):
        # 0.9 − (0.2+0.4)/2, 0.2 − (0.9+0.4)/2, 0.4 − (0.9+0.2)/2
        assert compute([[0.9, 0.2, 0.4]], **PLAIN)[0] == pytest.approx([0.6, -0.45, -0.15])

    def test_mean(self):
        result = compute([[1, 0, 0, 0], [1, 1, 1, 0]], group="mean", batch="none")
        assert result == pytest.approx(np.array([[0.75, -0.25, -0.25, -0.25], [0.25, 0.25, 0.25, -0.75]]))

    def test_no_baseline(self):
        assert compute([[1, 0], [0.5, 0]], group="none", batch="none").tolist() == [[1, 0], [0.5, 0]]

    def test_mean_over_std_is_population_std(self):
        # p = 1/4: std = √(p(1−p)) = √3/4, so (1−p)/std = √3 and −p/std = −1/√3.
        result = compute([[1, 0, 0, 0]], group="mean", group_std=True, batch="none")[0]
        assert result == pytest.approx([3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)])

    def test_std_is_each_groups_own(self):
        result = compute([[1, 0], [0.2, 0]], group="mean", group_std=True, batch="none")
        assert result == pytest.approx(np.array([[1, -1], [1, -1]]))

    def test_std_of_a_uniform_group_is_the_floor(self):
        assert compute([[1, 1, 1]], group="mean", group_std=True, batch="none").tolist() == [[0, 0, 0]]

    def test_std_counts_valid_responses_only(self):
        result = compute([[1, None, 0]], group="mean", group_std=True, batch="none")
        assert result[0] == pytest.approx([1, 0, -1])


class TestOverTheBatch:
    def test_population_std(self):
        # A_loo = ±1 and ±1/3·(1 against 3): sum of squares 2 + 4/3, over 6 responses.
        rewards = [[1, 0, None, None], [1, 0, 0, 0]]
        scale = ((2 + 1 + 3 / 9) / 6) ** 0.5
        expected = np.array([[1, -1, 0, 0], [1, -1 / 3, -1 / 3, -1 / 3]]) / scale
        assert compute(rewards, group="loo") == pytest.approx(expected)

    def test_bare_rewards_are_centred_over_responses_not_groups(self):
        # Group one has three responses and group two one: the mean is (1+1+1+0)/4, not (1+0)/2.
        result = compute([[1, 1, 1], [0, None, None]], group="none", all_wrong=[False, False])
        spread = (0.75 * 0.25) ** 0.5
        assert result == pytest.approx(np.array([[0.25, 0.25, 0.25], [-0.75, 0, 0]]) / spread)

    def test_result_has_mean_0_and_std_1(self):
        rewards = np.random.default_rng(0).random((6, 5))
        result = compute(rewards.tolist())
        assert result.mean() == pytest.approx(0, abs=1e-12)
        assert result.std() == pytest.approx(1)

    def test_floor_bounds_the_scale(self):
        # A_loo = ±1e-6: divided by the floor 1e-4, not blown up to ±1.
        assert compute([[1e-6, 0]], all_wrong=[False])[0] == pytest.approx([0.01, -0.01], rel=1e-4)


class TestAllWrong:
    def test_without_penalty_is_exactly_zero_beside_mixed_groups(self):
        result = compute([[1, 0], [0, 0]], all_wrong_penalty=0.0)
        assert result[0] == pytest.approx([2**0.5, -(2**0.5)])
        assert result[1].tolist() == [0, 0]

    @pytest.mark.parametrize("baseline", ["loo", "mean"])
    def test_batch_of_nothing_else_is_exactly_zero(self, baseline):
        assert not compute([[0] * 8] * 16, group=baseline, all_wrong_penalty=0.0).any()

    @pytest.mark.parametrize("partial", [0.1, 0.3, 1 / 3])
    def test_equal_partial_credit_does_not_become_rounding_noise(self, partial):
        """0.1·8 − 0.1 is not 0.7 in floating point: divided by its own std, the noise would be ±1."""
        result = compute([[partial] * 8] * 3, all_wrong=[True] * 3)
        assert abs(result).max() < 1e-9

    def test_batch_of_nothing_else_gets_the_whole_penalty(self):
        assert compute([[0] * 4] * 3, all_wrong_penalty=0.25).tolist() == [[-0.25] * 4] * 3

    @given(st.floats(0.0, 2.0), st.integers(0, 20))
    def test_penalty_is_relative_to_the_normalised_value_however_many_there_are(self, penalty, others):
        rewards = [[1, 0, 0, 0], *[[0, 0, 0, 0]] * (others + 1)]
        result = compute(rewards, all_wrong_penalty=penalty)
        assert result[1:] == pytest.approx(-penalty, abs=1e-12)

    @given(st.integers(0, 60), st.floats(0.0, 1.0))
    def test_wrong_answers_of_mixed_groups_stay_negative(self, others, penalty):
        rewards = [[1, 1, 1, 0], *[[0, 0, 0, 0]] * others]
        mixed = compute(rewards, all_wrong_penalty=penalty)[0]
        assert mixed[3] < -1
        assert (mixed[:3] > 0).all()

    def test_the_trap_penalty_before_normalising_turns_wrong_answers_positive(self):
        """Documents why δ is added after: taken off before, the batch is recentred by it."""
        centred = np.array([[0.2, -0.2], *[[-0.5, -0.5]] * 20])
        trapped = (centred - centred.mean()) / centred.std()
        assert trapped[0, 1] > 0.5
        assert compute([[0.2, 0.0], *[[0.0, 0.0]] * 20], all_wrong_penalty=0.5)[0, 1] < -1

    def test_penalty_needs_the_groups_verdict_not_its_reward(self):
        """A wrong group may have partial credit; a group of reward 0 may be right."""
        result = compute([[0.5, 0.5], [0, 0]], all_wrong=[True, False], all_wrong_penalty=0.1)
        assert result == pytest.approx(np.array([[-0.1, -0.1], [0, 0]]), abs=1e-9)


class TestNoVerdict:
    def test_takes_no_part_in_the_baseline(self):
        result = compute([[1, 0, None], [1, 0, 0]], **PLAIN)
        assert result == pytest.approx(np.array([[1, -1, 0], [1, -0.5, -0.5]]))

    def test_value_behind_it_does_not_matter(self):
        valid, wrong = [[True, True, False]], [False]
        first = compute([[1, 0, 0]], valid=valid, all_wrong=wrong)
        second = compute([[1, 0, float("nan")]], valid=valid, all_wrong=wrong)
        assert first.tolist() == second.tolist() == [[1, -1, 0]]

    def test_gets_no_penalty(self):
        assert compute([[0, None, 0]], all_wrong_penalty=0.1).tolist() == [[-0.1, 0, -0.1]]

    @pytest.mark.parametrize("baseline", ["loo", "mean"])
    def test_response_alone_in_its_group_has_no_baseline_and_gets_zero(self, baseline):
        assert compute([[1, None], [1, 0]], group=baseline, batch="none")[0].tolist() == [0, 0]

    def test_batch_without_any_verdict(self):
        assert not compute([[None, None]], all_wrong=[False]).any()


reward = st.one_of(st.none(), st.sampled_from([0.0, 0.0, 0.25, 1.0]))


@st.composite
def batches(draw, cell=reward):
    size = draw(st.integers(2, 6))
    return draw(st.lists(st.lists(cell, min_size=size, max_size=size), min_size=1, max_size=6))


def dense(rewards, penalty):
    """The paper's formula response by response, with numpy."""
    table = np.array(rewards, dtype=float)
    loo = np.full_like(table, np.nan)
    for place in zip(*np.nonzero(~np.isnan(table)), strict=True):
        others = np.delete(table[place[0]], place[1])
        others = others[~np.isnan(others)]
        loo[place] = table[place] - others.mean() if len(others) else 0.0
    if np.isnan(loo).all():
        return np.zeros_like(loo)
    result = (loo - np.nanmean(loo)) / max(np.nanstd(loo), 1e-4)
    wrong = np.nansum(table, axis=1, keepdims=True) == 0
    return np.nan_to_num(result - penalty * wrong)


@given(batches(), st.floats(0, 1))
def test_equals_the_formula(rewards, penalty):
    assert compute(rewards, all_wrong_penalty=penalty) == pytest.approx(dense(rewards, penalty), abs=1e-8)


@given(batches(st.floats(-2, 2)), st.sampled_from(["loo", "mean"]))
def test_centred_advantages_sum_to_zero_in_complete_groups(rewards, baseline):
    assert compute(rewards, group=baseline, batch="none").sum(axis=1) == pytest.approx(0, abs=1e-12)


@given(batches(), st.randoms())
def test_order_of_groups_and_of_responses_does_not_matter(rewards, random):
    groups = random.sample(range(len(rewards)), len(rewards))
    places = [random.sample(range(len(row)), len(row)) for row in rewards]
    shuffled = [[rewards[row][column] for column in places[row]] for row in groups]
    direct = compute(rewards, all_wrong_penalty=0.1)
    expected = np.stack([direct[row][places[row]] for row in groups])
    assert compute(shuffled, all_wrong_penalty=0.1) == pytest.approx(expected, abs=1e-9)
