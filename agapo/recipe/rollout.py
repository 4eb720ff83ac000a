"""The section `rollout`: how responses are sampled."""

from typing import Literal

from pydantic import Field

from agapo.recipe.section import Strict


class RolloutConfig(Strict):
    """How responses are sampled."""

    engine: Literal["transformers"] = "transformers"
    actors: int = Field(default=1, ge=1)
    group_size: int = Field(default=8, ge=2)
    """G, the responses a prompt; leave-one-out needs at least 2."""
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=1024, ge=1)
    stop: list[str] = Field(default_factory=list)
    """Texts that end a response, besides the end-of-turn token; kept in the response."""
    chunk_prompts: int = Field(default=8, ge=1)
    """Prompts that one actor samples together; the unit of work that is redone when an actor dies."""
    threads: int = Field(default=0, ge=0)
    """CPU threads an actor; 0 shares this machine's cores among the actors."""
    gpus_per_actor: float = Field(default=0.0, ge=0)
    chunk_timeout_s: float = Field(default=1800.0, gt=0)
    """An actor that takes longer over a chunk is taken for hung, and replaced."""
    max_restarts: int = Field(default=10, ge=0)
    """Actor replacements a run; more says that something is wrong that a restart cannot mend."""


def rollout_warnings(own: RolloutConfig) -> list[str]:
    """Return what is allowed in RL's sampling, and seldom meant; `agapo check` and `agapo rl` say it."""
    if own.top_p == 1:
        return []
    return [
        f"rollout.top_p {own.top_p:g}: responses are sampled from the likeliest tokens alone, and the learner's "
        "log-probabilities are over the whole vocabulary, so that neither gradient nor KL is of what was sampled; "
        "set it to 1"
    ]
