"""What a sampling engine is: responses are added, steps are taken, and finished responses come out.

    add(requests) ──► step() ──► step() ──► … ──► pieces        between two steps: update_weights, abort, sleep

The unit is the single response; `agapo.rollouts.groups` makes groups of them. Whoever drives the engine takes its
steps, so a pause is a step that is not taken yet: everything in flight stays where it is, cache included.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from agapo.model.transports import MeetingPlace
from agapo.model.weights import Weights
from agapo.schema import Prompt, Segment


@dataclass(frozen=True)
class SamplingParams:
    """How responses are sampled."""

    group_size: int
    """G, the responses a prompt."""
    max_new_tokens: int
    temperature: float = 1.0
    """0 is greedy: the likeliest token, with its log-probability at temperature 1."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    thinking_budget: int | None = None
    """Tokens of thinking after which `</think>` is put behind them; None: as long as the model likes."""


@dataclass(frozen=True, slots=True)
class ResponseId:
    """Which response it is. Random numbers derive from (run seed, prompt, visit, index) alone."""

    prompt: str
    """The prompt's id."""
    visit: int
    """How many times this prompt has been sampled before."""
    index: int
    """0 to G-1."""
    number: int = 0
    """The prompt's place in the call: a call may ask a prompt twice, in two modes, say."""


@dataclass(frozen=True)
class Request:
    """A response to sample, or to go on with."""

    id: ResponseId
    """No two requests in flight have the same."""
    prompt_ids: tuple[int, ...]
    """[P] the rendered prompt, generation prompt included."""
    max_new_tokens: int
    """At least 1; without those of the prefix."""
    prefix: tuple[Segment, ...] = ()
    """What there is of the response already: a paused piece's segments, or a turn and a tool's result."""
    thinking_budget: int | None = None
    """See `SamplingParams`; None for a response that does not think. `agapo.rollouts.thinking` keeps to it."""

    @property
    def prefix_ids(self) -> list[int]:
        """[T] the prefix's tokens."""
        return [token for segment in self.prefix for token in segment.token_ids.tolist()]


@dataclass(frozen=True)
class Piece:
    """A response, or as much of it as there is."""

    id: ResponseId
    segments: tuple[Segment, ...]
    """The request's prefix, then what was sampled: a segment a weights version."""
    text: str
    """Decoded, without the end-of-turn token; special tokens stay, since some models mark thinking with them."""
    finish: Literal["stop", "length", "paused"]
    """`stop`: an end token or a stop text; `length`: cut at `max_new_tokens`; `paused`: aborted, and can go on."""


@dataclass(frozen=True)
class PromptRequest:
    """A prompt to sample, rendered."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    visit: int = 0
    """How many times this prompt has been sampled before: another visit draws other responses."""

    def responses(self, params: SamplingParams, number: int = 0) -> list[Request]:
        """Return the requests of the group's G responses; `number`: see `ResponseId`."""
        budget = params.thinking_budget if self.prompt.mode == "reasoning" else None
        return [
            Request(
                ResponseId(self.prompt.id, self.visit, index, number),
                self.prompt_ids,
                params.max_new_tokens,
                thinking_budget=budget,
            )
            for index in range(params.group_size)
        ]


class Engine(Protocol):
    """Samples responses, many at a time."""

    repeatable: bool
    """Whether the same `add` calls give the same responses: what a response is then depends on the weights, the
    requests that were added with it, and the sampling parameters, and on nothing else."""
    version: int
    """Optimizer updates behind the weights."""
    tokenizer: PreTrainedTokenizerBase

    @property
    def busy(self) -> bool:
        """Whether responses are in flight."""
        ...

    def add(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Take requests (`params.group_size` and `max_new_tokens` do not matter here); a step samples from them."""
        ...

    def step(self) -> list[Piece]:
        """Sample a token or some for responses in flight; return those that finished. Only where `busy`."""
        ...

    def abort(self, ids: Collection[ResponseId]) -> list[Piece]:
        """Take these out of flight; return what there is of them, paused (`resumed` makes a request of a piece)."""
        ...

    def meet(self, meeting: MeetingPlace, member: int) -> None:
        """Meet the learner for broadcasts (`agapo.model.transports`), as this member, or from this one on."""
        ...

    def update_weights(self, weights: Weights, version: int) -> None:
        """Take the weights after `version` optimizer updates.

        Responses in flight go on with them in a segment of its own. What was computed of their tokens with the old
        weights is computed again, so that the next token's log-probability is that of the new weights.
        """
        ...

    def sleep(self) -> None:
        """Leave the GPU's memory to others. Nothing may be in flight."""
        ...

    def wake(self) -> None:
        """Come back from `sleep`, with the weights as they were."""
        ...


def resumed(request: Request, piece: Piece) -> Request:
    """Return the request that goes on where a paused piece of `request` ended."""
    made = sum(len(segment.token_ids) for segment in piece.segments[len(request.prefix) :])
    return replace(request, prefix=piece.segments, max_new_tokens=request.max_new_tokens - made)


def uniforms(request: Request, seed: int) -> np.ndarray:
    """Return the random numbers [max_new_tokens] in [0, 1) of a response, one a token.

    They derive from (run seed, prompt id, visit, response index) alone, so it does not matter which actor samples
    the response, when, or beside which others; one that goes on draws what follows its prefix.
    """
    name = f"{seed}|{request.id.prompt}|{request.id.visit}|{request.id.index}"
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    done = len(request.prefix_ids)
    draws = np.random.Generator(np.random.Philox(key=key)).random(done + request.max_new_tokens, dtype=np.float32)
    return draws[done:]
