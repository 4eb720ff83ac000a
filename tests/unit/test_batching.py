"""From groups to micro-batches: nothing is lost, and rows, padding and packing change no log-probability.

The yardstick is each response alone in a plain float64 forward of transformers.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st

from agapo.learner.rl.batching import MicroPlan, collate, examples_of, plan_ranks, with_reference
from agapo.model.logprobs import LogProbModel
from agapo.schema import Batch, Segment
from tests.builders import WINDOW, example, group, response, tiny_exaone, tiny_gpt2, tiny_qwen, token_logprobs

LAYOUTS = ("packed", "right", "left")
layouts = st.sampled_from(LAYOUTS)
lengths_of_examples = st.lists(st.integers(2, 60), min_size=1, max_size=40)


class TestPlan:
    @given(lengths_of_examples, st.integers(1, 4), st.integers(1, 300), layouts)
    def test_every_example_once(self, lengths, ranks, budget, layout):
        plans = plan_ranks(lengths, ranks=ranks, budget=budget, layout=layout)
        real = [index for rank in plans for plan in rank if not plan.dummy for row in plan.rows for index in row]
        assert sorted(real) == list(range(len(lengths)))

    @given(lengths_of_examples, st.integers(1, 4), st.integers(1, 300), layouts)
    def test_ranks_have_equally_many_micro_batches(self, lengths, ranks, budget, layout):
        plans = plan_ranks(lengths, ranks=ranks, budget=budget, layout=layout)
        assert len(plans) == ranks
        assert len({len(rank) for rank in plans}) == 1
        assert all(not rank[0].dummy for rank in plans[: len(lengths)])

    @given(lengths_of_examples, st.integers(1, 4), st.integers(1, 300), layouts)
    @case(lengths=[100, 40, 40], ranks=1, budget=60, layout="packed")
    def test_budget_holds_unless_one_example_alone_is_longer(self, lengths, ranks, budget, layout):
        for plan in (plan for rank in plan_ranks(lengths, ranks=ranks, budget=budget, layout=layout) for plan in rank):
            width = max(sum(lengths[index] for index in row) for row in plan.rows)
            alone = len(plan.rows) == len(plan.rows[0]) == 1
            assert alone or width * len(plan.rows) <= budget

    @given(lengths_of_examples, st.integers(1, 4), st.integers(1, 300))
    def test_padded_layouts_have_one_example_a_row(self, lengths, ranks, budget):
        for layout in ("right", "left"):
            plans = plan_ranks(lengths, ranks=ranks, budget=budget, layout=layout)
            assert all(len(row) == 1 for rank in plans for plan in rank for row in plan.rows)

    @given(lengths_of_examples, st.integers(1, 4), layouts)
    def test_ranks_are_balanced_to_within_the_longest(self, lengths, ranks, layout):
        plans = plan_ranks(lengths, ranks=ranks, budget=100, layout=layout)
        loads = [sum(lengths[i] for plan in rank if not plan.dummy for row in plan.rows for i in row) for rank in plans]
        assert max(loads) - min(loads) <= max(lengths)

    def test_packing_by_hand(self):
        # First fit, longest first, into rows of 10: 10 | 7 3 | 6 4 | 5; micro-batches of two rows.
        plans = plan_ranks([4, 10, 3, 7, 5, 6], ranks=1, budget=20, layout="packed")
        assert plans == [[MicroPlan(((1,), (3, 2))), MicroPlan(((5, 0), (4,)))]]

    @given(lengths_of_examples, st.integers(1, 4), st.integers(1, 300))
    def test_one_row_a_micro_batch(self, lengths, ranks, budget):
        """For flash attention: packed up to the budget, and no micro-batch with several rows."""
        plans = plan_ranks(lengths, ranks=ranks, budget=budget, layout="packed", one_row=True)
        real = [plan.rows for rank in plans for plan in rank if not plan.dummy]
        assert sorted(index for rows in real for row in rows for index in row) == list(range(len(lengths)))
        assert all(len(plan.rows) == 1 for rank in plans for plan in rank)
        widths = [[lengths[index] for index in row] for (row,) in real]
        assert all(sum(row) <= budget or len(row) == 1 for row in widths)

    def test_one_row_by_hand(self):
        # First fit, longest first, into rows of 20: 10 7 3 | 6 5 4.
        plans = plan_ranks([4, 10, 3, 7, 5, 6], ranks=1, budget=20, layout="packed", one_row=True)
        assert plans == [[MicroPlan(((1, 3, 2),)), MicroPlan(((5, 4, 0),))]]

    def test_dummy_is_the_shortest_example(self):
        plans = plan_ranks([50, 20, 15, 10], ranks=2, budget=20, layout="right")
        dummy = MicroPlan(((3,),), dummy=True)
        assert plans == [[MicroPlan(((0,),)), dummy, dummy], [MicroPlan(((i,),)) for i in (1, 2, 3)]]

    def test_more_ranks_than_examples(self):
        plans = plan_ranks([5, 3], ranks=4, budget=100, layout="packed")
        assert Counter(plan for rank in plans for plan in rank) == {
            MicroPlan(((0,),)): 1,
            MicroPlan(((1,),)): 1,
            MicroPlan(((1,),), dummy=True): 2,
        }


class TestExamples:
    def test_one_a_response_with_its_numbers(self):
        groups = (group(1, 0, name="a"), group(0, name="b"))
        batch = Batch(groups, advantages=((1.0, -1.0), (-0.1,)), kl_weights=((0.5, 0.5), (0.0,)), nominal_responses=4)
        found = examples_of(batch)
        assert [(item.advantage, item.kl_weight, item.group) for item in found] == [
            (1.0, 0.5, 0),
            (-1.0, 0.5, 0),
            (-0.1, 0.0, 1),
        ]
        assert all(item.prompt_ids.tolist() == [3, 4] and item.token_ids.tolist() == [5] for item in found)
        assert {item.length for item in found} == {3}

    def test_segments_are_joined(self):
        turns = (Segment((5, 6), (-0.1, -0.2)), Segment((7,), (0.0,), trained=False), Segment((8,), (-0.3,)))
        talk = replace(group(1), responses=(replace(response(1.0), segments=turns),))
        (found,) = examples_of(Batch((talk,), ((1.0,),), ((1.0,),), 1))
        assert found.token_ids.tolist() == [5, 6, 7, 8]
        assert found.sampler_logprobs.tolist() == pytest.approx([-0.1, -0.2, 0.0, -0.3], abs=1e-7)
        assert found.trained.tolist() == [True, True, False, True]
        assert [values.dtype for values in (found.prompt_ids, found.token_ids)] == [np.int32] * 2
        assert [values.dtype for values in (found.sampler_logprobs, found.trained)] == [np.float32, np.bool_]


class TestReference:
    EXAMPLES = (
        example([3], [5, 6], sampler_logprobs=(-1.0, -2.0), group=0),
        example([3], [5], sampler_logprobs=(-1.0,), group=0),
        example([3], [5, 6, 7], sampler_logprobs=(-1.0, -1.0, -1.0), trained=(True, False, True), group=0),
        example([3], [5], sampler_logprobs=(-9.0,), group=1),
    )
    REFERENCE = tuple(np.array(row, np.float32) for row in ([-2, -4], [-5], [-4, -9, -2], [-1]))

    def test_sequence_baselines_leave_one_out_inside_the_group(self):
        # R: 1+2, 4, 3+1 (its second token is not trained) | −8 alone.
        found = with_reference(self.EXAMPLES, self.REFERENCE, "sequence")
        assert [item.kl_baseline.tolist() for item in found] == [[4, 4], [3.5], [3.5] * 3, [0]]
        assert [item.reference_logprobs.tolist() for item in found] == [row.tolist() for row in self.REFERENCE]

    def test_reward_to_go_baselines(self):
        # Tails: 3 2 0 | 4 0 0 | 4 1 1.
        found = with_reference(self.EXAMPLES, self.REFERENCE, "reward_to_go")
        assert [item.kl_baseline.tolist() for item in found] == [[4, 0.5], [3.5], [3.5, 1, 0], [0]]

    def test_response_of_no_weight_is_nobodys_baseline(self):
        examples = (self.EXAMPLES[0], replace(self.EXAMPLES[1], kl_weight=0.0), *self.EXAMPLES[2:])
        found = with_reference(examples, self.REFERENCE, "sequence")
        assert found[0].kl_baseline.tolist() == [4, 4]
        assert found[2].kl_baseline.tolist() == [3, 3, 3]

    def test_peers_estimators_have_none(self):
        assert {item.kl_baseline for item in with_reference(self.EXAMPLES, self.REFERENCE, None)} == {None}


class TestCollate:
    EXAMPLES = (
        example([11, 12], [13, 14, 15], advantage=2.0, kl_weight=0.5, trained=(True, False, True)),
        example([21], [22], advantage=-1.0, sampler_logprobs=(-3.0,), kl_baseline=np.array([7.0], np.float32)),
        example([31, 32], [33], advantage=0.5, reference_logprobs=np.array([-4.0], np.float32)),
    )

    def test_packed(self):
        micro = collate(self.EXAMPLES, MicroPlan(((0,), (1, 2))), "packed")
        assert micro.attention_mask is None
        assert micro.input_ids[:, :5].tolist() == [[11, 12, 13, 14, 15], [21, 22, 31, 32, 33]]
        assert micro.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 0, 1, 2]]
        assert micro.predictors.tolist() == [1, 2, 3, 5, 8]
        assert micro.targets.tolist() == [13, 14, 15, 22, 33]
        assert micro.examples == (0, 1, 2)

    def test_padding_of_a_packed_row_is_a_sequence_of_its_own(self):
        micro = collate(self.EXAMPLES, MicroPlan(((0,), (1,))), "packed")
        assert micro.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 0, 1, 2]]

    def test_right(self):
        micro = collate(self.EXAMPLES, MicroPlan(((0,), (1,))), "right")
        assert micro.attention_mask.tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
        assert micro.position_ids[1, :2].tolist() == [0, 1]
        assert micro.predictors.tolist() == [1, 2, 3, 5]

    def test_left(self):
        micro = collate(self.EXAMPLES, MicroPlan(((0,), (1,))), "left")
        assert micro.attention_mask.tolist() == [[1] * 5, [0, 0, 0, 1, 1]]
        assert micro.input_ids[1, 3:].tolist() == [21, 22]
        assert micro.position_ids[1, 3:].tolist() == [0, 1]
        assert micro.predictors.tolist() == [1, 2, 3, 8]

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_numbers_lie_on_their_tokens(self, layout):
        tokens = collate(self.EXAMPLES, MicroPlan(((0,), (1,), (2,))), layout).tokens
        assert (tokens.response.tolist(), tokens.responses) == ([0, 0, 0, 1, 2], 3)
        assert tokens.mask.tolist() == [1, 0, 1, 1, 1]
        assert tokens.sampler_logprobs.tolist() == [-2, -2, -2, -3, -2]
        assert tokens.reference_logprobs.tolist() == [0, 0, 0, 0, -4]
        assert tokens.advantages.tolist() == [2, 2, 2, -1, 0.5]
        assert tokens.kl_weights.tolist() == [0.5, 0.5, 0.5, 1, 1]
        assert tokens.kl_baselines.tolist() == [0, 0, 0, 7, 0]

    def test_dummy_counts_no_token(self):
        micro = collate(self.EXAMPLES, MicroPlan(((0,),), dummy=True), "packed")
        assert micro.dummy
        assert micro.tokens.mask.tolist() == [0, 0, 0]


tokens = st.lists(st.integers(3, 200), min_size=1, max_size=12).map(tuple)


@cache
def models(kind):
    """(the model in fp32, the same in float64)."""
    model = {"exaone": tiny_exaone, "qwen": tiny_qwen, "gpt2": tiny_gpt2}[kind]()
    return model, deepcopy(model).double().eval()


def through_rows(model, examples, budget, layout, ranks=1):
    """Log-probabilities of each example, by way of plans and micro-batches."""
    wrapped, found = LogProbModel(model), {}
    lengths = [item.length for item in examples]
    for plan in (plan for rank in plan_ranks(lengths, ranks=ranks, budget=budget, layout=layout) for plan in rank):
        micro = collate(examples, plan, layout)
        inputs = (micro.input_ids, micro.position_ids, micro.attention_mask, micro.predictors, micro.targets)
        with torch.no_grad():
            logprobs, _ = wrapped(*inputs, 1.0)
        if not plan.dummy:
            pieces = logprobs.split([len(examples[index].token_ids) for index in micro.examples])
            found |= dict(zip(micro.examples, pieces, strict=True))
    return [found[index] for index in range(len(examples))]


def largest_deviation(kind, examples, budget, layout, training):
    model, exact = models(kind)
    model.train(training)
    found = through_rows(model, examples, budget, layout)
    with torch.no_grad():
        expected = [token_logprobs(exact, item.prompt_ids, item.token_ids) for item in examples]
    return max(float((a.double() - b).abs().max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["exaone", "qwen", "gpt2"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
class TestRowByRow:
    @settings(max_examples=15, deadline=None)
    @given(
        pairs=st.lists(st.tuples(tokens, tokens), min_size=1, max_size=6), budget=st.integers(1, 120), layout=layouts
    )
    def test_any_layout_and_budget(self, kind, training, pairs, budget, layout):
        examples = [example(*pair) for pair in pairs]
        assert largest_deviation(kind, examples, budget, layout, training) < 1e-4

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_sequences_far_longer_than_the_window(self, kind, training, layout):
        """Many of them, so that packed rows hold several; 3 to 8 windows long."""
        random = np.random.default_rng(0)
        sizes = [(random.integers(5, 20), random.integers(10, 20)) for _ in range(12)]
        examples = [example(*(random.integers(3, 200, size).tolist() for size in pair)) for pair in sizes]
        assert min(item.length for item in examples) > 3 * WINDOW - 1
        assert largest_deviation(kind, examples, 10**6, layout, training) < 1e-4
