"""Responses that share their prompt: every log-probability and gradient is that of each response alone.

The yardstick is each response alone in a plain forward of transformers, in float64.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from agapo.learner.rl.shared_rows import collate_shared, plan_shared
from agapo.model import shared_prompts as module
from agapo.model.loading import create_model
from agapo.model.logprobs import LogProbModel
from agapo.model.shared_prompts import ATTENTION, MOST_PADDING
from agapo.model.tokenizer import build_tokenizer
from tests.builders import example, tiny_exaone, tiny_gpt2, tiny_qwen, token_logprobs

TEMPERATURE = 0.7


def tiny_llama():
    """Three query heads a key head, embeddings tied."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=210, hidden_size=36, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
            num_key_value_heads=2, head_dim=8, initializer_range=0.2, tie_word_embeddings=True,
        )  # fmt: skip
        return LlamaForCausalLM(config)


def tiny_exaone_of_report():
    """Three layers of four slide, and the global ones have no RoPE."""
    return create_model(
        build_tokenizer(), seed=0, hidden_size=32, intermediate_size=64, layers=8, head_dim=8, sliding_window=5
    )


MODELS = {
    "exaone": tiny_exaone_of_report,
    "exaone, every other layer global": tiny_exaone,
    "qwen": tiny_qwen,
    "qwen with windows": lambda: tiny_qwen(
        use_sliding_window=True, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "llama": tiny_llama,
    "gpt2": tiny_gpt2,
}


def make_groups(sizes, seed=0):
    """Examples of groups with random tokens; sizes: (prompt, responses) in tokens."""
    draw = np.random.default_rng(seed)
    return [
        example(prompt, draw.integers(3, 200, length).tolist(), group=number)
        for number, (prompt_length, lengths) in enumerate(sizes)
        for prompt in [draw.integers(3, 200, prompt_length).tolist()]
        for length in lengths
    ]


# Prompts and responses shorter and longer than the windows; one response, many, of very different lengths.
SIZES = [(9, (12, 3, 7, 1)), (1, (5, 6)), (3, (20,)), (14, (2, 2, 2, 30)), (8, (9, 9, 9, 9, 9, 9, 9, 9))]


def forward(model, examples, budget, ranks=1):
    """{example: its log-probabilities}, with gradient."""
    wrapped, found = LogProbModel(model), {}
    for plan in (plan for rank in plan_shared(examples, ranks=ranks, budget=budget) for plan in rank):
        micro = collate_shared(examples, plan)
        inputs = (micro.input_ids, micro.position_ids, None, micro.predictors, micro.targets)
        logprobs, _ = wrapped(*inputs, TEMPERATURE, entropy=False, shared_prompts=micro.shared_prompts)
        if not plan.dummy:
            pieces = logprobs.split([len(examples[index].token_ids) for index in micro.examples])
            found |= dict(zip(micro.examples, pieces, strict=True))
    return found


def gradients(model, logprobs):
    """Of a sum with a weight of its own for each token, as one vector."""
    weights = torch.linspace(-1, 1, len(logprobs), dtype=logprobs.dtype)
    return torch.cat([item.flatten() for item in torch.autograd.grad(logprobs @ weights, list(model.parameters()))])


def deviations(kind, dtype, budget=10**6):
    """(largest difference of a log-probability in nats, relative difference of the gradient)."""
    model, exact = MODELS[kind]().to(dtype), MODELS[kind]().double()
    model.set_attn_implementation(ATTENTION)
    examples = make_groups(SIZES)
    expected = torch.cat([token_logprobs(exact, item.prompt_ids, item.token_ids, TEMPERATURE) for item in examples])
    rows = forward(model, examples, budget)
    found = torch.cat([rows[index] for index in range(len(examples))])
    wanted = gradients(exact, expected)
    off = (found - expected).detach().abs().max()
    return float(off), float((gradients(model, found) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("scores", [0, 2**26], ids=["SDPA", "products"])
class TestEachResponseAlone:
    @pytest.fixture(autouse=True)
    def way_of_attention(self, scores, monkeypatch):
        monkeypatch.setattr(module, "MOST_SCORES", scores)

    @pytest.mark.parametrize("budget", [10**6, 60, 1])
    def test_a_backbone_in_float64_leaves_what_the_head_rounds(self, kind, budget):
        logprobs, gradient = deviations(kind, torch.float64, budget)
        assert logprobs < 2e-6
        assert gradient < 1e-6

    def test_float32(self, kind):
        logprobs, gradient = deviations(kind, torch.float32)
        assert logprobs < 1e-5
        assert gradient < 4e-6


lengths = st.lists(st.tuples(st.integers(1, 20), st.lists(st.integers(1, 40), min_size=1, max_size=9)), min_size=1)


class TestPlan:
    @given(lengths, st.integers(1, 4), st.integers(1, 300))
    def test_every_example_once_and_blocks_share_a_prompt(self, sizes, ranks, budget):
        examples = make_groups(sizes)
        plans = plan_shared(examples, ranks=ranks, budget=budget)
        assert len({len(rank) for rank in plans}) == 1
        blocks = [block for rank in plans for plan in rank if not plan.dummy for block in plan.rows]
        assert sorted(index for block in blocks for index in block) == list(range(len(examples)))
        assert all(len({examples[index].group for index in block}) == 1 for block in blocks)

    @given(lengths, st.integers(1, 4), st.integers(1, 300))
    def test_the_budget_holds_unless_one_response_alone_is_longer(self, sizes, ranks, budget):
        examples = make_groups(sizes)
        for plan in (plan for rank in plan_shared(examples, ranks=ranks, budget=budget) for plan in rank):
            micro = collate_shared(examples, plan)
            assert micro.input_ids.shape[1] <= budget or len(micro.examples) == 1
            assert len(micro.shared_prompts.tokens) <= MOST_PADDING * micro.input_ids.shape[1]

    def test_a_group_lies_in_the_row_with_its_prompt_once(self):
        examples = [example([11, 12], tokens) for tokens in ([13], [14, 15, 16])]
        (((plan,),)) = plan_shared(examples, ranks=1, budget=100)
        micro = collate_shared(examples, plan)
        assert micro.input_ids.tolist() == [[11, 12, 14, 15, 16, 13]]
        assert micro.position_ids.tolist() == [[0, 1, 2, 3, 4, 2]]
        assert (micro.predictors.tolist(), micro.targets.tolist()) == ([1, 2, 3, 1], [14, 15, 16, 13])
        assert micro.shared_prompts.tokens.tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
        assert micro.shared_prompts.slots.tolist() == [0, 1, 2, 3, 4, 5]

    def test_a_group_is_cut_at_the_budget_and_at_a_ranks_part(self):
        examples = make_groups([(4, (6, 6, 6, 6))])
        assert [plan.rows for plan in plan_shared(examples, ranks=1, budget=16)[0]] == [((0, 1),), ((2, 3),)]
        assert [[plan.rows for plan in rank] for rank in plan_shared(examples, ranks=2, budget=100)] == [
            [((0,), (2,))],
            [((1,), (3,))],
        ]

    def test_one_long_response_among_short_ones_gets_a_block_of_its_own(self):
        (plans,) = plan_shared(make_groups([(2, (90, 3, 3, 3, 3, 3))]), ranks=1, budget=1000)
        assert sorted(len(block) for block in plans[0].rows) == [2, 4]
