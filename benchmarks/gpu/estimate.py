"""How long each part should take on an H100, from its operation counts: what the time limits rest on.

    seconds = start + models made + operations / (share · 989·10¹²) + decode steps · host time a step

with cautious rates: a quarter of the card's peak for learning, 80 ms of host time a decode step at 28–30 layers
(measured beside an H200 with a slow host: 67 to 125 ms), float32 at 30·10¹² operations a second.
"""

from dataclasses import dataclass

from agapo.model.sizes import ModelSizes, config_sizes
from benchmarks.gpu.batches import made_up_examples
from benchmarks.gpu.learn import operations
from benchmarks.gpu.setting import REAL, Sizes

BFLOAT16, FLOAT32 = 0.25 * 989e12, 30e12
STEP_S, START_S, MODEL_S, RANK_S = 0.080, 15.0, 2.0, 12.0
"""A decode step; a process with its imports; a model made at random; a model written, and read by a rank."""


@dataclass(frozen=True)
class Estimate:
    """What a part does, and how long that should take."""

    name: str
    operations: float
    """In bfloat16, and in float32 as many of bfloat16 as take that long."""
    decode_steps: int
    other_s: float
    """Starting, and making models."""

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.operations / BFLOAT16 + self.decode_steps * STEP_S + self.other_s


def estimates(own: Sizes = REAL) -> list[Estimate]:
    """Return an estimate a part, in order."""
    sizes = [config_sizes(shape.config()) for shape in own.shapes]
    return [_correct(own, sizes), _memory(own, sizes[:2]), _learn(own, sizes[:2]), _sample(own, sizes[:1]), _run(own)]


def _correct(own: Sizes, models: list[ModelSizes]) -> Estimate:
    each = own.correct_prompt_tokens + own.correct_new_tokens
    tokens = own.correct_prompts * own.correct_group * each
    # Two layouts in bfloat16; in float32 two and one more; a third of a forward and backward each.
    once = sum(_learning(item, tokens, each) / 3 for item in models)
    steps = 2 * own.correct_new_tokens * len(models)
    return Estimate("correct", once * (2 + 3 * BFLOAT16 / FLOAT32), steps, START_S + 2 * MODEL_S * len(models))


def _memory(own: Sizes, models: list[ModelSizes]) -> Estimate:
    # Checkpointing runs the forward pass again.
    work = sum(
        4 / 3 * _learning(item, tokens, own.memory_row_tokens) for item in models for tokens in own.memory_tokens
    )
    made = len(models) * (len(own.memory_tokens) + len(own.sampling_rows))
    return Estimate("memory", work, _sampling_steps(own, models), START_S + made * MODEL_S)


def _learn(own: Sizes, models: list[ModelSizes]) -> Estimate:
    # Twice each, with and without checkpointing.
    updates = sum(
        2 * (1 + 4 / 3) * _learning(item, own.learn_step_tokens, tokens)
        for item in models
        for tokens in own.learn_tokens
    )
    return Estimate("learn", updates, 0, START_S + len(models) * (MODEL_S + RANK_S))


def _sample(own: Sizes, models: list[ModelSizes]) -> Estimate:
    # The whole, a quarter and an eighth twice, and a warm-up, for two samplers.
    steps = round(2 * 1.8 * _sampling_steps(own, models))
    return Estimate("sample", 0.0, steps, START_S + len(models) * MODEL_S)


def _run(own: Sizes) -> Estimate:
    # The tiny model (4 layers) and SmolLM2-135M (30): Ray's and the ranks' start is most of it.
    return Estimate("run", 0.0, own.run_steps * own.run_new_tokens, START_S + 2 * (RANK_S + 40.0))


def _sampling_steps(own: Sizes, models: list[ModelSizes]) -> int:
    return len(models) * len(own.sampling_rows) * own.sampling_new_tokens


def _learning(sizes: ModelSizes, tokens: int, each: int) -> float:
    return operations(sizes, made_up_examples(tokens, each, 100))
