"""Micro-batches in which the responses of a group share their prompt: planned and collated, as pure functions.

A micro-batch is one row, and each of its plan's `rows` a block: examples with one prompt, which lies in the row once
before them. A group that is longer than the budget, or than a rank's part of the tokens, is several blocks, each with
the prompt.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from agapo.learner.rl.batching import Example, MicroBatch, MicroPlan, plan_ranks, token_batch
from agapo.model.shared_prompts import Block, fits_a_tile, shared_prompts


def plan_shared(examples: Sequence[Example], *, ranks: int, budget: int) -> list[list[MicroPlan]]:
    """Return each rank's micro-batches, as `plan_ranks` does: all examples once, balanced by tokens."""
    groups: dict[tuple[int, bytes], list[int]] = {}
    for index, item in enumerate(examples):
        groups.setdefault((item.group, item.prompt_ids.tobytes()), []).append(index)
    total = sum(_block(examples, group).tokens for group in groups.values())
    # No larger than a rank's part, or ranks would wait for the one with the largest group.
    most = min(budget, -(-total // ranks))
    blocks = list(chain.from_iterable(_split(examples, group, most) for group in groups.values()))
    lengths = [_block(examples, block).tokens for block in blocks]
    plans = plan_ranks(lengths, ranks=ranks, budget=budget, layout="packed", one_row=True)
    return [[_with_examples(plan, blocks) for plan in rank] for rank in plans]


def _block(examples: Sequence[Example], indices: Sequence[int]) -> Block:
    return Block(len(examples[indices[0]].prompt_ids), tuple(len(examples[index].token_ids) for index in indices))


def _split(examples: Sequence[Example], group: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """Cut a group into blocks of at most `most` tokens that each fit a tile, longest responses first."""
    blocks: list[tuple[int, ...]] = []
    for index in sorted(group, key=lambda index: (-len(examples[index].token_ids), index)):
        together = (*blocks[-1], index) if blocks else (index,)
        longer = _block(examples, together)
        if blocks and longer.tokens <= most and fits_a_tile([longer]):
            blocks[-1] = together
        else:
            blocks.append((index,))
    return blocks


def _with_examples(plan: MicroPlan, blocks: Sequence[tuple[int, ...]]) -> MicroPlan:
    (row,) = plan.rows
    return MicroPlan(tuple(blocks[number] for number in row), plan.dummy)


def collate_shared(examples: Sequence[Example], plan: MicroPlan, device: str = "cpu") -> MicroBatch:
    """Return the tensors of one micro-batch, whose plan has a block's examples in each of its rows."""
    order = tuple(index for block in plan.rows for index in block)
    chosen = [examples[index] for index in order]
    ids: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    predictors: list[np.ndarray] = []
    start = 0
    for block in plan.rows:
        prompt = examples[block[0]].prompt_ids
        ids.append(prompt)
        positions.append(np.arange(len(prompt)))
        start += len(prompt)
        last = start - 1
        for tokens in (examples[index].token_ids for index in block):
            ids.append(tokens)
            positions.append(len(prompt) + np.arange(len(tokens)))
            # The prompt's last token predicts the first of every response.
            predictors.append(np.array([last, *range(start, start + len(tokens) - 1)]))
            start += len(tokens)
    return MicroBatch(
        input_ids=_row(ids, device),
        position_ids=_row(positions, device),
        attention_mask=None,
        predictors=torch.from_numpy(np.concatenate(predictors)).to(device),
        targets=torch.from_numpy(np.concatenate([item.token_ids for item in chosen]).astype(np.int64)).to(device),
        tokens=token_batch(chosen, plan.dummy, device),
        examples=order,
        dummy=plan.dummy,
        shared_prompts=shared_prompts([_block(examples, block) for block in plan.rows], device),
    )


def _row(pieces: Sequence[np.ndarray], device: str) -> Tensor:
    return torch.from_numpy(np.concatenate(pieces).astype(np.int64))[None].to(device)
