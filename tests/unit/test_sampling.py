"""Asymmetric sampling: which groups stay, and the batch that comes of them."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agapo.algorithm.sampling import make_batch, select_groups, shuffle_rewards
from tests.builders import group, response

RIGHT, MIXED, WRONG, UNJUDGED = group(1, 1, name="r"), group(1, 0, name="m"), group(0, 0, name="w"), group(None, None)
ALL = [RIGHT, MIXED, WRONG, UNJUDGED, replace(MIXED)]


class TestSelect:
    @pytest.mark.parametrize(
        ("correct", "wrong", "kept"),
        [
            (True, False, [1, 2, 4]),  # AGAPO: asymmetric
            (False, False, [0, 1, 2, 4]),
            (True, True, [1, 4]),  # DAPO
            (False, True, [0, 1, 4]),
        ],
    )
    def test_keeps_in_order_and_drops_the_rest_in_order(self, correct, wrong, kept):
        found, dropped = select_groups(ALL, drop_all_correct=correct, drop_all_wrong=wrong)
        assert found == [ALL[place] for place in kept]
        assert dropped == [item for place, item in enumerate(ALL) if place not in kept]

    def test_verdicts_decide_whatever_the_rewards_say(self):
        """A wrong answer with partial credit, and a right one with a deduction."""
        partly = replace(MIXED, responses=(response(0.4, correct=False), response(0.2, correct=False)))
        deducted = replace(MIXED, responses=(response(0.9, correct=True), response(1.0, correct=True)))
        assert select_groups([partly, deducted], drop_all_correct=True) == ([partly], [deducted])

    def test_response_without_a_verdict_has_no_say(self):
        nearly = group(1, None, 1)
        assert select_groups([nearly], drop_all_correct=True) == ([], [nearly])
        assert group(0, None).all_wrong

    @given(st.lists(st.lists(st.sampled_from([None, 0, 1]), min_size=2, max_size=3), max_size=8), st.booleans())
    def test_every_group_goes_one_way(self, rewards, wrong):
        groups = [group(*row, name=str(index)) for index, row in enumerate(rewards)]
        kept, dropped = select_groups(groups, drop_all_correct=True, drop_all_wrong=wrong)
        assert Counter(item.prompt.id for item in kept + dropped) == Counter(str(i) for i in range(len(groups)))
        for item in kept:
            verdicts = {one.correct for one in item.responses} - {None}
            assert verdicts == {True, False} or (verdicts == {False} and not wrong)


class TestBatch:
    def test_advantages_by_hand(self):
        # A_loo: 1 −1 | 0 0 over 4 responses: std √½. Then −δ for the second group.
        batch = make_batch([MIXED, WRONG], [RIGHT], nominal_responses=8, all_wrong_penalty=0.1)
        assert batch.groups == (MIXED, WRONG)
        assert batch.advantages[0] == pytest.approx([2**0.5, -(2**0.5)])
        assert batch.advantages[1] == (-0.1, -0.1)
        assert batch.nominal_responses == 8

    def test_options_reach_the_advantages(self):
        options = {"group": "mean", "group_std": True, "batch": "none"}
        batch = make_batch([group(0.3, 0.1)], [], nominal_responses=2, **options)
        assert batch.advantages[0] == pytest.approx([1, -1])

    def test_groups_of_different_sizes(self):
        batch = make_batch([group(1, 0), group(1, 0, 0)], [], nominal_responses=5, batch="none")
        assert batch.advantages == ((1, -1), (1, -0.5, -0.5))

    def test_kl_over_the_kept(self):
        batch = make_batch([MIXED, group(0, None)], [RIGHT], nominal_responses=8)
        assert batch.kl_weights == ((1.0, 1.0), (1.0, 0.0))

    def test_kl_over_all_that_were_sampled(self):
        """Four responses kept and two dropped: over the denominator of 8, weights of 8/6 give the mean over 6."""
        batch = make_batch([MIXED, WRONG], [RIGHT], nominal_responses=8, kl_groups="all", all_wrong_penalty=0.1)
        assert batch.groups == (MIXED, WRONG, RIGHT)
        assert batch.advantages == (pytest.approx((2**0.5, -(2**0.5))), (-0.1, -0.1), (0, 0))
        assert sum(sum(row) for row in batch.kl_weights) / batch.nominal_responses == pytest.approx(1)
        assert batch.kl_weights == ((8 / 6,) * 2,) * 3

    def test_kl_over_all_when_refilled(self):
        batch = make_batch([MIXED] * 4, [RIGHT] * 4, nominal_responses=8, kl_groups="all")
        assert batch.kl_weights == ((0.5, 0.5),) * 8

    def test_nothing_kept(self):
        batch = make_batch([], [RIGHT], nominal_responses=4, kl_groups="all")
        assert (batch.groups, batch.advantages, batch.kl_weights) == ((RIGHT,), ((0, 0),), ((2, 2),))
        assert make_batch([], [RIGHT], nominal_responses=4).groups == ()

    def test_response_without_a_verdict_is_in_neither_term(self):
        batch = make_batch([group(1, None, 0)], [], nominal_responses=3, all_wrong_penalty=0.1)
        assert batch.advantages[0] == pytest.approx([1, 0, -1])
        assert batch.kl_weights == ((1, 0, 1),)


class TestShuffle:
    GROUPS = tuple(group(*row, name=str(i)) for i, row in enumerate([[1, 1, 1], [0, 0, None], [1, 0, 0.5]] * 3))

    def rewards(self, groups):
        return [(one.reward, one.correct) for item in groups for one in item.responses]

    def test_keeps_the_multiset(self):
        shuffled = shuffle_rewards(self.GROUPS, "seed")
        assert Counter(self.rewards(shuffled)) == Counter(self.rewards(self.GROUPS))

    def test_really_shuffles_across_groups(self):
        shuffled = shuffle_rewards(self.GROUPS, "seed")
        assert self.rewards(shuffled) != self.rewards(self.GROUPS)
        before, after = ([sorted(map(str, self.rewards([item]))) for item in g] for g in (self.GROUPS, shuffled))
        assert before != after

    def test_is_repeatable_and_follows_the_seed(self):
        assert shuffle_rewards(self.GROUPS, "a") == shuffle_rewards(self.GROUPS, "a")
        assert shuffle_rewards(self.GROUPS, "a") != shuffle_rewards(self.GROUPS, "b")

    def test_responses_stay_where_they_are(self):
        marked = [
            replace(item, responses=tuple(response(float(j), tokens=(i, j)) for j in range(3)))
            for i, item in enumerate(self.GROUPS)
        ]
        for before, after in zip(marked, shuffle_rewards(marked, "seed"), strict=True):
            assert after.prompt == before.prompt
            assert [one.segments for one in after.responses] == [one.segments for one in before.responses]
