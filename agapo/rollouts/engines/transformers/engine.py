"""Sampling with a transformers model: the engine that runs anywhere.

The loop is: prefill the prompts once, copy each prompt's cache to its group, then decode one token a row at a
time, and drop rows as they finish, so that no finished sequence is computed again.
"""

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agapo.model.transports import MeetingPlace, meet
from agapo.model.weights import Weights, load_weights, require_loaded
from agapo.rollouts.engine import Piece, Request, ResponseId, SamplingParams, resumed, uniforms
from agapo.rollouts.engines.endings import end_token_ids, not_finite, response_text
from agapo.rollouts.engines.transformers.attention import NAME as DECODE_ATTENTION
from agapo.rollouts.engines.transformers.cache import DecodeCache, layer_windows
from agapo.schema import Finish, Segment

PREFILL_COLUMNS = 4096
"""Columns of the prompts that go through the model at once: the mask of a longer stretch would not fit in memory."""


class TransformersEngine:
    """Samples responses with a Hugging Face causal language model.

    What is added together is decoded together, one `add` after the other.
    """

    repeatable = True

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str = "cpu"):
        torch.nn.Module.to(model, device)
        self.model = model.eval()
        self.device = device
        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(DECODE_ATTENTION)
        self.tokenizer = tokenizer
        self.end_ids = end_token_ids(model.generation_config, tokenizer)
        self.windows = layer_windows(model.config.get_text_config())
        self.version = 0
        self._decodes: deque[_Decode] = deque()

    @property
    def busy(self) -> bool:
        """Whether responses are in flight."""
        return bool(self._decodes)

    def add(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Take requests, to be decoded together."""
        if requests:
            self._decodes.append(_Decode(self, requests, params))

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        """Sample a token for each row of the decode at hand; return the responses that finished."""
        decode = self._decodes[0]
        rows = decode.step()
        if not decode.live:
            self._decodes.popleft()
        return [self._piece(decode, row, decode.ends[row]) for row in rows]

    @torch.inference_mode()
    def abort(self, ids: Collection[ResponseId]) -> list[Piece]:
        """Take these out of flight; return what there is of them."""
        gone = set(ids)
        pieces = [
            self._piece(decode, row, "paused")
            for decode in self._decodes
            for row in decode.leave({item for item in decode.live_rows if decode.requests[item].id in gone})
        ]
        self._decodes = deque(decode for decode in self._decodes if decode.live)
        return pieces

    def meet(self, meeting: MeetingPlace, member: int) -> None:
        """Meet the learner for broadcasts of weights, as this member."""
        meet(meeting, member, self.device)

    def update_weights(self, weights: Weights, version: int) -> None:
        """Take the weights after `version` optimizer updates; what is in flight goes on with them."""
        self._decodes = deque(self._paused(decode) for decode in self._decodes)
        load_weights(self.model, weights)
        require_loaded(self.model, weights, version)
        self.version = version

    def _paused(self, decode: "_Decode") -> "_Decode":
        """Return a decode of what is left of this one; its prefill computes everything anew."""
        going_on = [
            resumed(decode.requests[row], self._piece(decode, row, "paused")) for row in sorted(decode.live_rows)
        ]
        return _Decode(self, going_on, decode.params)

    def sleep(self) -> None:
        """Move the weights to host memory."""
        assert not self.busy
        torch.nn.Module.to(self.model, "cpu")
        torch.cuda.empty_cache()

    def wake(self) -> None:
        """Move the weights back."""
        torch.nn.Module.to(self.model, self.device)

    def _piece(self, decode: "_Decode", row: int, finish: Literal["stop", "length", "paused"]) -> Piece:
        request, tokens, logprobs = decode.requests[row], decode.tokens[row], decode.logprobs[row]
        if not all(map(math.isfinite, logprobs)):
            raise not_finite(self.version)
        sampled = Segment(np.array(tokens), np.array(logprobs), weights_version=self.version)
        segments = (*request.prefix, sampled) if tokens else request.prefix
        text = response_text(self.tokenizer, self.end_ids, [*request.prefix_ids, *tokens])
        return Piece(request.id, segments, text, finish)


@dataclass
class _Rows:
    """The state of the live rows, each field with one entry a row."""

    ids: Tensor
    """[rows] which request each row is of."""
    padding: Tensor
    """[rows] columns of left padding."""
    limit: Tensor
    """[rows] the most tokens."""
    uniform: Tensor
    """[rows, the largest limit]."""

    def move(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        for name, values in vars(self).items():
            values[holes] = values[movers]
            setattr(self, name, values[:rows])


class _Decode:
    """Requests that are decoded together: the cache, the live rows, and what has been sampled."""

    def __init__(self, engine: TransformersEngine, requests: Sequence[Request], params: SamplingParams):
        self.engine = engine
        self.requests = requests
        self.params = params
        self.device = engine.model.device
        count = len(requests)
        self.live_rows = set(range(count))
        self.tokens: list[list[int]] = [[] for _ in range(count)]
        self.logprobs: list[list[float]] = [[] for _ in range(count)]
        self.ends: list[Finish] = ["length"] * count
        self.end_ids = torch.tensor(sorted(engine.end_ids), device=self.device)
        self.taken = 0
        self.rows: _Rows | None = None
        """None before the prefill."""

    @property
    def live(self) -> bool:
        return bool(self.live_rows)

    def _prefill(self) -> _Rows:
        """Run the prompts once, give each of a group its copy, and keep the logits of the first token."""
        requests = [self.requests[row] for row in sorted(self.live_rows)]
        prompts, copies = _shared_prompts(requests)
        longest = max(map(len, prompts))
        self.cache = DecodeCache(self.engine.windows, longest + max(item.max_new_tokens for item in requests))
        padding = longest - torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long, device=self.device)
        for row, prompt in enumerate(prompts):
            ids[row, int(padding[row]) :] = torch.tensor(prompt)
        *parts, last = ids.split(PREFILL_COLUMNS, dim=1)
        for part in parts:
            self._forward(part, padding)
        logits = self._forward(last, padding)
        self.cache.repeat_rows(copies)
        self.logits = logits.repeat_interleave(copies, dim=0)
        return self._first_rows(requests, padding.repeat_interleave(copies))

    def _first_rows(self, requests: Sequence[Request], padding: Tensor) -> _Rows:
        limits = [request.max_new_tokens for request in requests]
        uniform = np.zeros((len(limits), max(limits)), np.float32)
        # Greedy decoding draws nothing.
        for row, request in enumerate(requests if self.params.temperature else []):
            uniform[row, : limits[row]] = uniforms(request, self.params.seed)
        return _Rows(
            ids=torch.tensor(sorted(self.live_rows), device=self.device),
            padding=padding,
            limit=torch.tensor(limits, device=self.device),
            uniform=torch.from_numpy(uniform).to(self.device),
        )

    def step(self) -> list[int]:
        """Sample a token a row, drop the rows that finished, and run the others; return which finished."""
        rows = self.rows = self.rows or self._prefill()
        tokens, logprobs = sample(self.logits, rows.uniform[:, self.taken], self.params)
        self.taken += 1
        finished = self._record(rows, tokens, logprobs)
        gone = rows.ids[finished].tolist()
        self.live_rows -= set(gone)
        tokens = self._drop(rows, finished, tokens)
        if self.live:
            self.logits = self._forward(tokens[:, None], rows.padding)
        return gone

    def leave(self, gone: set[int]) -> set[int]:
        """Drop the rows of these requests in mid-response; return them."""
        self.live_rows -= gone
        if gone and self.rows:
            mask = torch.isin(self.rows.ids, torch.tensor(sorted(gone), device=self.device))
            self.logits = self._drop(self.rows, mask, self.logits)
        return gone

    def _record(self, rows: _Rows, tokens: Tensor, logprobs: Tensor) -> Tensor:
        """Keep what was sampled; return [rows] bool, which rows have finished."""
        ids = rows.ids.tolist()
        for row, token, logprob in zip(ids, tokens.tolist(), logprobs.tolist(), strict=True):
            self.tokens[row].append(token)
            self.logprobs[row].append(logprob)
        stopped = torch.isin(tokens, self.end_ids)
        if self.params.stop:
            stopped |= torch.tensor([self._hit_stop(row) for row in ids], device=self.device)
        for row in rows.ids[stopped].tolist():
            self.ends[row] = "stop"
        return stopped | (rows.limit <= self.taken)

    def _hit_stop(self, row: int) -> bool:
        # A token is at least one byte, so the stop text lies within this many tokens.
        reach = max(len(text.encode()) for text in self.params.stop)
        tokens = self.tokens[row]
        if len(tokens) < reach:
            tokens = [*self.requests[row].prefix_ids[len(tokens) - reach :], *tokens]
        tail = str(self.engine.tokenizer.decode(tokens[-reach:], skip_special_tokens=False))
        return any(text in tail for text in self.params.stop)

    def _drop(self, rows: _Rows, finished: Tensor, tokens: Tensor) -> Tensor:
        """Move the last live rows into the places of finished ones; return the live rows' tokens (or logits)."""
        gone = int(finished.sum())
        if not gone:
            return tokens
        left = len(finished) - gone
        holes = finished[:left].nonzero().squeeze(1)
        movers = left + (~finished[left:]).nonzero().squeeze(1)
        rows.move(holes, movers, left)
        self.cache.move_rows(holes, movers, left)
        tokens[holes] = tokens[movers]
        return tokens[:left]

    def _forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        """Return the logits [rows, vocabulary] after the last column."""
        filled = self.cache.get_seq_length()
        columns = torch.arange(filled, filled + ids.shape[1], device=self.device)
        positions = (columns[None] - padding[:, None]).clamp_min(0)
        return self.engine.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=self._masks(columns, padding),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def _masks(self, columns: Tensor, padding: Tensor) -> Tensor | dict[str, Tensor | None]:
        """The masks [rows, 1, queries, keys] by layer type; a plain one for models without layer types."""
        window = next((item for item in self.engine.windows if item is not None), None)
        full = _mask(columns, padding, first=0, window=None)
        if getattr(self.engine.model.config.get_text_config(), "layer_types", None) is None:
            return full
        if window is None:
            return {"full_attention": full}
        first = max(0, int(columns[0]) - window + 1)
        return {"full_attention": full, "sliding_attention": _mask(columns, padding, first=first, window=window)}


def _shared_prompts(requests: Sequence[Request]) -> tuple[list[list[int]], int]:
    """Return the prompts to run, and how many rows each is copied to: a group's responses share their prompt.

    Where groups are not of one size, or responses go on from a prefix, each row has its own.
    """
    groups = [
        list(group) for _, group in groupby(requests, key=lambda item: (replace(item.id, index=0), item.prompt_ids))
    ]
    sizes = {len(group) for group in groups}
    if len(sizes) == 1 and not any(request.prefix for request in requests):
        return [list(group[0].prompt_ids) for group in groups], sizes.pop()
    return [[*request.prompt_ids, *request.prefix_ids] for request in requests], 1


def _mask(columns: Tensor, padding: Tensor, *, first: int, window: int | None) -> Tensor:
    """Which keys (columns `first`..) each query column may look at: earlier, not padding, inside the window."""
    keys = torch.arange(first, int(columns[-1]) + 1, device=columns.device)
    distance = columns[:, None] - keys[None]
    near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    real = keys[None] >= padding[:, None]
    # A padding query sees itself, since a softmax over nothing is NaN.
    return ((near[None] & real[:, None]) | (distance == 0)[None])[:, None]


def sample(logits: Tensor, uniform: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Return a token [rows] and its log-probability [rows] (fp32, over the whole vocabulary) for each row.

    logits [rows, vocabulary]; uniform [rows] in [0, 1): the token is the inverse of the cumulative distribution.
    """
    logprobs = (logits.float() / (params.temperature or 1.0)).log_softmax(dim=-1)
    if params.temperature == 0:
        tokens = logprobs.argmax(dim=-1)
    else:
        tokens = _inverse_cdf(_nucleus(logprobs.exp(), params.top_p), uniform)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)


def _inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Rounded up to the total, a draw would fall behind the last token that has any probability.
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp_max(probabilities.shape[-1] - 1)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the likeliest tokens that together reach `top_p`."""
    if top_p >= 1:
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True)
    beyond = ordered.cumsum(dim=-1) - ordered >= top_p
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(beyond, 0.0))
