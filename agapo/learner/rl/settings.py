"""What a learner rank needs to know: plain values, so that ranks never see the recipe."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agapo.algorithm.objective import Objective
from agapo.learner.rl.batching import Layout


@dataclass(frozen=True)
class LearnerSettings:
    """How a rank loads, optimises and batches."""

    model_path: str
    objective: Objective
    temperature: float = 1.0
    dtype: str = "float32"
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    rope: Mapping[str, Any] | None = None
    zero_stage: int = 0
    learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    micro_batch_tokens: int = 16384
    layout: Layout = "packed"
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"


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
