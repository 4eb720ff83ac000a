"""Made-up prompts and examples, and what the learner makes of them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from agapo.learner.rl.batching import Example, Layout, MicroBatch, MicroPlan, collate, examples_of, plan_ranks
from agapo.rollouts.engine import PromptRequest
from agapo.schema import Batch, Group, Prompt


def requests(count: int, tokens: int, vocabulary: int, seed: int = 0) -> list[PromptRequest]:
    """Return prompts of random tokens, `tokens` at most and half of it at least."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(tokens // 2, tokens, size=count, endpoint=True)
    return [
        PromptRequest(Prompt(id=f"p{n}", messages=()), tuple(draw.integers(3, vocabulary, size=length).tolist()))
        for n, length in enumerate(lengths)
    ]


def examples_of_groups(groups: Sequence[Group]) -> list[Example]:
    """Return what was sampled as the learner sees it, with advantages of 1."""
    ones = tuple((1.0,) * len(group.responses) for group in groups)
    return examples_of(Batch(tuple(groups), advantages=ones, kl_weights=ones, nominal_responses=sum(map(len, ones))))


def made_up_examples(tokens: int, each: int, vocabulary: int, prompt_share: float = 0.25) -> list[Example]:
    """Return examples of `each` tokens, prompt and response, `tokens` together."""
    draw = np.random.default_rng(0)
    prompt = max(1, int(prompt_share * each))

    def one(number: int) -> Example:
        ids = draw.integers(3, vocabulary, size=each).astype(np.int32)
        response = ids[prompt:]
        return Example(
            prompt_ids=ids[:prompt],
            token_ids=response,
            sampler_logprobs=np.full(len(response), -3.0, np.float32),
            trained=np.ones(len(response), np.bool_),
            advantage=(-1.0) ** number,
            kl_weight=1.0,
            group=number,
        )

    return [one(number) for number in range(tokens // each)]


def micro_batches(examples: Sequence[Example], budget: int, layout: Layout, device: str) -> list[MicroBatch]:
    """Return the examples' micro-batches on one rank."""
    lengths = [item.length for item in examples]
    (plans,) = plan_ranks(lengths, ranks=1, budget=budget, layout=layout)
    return [collate(examples, plan, layout, device) for plan in plans]


def two_a_row(examples: Sequence[Example], device: str) -> list[MicroBatch]:
    """Return micro-batches of two packed rows with two examples each, which a wrong mask would let see each other.

    The planner packs so only where lengths differ enough; here each row has neighbours.
    """
    rows = [tuple(range(len(examples)))[start : start + 2] for start in range(0, len(examples), 2)]
    plans = [MicroPlan(rows=tuple(rows[start : start + 2])) for start in range(0, len(rows), 2)]
    return [collate(examples, plan, "packed", device) for plan in plans]


def one_a_row(examples: Sequence[Example], device: str) -> list[MicroBatch]:
    """Return the examples padded, one a row, some rows a micro-batch: the plain way that others are held against."""
    return micro_batches(examples, 4 * max(item.length for item in examples), "right", device)


def one_row(examples: Sequence[Example], device: str) -> MicroBatch:
    """Return all examples packed in a single row: the only packing that flash attention tells apart."""
    return collate(examples, MicroPlan(rows=(tuple(range(len(examples))),)), "packed", device)


@torch.no_grad()
def logprobs(model: torch.nn.Module, batches: Sequence[MicroBatch]) -> Tensor:
    """Return log π [all response tokens] (float32, on the CPU) in the order of the examples, as the learner does it."""
    found: dict[int, Tensor] = {}
    for micro in batches:
        values, _ = model(
            micro.input_ids, micro.position_ids, micro.attention_mask, micro.predictors, micro.targets, 1.0
        )
        counts = torch.bincount(micro.tokens.response, minlength=len(micro.examples)).tolist()
        found |= zip(micro.examples, values.float().cpu().split(counts), strict=True)
    return torch.cat([found[index] for index in sorted(found)])
