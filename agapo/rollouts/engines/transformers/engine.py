"""Sampling with a transformers model: the engine that runs anywhere.

The loop is: prefill the prompts once, copy each prompt's cache to its group, then decode one token a row at a
time, and drop rows as they finish, so that no finished sequence is computed again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agapo.errors import UserError
from agapo.model.weights import WeightLayout, load_weights
from agapo.rollouts.engine import PromptRequest, SamplingParams, uniforms
from agapo.rollouts.engines.transformers.attention import NAME as DECODE_ATTENTION
from agapo.rollouts.engines.transformers.cache import DecodeCache, layer_windows
from agapo.schema import Finish, Group, Response, Segment

PREFILL_COLUMNS = 4096
"""Columns of the prompts that go through the model at once: the mask of a longer stretch would not fit in memory."""


class TransformersEngine:
    """Samples groups of responses with a Hugging Face causal language model."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: str = "cpu"):
        torch.nn.Module.to(model, device)
        self.model = model.eval()
        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(DECODE_ATTENTION)
        self.tokenizer = tokenizer
        self.end_ids = end_token_ids(model, tokenizer)
        self.windows = layer_windows(model.config.get_text_config())
        self.version = 0

    def load_weights(self, buffer: np.ndarray, layout: WeightLayout, version: int) -> None:
        """Take the weights after `version` optimizer updates."""
        load_weights(self.model, buffer, layout)
        self.version = version

    @torch.inference_mode()
    def generate(self, requests: Sequence[PromptRequest], params: SamplingParams) -> list[Group]:
        """Return one group of `params.group_size` responses a request, in order."""
        decode = _Decode(self, requests, params)
        decode.prefill()
        while decode.live:
            decode.step()
        return [self._group(request, decode, index, params) for index, request in enumerate(requests)]

    def _group(self, request: PromptRequest, decode: "_Decode", index: int, params: SamplingParams) -> Group:
        rows = range(index * params.group_size, (index + 1) * params.group_size)
        responses = tuple(self._response(decode.tokens[row], decode.logprobs[row], decode.ends[row]) for row in rows)
        return Group(prompt=request.prompt, prompt_ids=request.prompt_ids, responses=responses)

    def _response(self, tokens: list[int], logprobs: list[float], finish: Finish) -> Response:
        if not all(map(math.isfinite, logprobs)):
            raise UserError(
                f"the model's log-probabilities are not numbers (weights {self.version}): its weights are damaged; "
                "give another model, or lower learner.learning_rate and go back to an earlier checkpoint"
            )
        visible = tokens[:-1] if tokens and tokens[-1] in self.end_ids else tokens
        return Response(
            segments=(Segment(np.array(tokens), np.array(logprobs)),),
            # Special tokens stay in: some models mark thinking with them, and rewards must see it.
            text=str(self.tokenizer.decode(visible, skip_special_tokens=False)),
            finish=finish,
            weights_version=self.version,
        )


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the token ids that end a response: the generation config's and the tokenizer's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*ids, tokenizer.eos_token_id) if isinstance(token, int))


@dataclass
class _Rows:
    """The state of the live rows, each field with one entry a row."""

    ids: Tensor
    """[rows] which sequence of the call each row is."""
    padding: Tensor
    """[rows] columns of left padding."""
    uniform: Tensor
    """[rows, max_new_tokens]."""

    def move(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        for name, values in vars(self).items():
            values[holes] = values[movers]
            setattr(self, name, values[:rows])


class _Decode:
    """One call of `generate`: the cache, the live rows, and what has been sampled."""

    def __init__(self, engine: TransformersEngine, requests: Sequence[PromptRequest], params: SamplingParams):
        self.engine = engine
        self.requests = requests
        self.params = params
        self.device = engine.model.device
        self.longest = max(len(request.prompt_ids) for request in requests)
        self.cache = DecodeCache(engine.windows, self.longest + params.max_new_tokens)
        count = len(requests) * params.group_size
        self.tokens: list[list[int]] = [[] for _ in range(count)]
        self.logprobs: list[list[float]] = [[] for _ in range(count)]
        self.ends: list[Finish] = ["length"] * count
        self.end_ids = torch.tensor(sorted(engine.end_ids), device=self.device)
        self.taken = 0

    @property
    def live(self) -> bool:
        return len(self.rows.ids) > 0 and self.taken < self.params.max_new_tokens

    def prefill(self) -> None:
        """Run the prompts once, give each of the group its copy, and keep the logits of the first token."""
        lengths = torch.tensor([len(request.prompt_ids) for request in self.requests], device=self.device)
        padding = self.longest - lengths
        ids = torch.zeros(len(self.requests), self.longest, dtype=torch.long, device=self.device)
        for row, request in enumerate(self.requests):
            ids[row, int(padding[row]) :] = torch.tensor(request.prompt_ids)
        *parts, last = ids.split(PREFILL_COLUMNS, dim=1)
        for part in parts:
            self._forward(part, padding)
        logits = self._forward(last, padding)
        self.cache.repeat_rows(self.params.group_size)
        self.logits = logits.repeat_interleave(self.params.group_size, dim=0)
        self.rows = self._first_rows(padding)

    def _first_rows(self, padding: Tensor) -> _Rows:
        repeated = padding.repeat_interleave(self.params.group_size)
        # Greedy decoding draws nothing.
        draws = [uniforms(request, self.params) for request in self.requests] if self.params.temperature else []
        uniform = np.concatenate(draws) if draws else np.zeros((len(repeated), self.params.max_new_tokens), np.float32)
        ids = torch.arange(len(repeated), device=self.device)
        return _Rows(ids=ids, padding=repeated, uniform=torch.from_numpy(uniform).to(self.device))

    def step(self) -> None:
        """Sample a token a row, drop the rows that finished, and run the others."""
        tokens, logprobs = sample(self.logits, self.rows.uniform[:, self.taken], self.params)
        self.taken += 1
        finished = self._record(tokens, logprobs)
        tokens = self._drop(finished, tokens)
        if self.live:
            self.logits = self._forward(tokens[:, None], self.rows.padding)

    def _record(self, tokens: Tensor, logprobs: Tensor) -> Tensor:
        """Keep what was sampled; return [rows] bool, which rows have finished."""
        rows = self.rows.ids.tolist()
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            self.tokens[row].append(token)
            self.logprobs[row].append(logprob)
        finished = torch.isin(tokens, self.end_ids)
        if self.params.stop:
            finished |= torch.tensor([self._hit_stop(row) for row in rows], device=self.device)
        for row in self.rows.ids[finished].tolist():
            self.ends[row] = "stop"
        return finished

    def _hit_stop(self, row: int) -> bool:
        # A token is at least one byte, so the stop text lies within this many tokens.
        reach = max(len(text.encode()) for text in self.params.stop)
        tail = str(self.engine.tokenizer.decode(self.tokens[row][-reach:], skip_special_tokens=False))
        return any(text in tail for text in self.params.stop)

    def _drop(self, finished: Tensor, tokens: Tensor) -> Tensor:
        """Move the last live rows into the places of finished ones; return the live rows' tokens."""
        gone = int(finished.sum())
        if not gone:
            return tokens
        rows = len(finished) - gone
        holes = finished[:rows].nonzero().squeeze(1)
        movers = rows + (~finished[rows:]).nonzero().squeeze(1)
        self.rows.move(holes, movers, rows)
        self.cache.move_rows(holes, movers, rows)
        tokens[holes] = tokens[movers]
        return tokens[:rows]

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
