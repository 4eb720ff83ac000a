"""What a sampling engine is: it turns prompts into groups of responses, and takes new weights."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agapo.model.weights import WeightLayout
from agapo.schema import Group, Prompt


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


@dataclass(frozen=True)
class PromptRequest:
    """A prompt to sample, rendered."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    visit: int = 0
    """How many times this prompt has been sampled before: another visit draws other responses."""


class Engine(Protocol):
    """Samples groups of responses.

    The result depends on the weights, the requests given together, and the sampling parameters, and on nothing
    else: redoing the same call gives the same groups.
    """

    def generate(self, requests: Sequence[PromptRequest], params: SamplingParams) -> list[Group]:
        """Return one group of `params.group_size` responses a request, in order."""
        ...

    def load_weights(self, buffer: np.ndarray, layout: WeightLayout, version: int) -> None:
        """Take the weights after `version` optimizer updates."""
        ...


def uniforms(request: PromptRequest, params: SamplingParams) -> np.ndarray:
    """Return the random numbers [G, max_new_tokens] in [0, 1) of a request, one a token of each response.

    They derive from (run seed, prompt id, visit, response index) alone, so it does not matter which actor samples
    the prompt, when, or beside which others.
    """
    return np.stack([_stream(params, request, index) for index in range(params.group_size)])


def _stream(params: SamplingParams, request: PromptRequest, index: int) -> np.ndarray:
    name = f"{params.seed}|{request.prompt.id}|{request.visit}|{index}"
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(params.max_new_tokens, dtype=np.float32)
