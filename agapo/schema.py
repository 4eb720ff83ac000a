"""The records that flow through the system.

A prompt is sampled G times; the G responses form a group; a step's groups form a batch:

    Prompt ──sample──► Response × G ──score──► Group ──select, advantages──► Batch ──► learner

All records are frozen: a stage that adds something (a reward, say) makes a new record with
`dataclasses.replace`. Tokens and their numbers are numpy arrays, which pickle as they lie in memory (a million
tokens as Python numbers take half a second to unpickle); all else is plain Python values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Mode = Literal["reasoning", "non_reasoning"]
MODES: tuple[Mode, ...] = ("reasoning", "non_reasoning")
Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Prompt:
    """One question, ready to be sampled.

    Example: `Prompt(id="gsm8k/train/12", messages=({"role": "user", "content": "1+1="},), columns={"answer": "2"})`.
    """

    id: str
    """Unique and stable over runs: seeds of the samples derive from it."""
    messages: tuple[Mapping[str, Any], ...]
    """The chat so far, ending with the turn to answer: `{"role": ..., "content": ...}` each."""
    domain: str = "math"
    """What kind of task this is; metrics are reported by domain."""
    mode: Mode = "reasoning"
    """Whether the generation prompt opens a thinking block."""
    language: str = "en"
    """ISO 639-1 code of the language the response should be in."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What the reward reads besides the completion (`answer`, `test`, ...), under the data set's own names."""


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch of a response. Single-turn responses have one, or one a weights version where weights changed in
    mid-response; a tool's result is one that is not trained.

    Segments are equal when their tokens and numbers are.
    """

    token_ids: np.ndarray
    """[T] int32 token ids. Other sequences of numbers are converted."""
    logprobs: np.ndarray
    """[T] float32 log-probability in nats of each token under the sampling policy, at the sampling temperature,
    over the whole vocabulary (before top-p); [0] where nobody needs them. Other sequences are converted."""
    trained: bool = True
    """True for tokens that the model produced; False for context such as a tool's result."""
    weights_version: int = 0
    """How many optimizer updates the policy that sampled it had seen; 0 for context."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", np.asarray(self.token_ids, np.int32))
        object.__setattr__(self, "logprobs", np.asarray(self.logprobs, np.float32))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Segment):
            return NotImplemented
        same = np.array_equal(self.token_ids, other.token_ids) and np.array_equal(self.logprobs, other.logprobs)
        return same and (self.trained, self.weights_version) == (other.trained, other.weights_version)


@dataclass(frozen=True)
class Response:
    """One sampled answer to a prompt, and, once scored, its reward."""

    segments: tuple[Segment, ...]
    """In order; none where only the text is known."""
    text: str
    """The decoded response without the end-of-turn token; thinking and answer together."""
    finish: Finish
    """`stop`: ended by itself; `length`: cut at `rollout.max_new_tokens`."""
    reward: float | None = None
    """Weighted sum of the reward terms; None while unscored or where there is no verdict."""
    correct: bool | None = None
    """The verdict, from the one reward term that the recipe names; None where there is none."""
    reward_parts: Mapping[str, float | None] = field(default_factory=dict)
    """Each reward term by name, before weighting."""
    reward_error: str | None = None
    """What scoring met, as `kind: detail` (`timeout: ...`, `crash: ...`, `exception: ...`), None if nothing."""

    @property
    def token_ids(self) -> np.ndarray:
        """[T] int32, the segments' tokens, joined."""
        return _join([segment.token_ids for segment in self.segments], np.int32)

    @property
    def logprobs(self) -> np.ndarray:
        """[T] float32, the segments' sampling log-probabilities, joined."""
        return _join([segment.logprobs for segment in self.segments], np.float32)

    @property
    def trained(self) -> np.ndarray:
        """[T] bool, which tokens take part in the loss."""
        return _join([np.full(len(segment.token_ids), segment.trained) for segment in self.segments], np.bool_)

    @property
    def versions(self) -> np.ndarray:
        """[T] int64, the weights version that sampled each token."""
        return _join([np.full(len(segment.token_ids), segment.weights_version) for segment in self.segments], np.int64)


def _join(parts: list[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


@dataclass(frozen=True)
class Group:
    """One prompt and its G responses."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    """[P] the rendered prompt, generation prompt included."""
    responses: tuple[Response, ...]

    @property
    def verdicts(self) -> list[bool]:
        """The verdicts that there are (responses without one are left out)."""
        return [response.correct for response in self.responses if response.correct is not None]

    @property
    def all_correct(self) -> bool:
        """Every verdict says correct (and there is one)."""
        return bool(self.verdicts) and all(self.verdicts)

    @property
    def all_wrong(self) -> bool:
        """Every verdict says wrong (and there is one)."""
        return bool(self.verdicts) and not any(self.verdicts)


@dataclass(frozen=True)
class Batch:
    """The groups that one step learns from, with their advantages."""

    groups: tuple[Group, ...]
    advantages: tuple[tuple[float, ...], ...]
    """[N][G] normalised advantages; 0 for responses that carry no signal."""
    kl_weights: tuple[tuple[float, ...], ...]
    """[N][G] how much each response counts in the KL term; 0 for responses that carry no verdict."""
    nominal_responses: int
    """The denominator: prompts a step × G of the recipe, however many groups were kept."""
