"""From a step's groups to the micro-batches of each rank, as pure functions.

The loss and its gradient do not depend on anything decided here (rows, padding, micro-batches, ranks): tokens
leave the model flat, and denominators are constants of the update.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from agapo.algorithm.kl import SequenceEstimator, kl_baseline
from agapo.algorithm.objective import TokenBatch
from agapo.model.shared_prompts import SharedPrompts
from agapo.schema import Batch, Response

Layout = Literal["packed", "right", "left"]


@dataclass(frozen=True)
class Example:
    """One response as the learner sees it: P prompt tokens, then T response tokens."""

    prompt_ids: np.ndarray
    """[P] int32."""
    token_ids: np.ndarray
    """[T] int32."""
    sampler_logprobs: np.ndarray
    """[T] float32."""
    trained: np.ndarray
    """[T] bool, False for context such as a tool's result."""
    advantage: float
    kl_weight: float
    group: int
    """Which group of the batch the response belongs to."""
    reference_logprobs: np.ndarray | None = None
    """[T] float32; None where there is no KL term."""
    kl_baseline: np.ndarray | None = None
    """[T] float32; None where the estimator takes none."""
    fresh: np.ndarray | None = None
    """[T] bool, which tokens the weights at hand sampled; None: all of them."""

    @property
    def length(self) -> int:
        """P + T."""
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once: R rows of L tokens, predicting T response tokens."""

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    predictors: Tensor
    """[T] index in the flattened rows of the position that predicts each response token."""
    targets: Tensor
    tokens: TokenBatch
    examples: tuple[int, ...]
    """Indices of the examples, in the order of their tokens."""
    dummy: bool
    """True when it only keeps this rank in step with the others: its tokens count nowhere."""
    shared_prompts: SharedPrompts | None = None
    """How the one row is laid out, where responses share their prompts (`shared_rows.py`)."""


@dataclass(frozen=True)
class MicroPlan:
    """Which examples share a micro-batch, row by row."""

    rows: tuple[tuple[int, ...], ...]
    dummy: bool = False


def examples_of(batch: Batch, version: int | None = None) -> list[Example]:
    """Return the batch's responses, group by group.

    `version`: of the weights at hand, where some responses may be of older ones.
    """
    return [
        _example(prompt_ids, response, advantage, weight, index, version)
        for index, item in enumerate(batch.groups)
        # One array for the group: records that share it are pickled with one copy.
        for prompt_ids in [np.array(item.prompt_ids, np.int32)]
        for response, advantage, weight in zip(
            item.responses, batch.advantages[index], batch.kl_weights[index], strict=True
        )
    ]


def _example(
    prompt_ids: np.ndarray, response: Response, advantage: float, weight: float, group: int, version: int | None
) -> Example:
    return Example(
        prompt_ids=prompt_ids,
        token_ids=response.token_ids,
        sampler_logprobs=response.logprobs,
        trained=response.trained,
        advantage=advantage,
        kl_weight=weight,
        group=group,
        fresh=None if version is None else response.versions == version,
    )


def with_reference(
    examples: Sequence[Example], reference: Sequence[np.ndarray], estimator: SequenceEstimator | None
) -> list[Example]:
    """Return the examples with reference log-probabilities [T] and, given an estimator, their KL baselines."""
    known = [replace(item, reference_logprobs=values) for item, values in zip(examples, reference, strict=True)]
    if estimator is None:
        return known
    result: list[Example] = []
    for group in sorted({item.group for item in known}):
        result += _with_baselines([item for item in known if item.group == group], estimator)
    return result


def _with_baselines(group: list[Example], estimator: SequenceEstimator) -> list[Example]:
    longest = max(len(item.token_ids) for item in group)
    ratio = torch.zeros(len(group), longest, dtype=torch.float64)
    mask = torch.zeros(len(group), longest, dtype=torch.bool)
    for row, item in enumerate(group):
        count = len(item.token_ids)
        assert item.reference_logprobs is not None
        ratio[row, :count] = torch.tensor(item.sampler_logprobs.astype(np.float64) - item.reference_logprobs)
        mask[row, :count] = torch.tensor(item.trained)
    valid = torch.tensor([item.kl_weight > 0 for item in group])
    baseline = kl_baseline(ratio, mask, valid, estimator).float().numpy()
    return [replace(item, kl_baseline=baseline[row, : len(item.token_ids)]) for row, item in enumerate(group)]


def needs_one_row(attention: str) -> bool:
    """Whether packed sequences must lie in one row: in several, transformers gives flash attention no boundaries."""
    return attention.startswith("flash_attention")


def plan_ranks(
    lengths: Sequence[int], *, ranks: int, budget: int, layout: Layout, one_row: bool = False
) -> list[list[MicroPlan]]:
    """Return each rank's micro-batches: all examples once, balanced by tokens, the same number on each rank.

    `budget` is the tokens a micro-batch may have (an example longer than it gets one alone); with `one_row`, packed
    micro-batches are one row each. Ranks with fewer micro-batches get dummies: under ZeRO-2 and 3 ranks that differ
    in their number crash or hang.
    """
    plans = [_plan_rank(lengths, share, budget, layout, one_row) for share in _share(lengths, ranks)]
    most = max(len(plan) for plan in plans)
    shortest = min(range(len(lengths)), key=lengths.__getitem__)
    filler = MicroPlan(rows=((shortest,),), dummy=True)
    return [plan + [filler] * (most - len(plan)) for plan in plans]


def _share(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Deal the examples out, longest first, each to the rank with the fewest tokens so far."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for index in _longest_first(range(len(lengths)), lengths):
        rank = load.index(min(load))
        shares[rank].append(index)
        load[rank] += lengths[index]
    return shares


def _longest_first(indices: Sequence[int], lengths: Sequence[int]) -> list[int]:
    return sorted(indices, key=lambda index: (-lengths[index], index))


def _plan_rank(lengths: Sequence[int], share: list[int], budget: int, layout: Layout, one_row: bool) -> list[MicroPlan]:
    if layout == "packed" and one_row:
        return [MicroPlan((row,)) for row in pack_rows(share, lengths, budget, whole_budget=True)]
    rows = pack_rows(share, lengths, budget) if layout == "packed" else [(index,) for index in share]
    plans: list[MicroPlan] = []
    pending: list[tuple[int, ...]] = []
    width = 0
    for row in rows:
        row_width = sum(lengths[index] for index in row)
        if pending and max(width, row_width) * (len(pending) + 1) > budget:
            plans.append(MicroPlan(tuple(pending)))
            pending, width = [], 0
        pending.append(row)
        width = max(width, row_width)
    return [*plans, MicroPlan(tuple(pending))] if pending else plans


def pack_rows(
    share: Sequence[int], lengths: Sequence[int], budget: int, *, whole_budget: bool = False
) -> list[tuple[int, ...]]:
    """Put examples into rows as long as the longest of them (`budget` at most), first fit, longest first.

    A longer row would waste less at its end, but attention over a row costs its length squared. Where it does not
    (flash attention), rows take `whole_budget`.
    """
    ordered = _longest_first(share, lengths)
    capacity = min(lengths[ordered[0]], budget) if ordered and not whole_budget else budget
    rows: list[list[int]] = []
    room: list[int] = []
    for index in ordered:
        place = next((row for row, left in enumerate(room) if left >= lengths[index]), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room.append(capacity)
        rows[place].append(index)
        room[place] -= lengths[index]
    return [tuple(row) for row in rows]


def collate(examples: Sequence[Example], plan: MicroPlan, layout: Layout, device: str = "cpu") -> MicroBatch:
    """Return the tensors of one micro-batch."""
    order = tuple(index for row in plan.rows for index in row)
    chosen = [examples[index] for index in order]
    width = max(sum(examples[index].length for index in row) for row in plan.rows)
    starts = _starts(examples, plan, layout, width)
    ids, positions, mask = _rows(chosen, starts, len(plan.rows), width)
    predictors = np.concatenate([_predictors(item, start) for item, start in zip(chosen, starts, strict=True)])
    targets = np.concatenate([item.token_ids for item in chosen]).astype(np.int64)
    return MicroBatch(
        input_ids=ids.to(device),
        position_ids=positions.to(device),
        attention_mask=None if layout == "packed" else mask.to(device),
        predictors=torch.from_numpy(predictors).to(device),
        targets=torch.from_numpy(targets).to(device),
        tokens=token_batch(chosen, plan.dummy, device),
        examples=order,
        dummy=plan.dummy,
    )


def _predictors(item: Example, start: int) -> np.ndarray:
    first = start + len(item.prompt_ids) - 1
    return np.arange(first, first + len(item.token_ids))


def _starts(examples: Sequence[Example], plan: MicroPlan, layout: Layout, width: int) -> list[int]:
    """Where each example begins in the flattened rows."""
    starts: list[int] = []
    for number, row in enumerate(plan.rows):
        content = sum(examples[index].length for index in row)
        position = number * width + (width - content if layout == "left" else 0)
        for index in row:
            starts.append(position)
            position += examples[index].length
    return starts


def _rows(chosen: Sequence[Example], starts: Sequence[int], rows: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, position ids and mask [rows, width]. Padding counts positions of its own from 0: in a packed row
    it is one more sequence, which nothing else sees.
    """
    ids = torch.zeros(rows * width, dtype=torch.long)
    positions = torch.zeros(rows * width, dtype=torch.long)
    mask = torch.zeros(rows * width, dtype=torch.long)
    for item, start in zip(chosen, starts, strict=True):
        place = slice(start, start + item.length)
        ids[place] = torch.from_numpy(np.concatenate([item.prompt_ids, item.token_ids]))
        positions[place] = torch.arange(item.length)
        mask[place] = 1
    return ids.view(rows, width), _count_padding(positions, mask, rows, width), mask.view(rows, width)


def _count_padding(positions: Tensor, mask: Tensor, rows: int, width: int) -> Tensor:
    positions, mask = positions.view(rows, width), mask.view(rows, width)
    padding = (1 - mask).cumsum(dim=1) - 1
    return torch.where(mask == 1, positions, padding.clamp_min(0))


def token_batch(chosen: Sequence[Example], dummy: bool, device: str) -> TokenBatch:
    """Return the examples' numbers, token by token; of a dummy no token counts."""
    counts = torch.tensor([len(item.token_ids) for item in chosen])

    def spread(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(counts).to(device)

    def join(values: Sequence[np.ndarray | None]) -> Tensor:
        zeros = [np.zeros(int(count), np.float32) for count in counts]
        filled = [zero if value is None else value for value, zero in zip(values, zeros, strict=True)]
        return torch.from_numpy(np.concatenate(filled)).float().to(device)

    return TokenBatch(
        response=torch.arange(len(chosen)).repeat_interleave(counts).to(device),
        responses=len(chosen),
        mask=join([item.trained & (not dummy) for item in chosen]),
        sampler_logprobs=join([item.sampler_logprobs for item in chosen]),
        reference_logprobs=join([item.reference_logprobs for item in chosen]),
        advantages=spread([item.advantage for item in chosen]),
        kl_weights=spread([item.kl_weight for item in chosen]),
        kl_baselines=join([item.kl_baseline for item in chosen]),
        fresh=join([np.ones(len(item.token_ids)) if item.fresh is None else item.fresh for item in chosen]),
    )
