"""Attention over responses that share their prompt, so that a prompt goes through the model once for all of them.

All tokens lie in one row: a prompt, its responses one after another, the next prompt. Outside attention a token is on
its own, so nothing else has to know. Attention is computed by that structure: a prompt sees itself, and each response
sees its prompt and itself. Sequences of similar size share a call, padded to a rectangle (`Tile`); the padding exists
inside attention only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "agapo_shared_prompts"
"""The name under which transformers finds this attention; without shared prompts it is `sdpa`."""
MOST_PADDING = 2
"""Slots for each token of a tile: above it, sequences get tiles of their own."""
MOST_SCORES = 2**26
"""Of the attention of a tile, where they are held for the backward: above it SDPA computes them anew."""


@dataclass(frozen=True)
class Block:
    """A prompt and responses to it, as lengths in tokens; in the row they lie in this order."""

    prompt: int
    responses: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Of the row."""
        return self.prompt + sum(self.responses)


@dataclass(frozen=True)
class Tile:
    """B blocks that attention takes at once: each P slots for its prompt, then R times L for its responses."""

    prompts: tuple[int, ...]
    """[B] tokens of each prompt."""
    prompt: int
    """P."""
    responses: int
    """R."""
    response: int
    """L."""

    @property
    def slots(self) -> int:
        """B · (P + R · L)."""
        return len(self.prompts) * (self.prompt + self.responses * self.response)


@dataclass(frozen=True)
class SharedPrompts:
    """How a row of N tokens lies in the M slots of its tiles."""

    tiles: tuple[Tile, ...]
    tokens: Tensor
    """[M] the token in each slot, -1 for padding."""
    slots: Tensor
    """[N] the slot of each token."""


def tile_of(blocks: Sequence[Block]) -> Tile:
    """Return the rectangle around the blocks."""
    return Tile(
        prompts=tuple(block.prompt for block in blocks),
        prompt=max(block.prompt for block in blocks),
        responses=max(len(block.responses) for block in blocks),
        response=max(max(block.responses) for block in blocks),
    )


def fits_a_tile(blocks: Sequence[Block]) -> bool:
    """Whether the blocks are alike enough: memory and time of attention go by slots."""
    return tile_of(blocks).slots <= MOST_PADDING * sum(block.tokens for block in blocks)


def shared_prompts(blocks: Sequence[Block], device: str = "cpu") -> SharedPrompts:
    """Return the structure of a row that consists of the blocks."""
    groups: list[list[Block]] = []
    for block in blocks:
        if groups and fits_a_tile([*groups[-1], block]):
            groups[-1].append(block)
        else:
            groups.append([block])
    tiles = tuple(tile_of(group) for group in groups)
    pieces, start = [], 0
    for tile, group in zip(tiles, groups, strict=True):
        count = sum(block.tokens for block in group)
        pieces.append(_tokens(tile, group, start))
        start += count
    tokens = torch.cat(pieces)
    slots = torch.empty(start, dtype=torch.long)
    slots[tokens[tokens >= 0]] = (tokens >= 0).nonzero().squeeze(1)
    return SharedPrompts(tiles, tokens.to(device), slots.to(device))


def _tokens(tile: Tile, blocks: Sequence[Block], start: int) -> Tensor:
    """The token in each slot of a tile: first all prompts [B, P], then all responses [B, R, L]."""
    prompts = torch.full((len(blocks), tile.prompt), -1)
    responses = torch.full((len(blocks), tile.responses, tile.response), -1)
    for number, block in enumerate(blocks):
        prompts[number, : block.prompt] = torch.arange(start, start + block.prompt)
        start += block.prompt
        for place, length in enumerate(block.responses):
            responses[number, place, :length] = torch.arange(start, start + length)
            start += length
    return torch.cat([prompts.flatten(), responses.flatten()])


class _IntoSlots(torch.autograd.Function):
    """Rows of tokens [N, C] to slots [M, C]; padding holds some token's row, which nothing may depend on.

    A token has one slot, so its gradient is that slot's and nothing is added up: as exact as indexing, and faster.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shared: SharedPrompts) -> Tensor:
        ctx.slots = shared.slots
        return rows[shared.tokens.clamp_min(0)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.slots], None


class _OutOfSlots(torch.autograd.Function):
    """Slots [M, C] to rows of tokens [N, C]; padding has no gradient."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, shared: SharedPrompts) -> Tensor:
        ctx.slots, ctx.size = shared.slots, len(slots)
        return slots[shared.slots]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient.new_zeros(ctx.size, gradient.shape[1]).index_copy_(0, ctx.slots, gradient), None


def shared_prompt_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    shared_prompts: SharedPrompts | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention's output [1, N, heads, d]; query, key and value are [1, heads, N, d].

    transformers calls it in each layer. Without `shared_prompts` it is SDPA with transformers' mask.
    """
    if shared_prompts is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    moved = [_into_slots(item, shared_prompts) for item in (query, key, value)]
    sizes = [tile.slots for tile in shared_prompts.tiles]
    found = [
        _tile_attention(tile, *parts, window=sliding_window, scale=scaling)
        for tile, *parts in zip(shared_prompts.tiles, *(item.split(sizes) for item in moved), strict=True)
    ]
    flat = torch.cat(found).flatten(1)
    out: Any = _OutOfSlots.apply(flat, shared_prompts)
    return out.view(1, -1, query.shape[1], value.shape[-1]), None


def _into_slots(states: Tensor, shared: SharedPrompts) -> Tensor:
    """[1, heads, N, d] to [M, heads, d]."""
    _, heads, tokens, width = states.shape
    rows = states[0].transpose(0, 1).reshape(tokens, heads * width)
    slots: Any = _IntoSlots.apply(rows, shared)
    return slots.view(-1, heads, width)


def _tile_attention(
    tile: Tile, query: Tensor, key: Tensor, value: Tensor, *, window: int | None, scale: float | None
) -> Tensor:
    """Return the output [slots, heads, d] of a tile; query, key and value are [slots, heads, d]."""
    prompt_query, own_query = _parts(tile, query)
    prompt_key, own_key = _parts(tile, key)
    prompt_value, own_value = _parts(tile, value)
    # Padding lies behind a prompt, where no token of it looks.
    causal = sees(tile.prompt, window, query.device)[None]
    prompts = _attend(prompt_query, prompt_key, prompt_value, causal, scale)
    responses = _attend(
        own_query,
        _prompt_and_own(tile, prompt_key, own_key),
        _prompt_and_own(tile, prompt_value, own_value),
        _response_mask(tile, window, query.device),
        scale,
    )
    return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in (prompts, responses)])


def _attend(query: Tensor, key: Tensor, value: Tensor, sees: Tensor, scale: float | None) -> Tensor:
    """Attention of n sequences: query [n, H, L, d], key and value [n, H / groups, S, d], sees [n or 1, L, S].

    Every query sees something. On a CPU matrix products are several times as fast as SDPA's fused backward.
    """
    (count, heads, length, width), keys = query.shape, key.shape[2]
    groups = heads // key.shape[1]
    mask = torch.zeros_like(sees, dtype=query.dtype).masked_fill_(~sees, -torch.inf)
    if query.device.type != "cpu" or count * heads * length * keys > MOST_SCORES:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        return scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None], scale=scale)
    scaled = (query * (width**-0.5 if scale is None else scale)).reshape(count, -1, groups * length, width)
    scores = (scaled @ key.transpose(2, 3)).unflatten(2, (groups, length)) + mask[:, None, None]
    return (scores.softmax(dim=-1).flatten(2, 3) @ value).reshape(count, heads, length, value.shape[-1])


def _parts(tile: Tile, slots: Tensor) -> tuple[Tensor, Tensor]:
    """The prompts' [B, heads, P, d] and the responses' [B · R, heads, L, d] of a tile's slots [M, heads, d]."""
    border = len(tile.prompts) * tile.prompt
    prompts, responses = slots[:border], slots[border:]
    return (
        prompts.unflatten(0, (-1, tile.prompt)).transpose(1, 2),
        responses.unflatten(0, (-1, tile.response)).transpose(1, 2),
    )


def _prompt_and_own(tile: Tile, prompts: Tensor, own: Tensor) -> Tensor:
    """What a response can see [B · R, heads, P + L, d]."""
    repeated = prompts[:, None].expand(-1, tile.responses, -1, -1, -1).flatten(0, 1)
    return torch.cat([repeated, own], dim=2)


def _response_mask(tile: Tile, window: int | None, device: torch.device) -> Tensor:
    """Which of P + L keys each of L tokens sees [B · R, L, P + L]; [1, …] where prompts are equally long."""
    own = sees(tile.response, window, device)
    lengths = torch.tensor(tile.prompts[:1] if len(set(tile.prompts)) == 1 else tile.prompts, device=device)
    place = torch.arange(tile.prompt, device=device)
    position = lengths[:, None, None] + torch.arange(tile.response, device=device)[:, None]
    prompt = place < lengths[:, None, None]
    prompt = prompt.expand(-1, tile.response, -1) if window is None else prompt & (position - place < window)
    mask = torch.cat([prompt, own.expand(len(lengths), -1, -1)], dim=2)
    return mask if len(lengths) == 1 else mask.repeat_interleave(tile.responses, dim=0)


def sees(tokens: int, window: int | None, device: torch.device) -> Tensor:
    """Which of so many tokens [tokens, tokens] each of them sees: those up to itself, the last `window` of them.

    In place: of a long row it is the largest tensor, a byte a pair.
    """
    mask = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril_()
    return mask if window is None else mask.triu_(1 - window)


NO_MASK = (1, 1, 0, 0)
"""Shape of a mask that stands for none: transformers takes one of four dimensions as it is, and makes none itself."""

AttentionInterface.register(ATTENTION, shared_prompt_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
