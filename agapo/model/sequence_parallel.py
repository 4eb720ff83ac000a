"""One long sequence on several ranks (DeepSpeed Ulysses, arXiv 2309.14509), for responses that no rank has room for.

    each of n ranks has 1/n of a row's columns, and all layers of the model for them
    attention:  [heads, L/n] ──all-to-all──► [heads/n, L] ──attention──► ──all-to-all──► [heads, L/n]

Outside attention a token is on its own. Inside, a rank sees whole rows, of some of the heads. What a rank computes of
the log-probabilities is then put together on all n of them, so that the loss, which may need whole responses, is the
same on each; a gradient is the rank's own part, and the sum over ranks is that of the whole.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from agapo.model.shared_prompts import sees

ATTENTION = "agapo_sequence_parallel"
"""The name under which transformers finds this attention; of whole rows it is `sdpa`."""


@dataclass(frozen=True)
class SequenceGroup:
    """The ranks that share rows."""

    ranks: int
    """n."""
    rank: int
    """This one's place among them."""
    group: Any = None
    """Of `torch.distributed`."""

    def columns(self, width: int) -> slice:
        """Return which of a row's columns are this rank's; rows are `padded` to n times as many."""
        own = -(-width // self.ranks)
        return slice(self.rank * own, (self.rank + 1) * own)

    def padded(self, rows: Tensor) -> Tensor:
        """Return rows [R, L] with as many zeros behind them as make L a multiple of n.

        Of position ids they are sequences of a token each, which nothing else sees.
        """
        return nn.functional.pad(rows, (0, -rows.shape[1] % self.ranks))


def make_sequence_group(rank: int, ranks: int, together: int) -> SequenceGroup | None:
    """Return the group of a rank where `together` of all ranks share rows; None for one alone. Collective."""
    if together == 1:
        return None
    groups = [dist.new_group(range(first, first + together)) for first in range(0, ranks, together)]
    return SequenceGroup(together, rank % together, groups[rank // together])


@dataclass(frozen=True)
class DividedRows:
    """What attention has to know of rows of which this rank has a part."""

    group: SequenceGroup
    positions: Tensor
    """[R, L] of the whole rows: each sequence of a row begins at 0."""
    single: bool = False
    """Whether a row is one sequence."""
    _masks: dict[int | None, Tensor] = field(default_factory=dict, compare=False)
    """By window: made in the first layer that wants one."""

    def sees(self, window: int | None) -> Tensor | None:
        """Return which keys each query sees [R, 1, L, L]: those of its own sequence up to itself, the last `window`.

        None where that is all up to itself, and nobody has to hold a square of a long row.
        """
        if self.single and (window is None or window >= self.positions.shape[1]):
            return None
        if window not in self._masks:
            self._masks[window] = self._mask(window)
        return self._masks[window]

    def _mask(self, window: int | None) -> Tensor:
        sequence = (self.positions == 0).cumsum(dim=1)
        mask = sequence[:, :, None] == sequence[:, None, :]
        mask &= sees(self.positions.shape[1], window, self.positions.device)
        return mask[:, None]


class _Exchange(torch.autograd.Function):
    """Swap what is divided: [R, H, L/n, d] to [R, H/n, L, d], or back. The gradient goes the other way."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, group: SequenceGroup, to_heads: bool) -> Tensor:
        ctx.group, ctx.to_heads = group, to_heads
        return _exchanged(states, group, to_heads=to_heads)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _exchanged(gradients[0], ctx.group, to_heads=not ctx.to_heads), None, None


def _exchanged(states: Tensor, group: SequenceGroup, *, to_heads: bool) -> Tensor:
    divided, joined = (1, 2) if to_heads else (2, 1)
    sent = torch.stack(states.chunk(group.ranks, dim=divided)).contiguous()
    found = torch.empty_like(sent)
    dist.all_to_all_single(found, sent, group=group.group)
    return torch.cat(list(found), dim=joined)


class _PutTogether(torch.autograd.Function):
    """Values [t] of this rank and their places among T, to all ranks' values [T]. The gradient is that at the places.

    Each rank computes the same loss from all of them, so nothing is to be summed on the way back.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, total: int, group: SequenceGroup) -> Tensor:
        ctx.save_for_backward(places)
        whole = values.new_zeros(total).index_copy_(0, places, values)
        dist.all_reduce(whole, group=group.group)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (places,) = ctx.saved_tensors
        return gradients[0][places], None, None, None


def put_together(values: Tensor, places: Tensor, total: int, group: SequenceGroup) -> Tensor:
    """Return [total] values of which this rank has those at its `places` [t]."""
    found: Any = _PutTogether.apply(values, places, total, group)
    return found


def own_part(predictors: Tensor, width: int, group: SequenceGroup) -> tuple[Tensor, Tensor]:
    """Return which of T predictors this rank has [t], and where they lie in its flattened part of the rows [t].

    `predictors` [T] index flattened rows of `width` columns.
    """
    columns = group.columns(width)
    row, column = predictors // width, predictors % width
    places = ((column >= columns.start) & (column < columns.stop)).nonzero().squeeze(1)
    own = columns.stop - columns.start
    return places, row[places] * own + column[places] - columns.start


def _exchange(states: Tensor, group: SequenceGroup, *, to_heads: bool) -> Tensor:
    found: Any = _Exchange.apply(states, group, to_heads)
    return found


def _whole_rows(rows: DividedRows, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Return query, key and value [R, heads / n, L, d] of whole rows; keys of too few heads to divide are repeated."""
    count = rows.group.ranks
    if key.shape[1] % count:
        times = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, times), repeat_kv(value, times)
    return [_exchange(item, rows.group, to_heads=True) for item in (query, key, value)]


def sequence_parallel_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sliding_window: int | None = None,
    divided_rows: DividedRows | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention's output [R, L/n, heads, d]; query, key and value are [R, heads, L/n, d].

    transformers calls it in each layer. Without `divided_rows` it is SDPA with transformers' mask.
    """
    if divided_rows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    query, key, value = _whole_rows(divided_rows, query, key, value)
    groups, sees = query.shape[1] // key.shape[1], divided_rows.sees(sliding_window)
    found = nn.functional.scaled_dot_product_attention(
        query,
        repeat_kv(key, groups),
        repeat_kv(value, groups),
        attn_mask=sees,
        is_causal=sees is None,
        scale=options.get("scaling"),
    )
    return _exchange(found, divided_rows.group, to_heads=False).transpose(1, 2), None


AttentionInterface.register(ATTENTION, sequence_parallel_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
