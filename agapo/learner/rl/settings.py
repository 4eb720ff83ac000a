"""What a learner rank is told: sections of the recipe as they stand there, and what the driver has found out."""

import math
from dataclasses import dataclass, field
from typing import Literal

from agapo.algorithm.objective import Objective
from agapo.model.shared_prompts import ATTENTION
from agapo.recipe.learner import LearnerConfig
from agapo.recipe.model import ModelConfig
from agapo.recipe.sharding import stage_run

TAG = "state"
"""Folder of the ranks' files, inside a checkpoint."""


@dataclass(frozen=True)
class LearnerSettings:
    """How a rank loads, optimises and batches."""

    model_path: str
    """Folder or hub name of the model that RL starts from, and of the reference."""
    objective: Objective
    temperature: float = 1.0
    """Of sampling, and so of the log-probabilities."""
    model: ModelConfig = field(default_factory=ModelConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    threads: int = 1
    """CPU threads of a rank; `learner.threads` may leave them to the machine."""
    seed: int = 0
    """The run's: adapters are drawn by it."""
    background: bool = False
    """Whether checkpoints are written while training goes on."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where the ranks run."""
        return "cuda" if self.learner.gpus_per_rank else "cpu"

    @property
    def shares_prompts(self) -> bool:
        """Whether a prompt lies once before all responses of its group."""
        own = self.learner
        return own.shared_prompts and own.layout == "packed" and self.model.attention == "sdpa"

    @property
    def attention(self) -> str:
        """What the models compute attention with, as transformers names it."""
        return ATTENTION if self.shares_prompts else self.model.attention

    @property
    def max_grad_norm(self) -> float:
        """The norm that gradients are cut to: what the recipe has or comes to; 1 where a rank is made without one."""
        return self.learner.max_grad_norm or 1.0

    @property
    def bfloat16(self) -> bool:
        """Whether the weights are bfloat16, with float32 copies in the optimizer."""
        return self.model.dtype == "bfloat16"

    @property
    def zero_stage(self) -> int:
        """The ZeRO stage that DeepSpeed runs."""
        return stage_run(self.learner.zero_stage, bfloat16=self.bfloat16)


def learning_rate_at(
    step: int, *, peak: float, warmup: int, total: int, schedule: Literal["constant", "linear", "cosine"], floor: float
) -> float:
    """Return the learning rate of a step (counted from 0): linear warm-up, then the schedule down to `floor`.

    A pure function of the step, so a resumed run needs no scheduler state.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    remaining = 1 - progress if schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return floor + (peak - floor) * remaining
