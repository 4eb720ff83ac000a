"""What both sides of a comparison are given: the recipe, the model, the prompts, and what they hand back."""

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from agapo.recipe import RLRecipe, SFTRecipe, load_recipe
from agapo.schema import Prompt

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes/rl/tiny.yaml"


@dataclass(frozen=True)
class Work:
    """One side's job: so many steps of so many prompts with G responses each."""

    model: str
    """A Hugging Face folder."""
    steps: int
    prompts: int
    group: int
    max_new_tokens: int
    kl: float
    """β; above 0 both sides hold a reference model."""
    learning_rate: float
    threads: int
    """CPU cores that the side may use, all its processes together."""
    changes: tuple[str, ...] = ()
    """More of agapo's recipe keys to set, as `key=value`."""

    @property
    def responses(self) -> int:
        """Responses a step."""
        return self.prompts * self.group

    def recipe(self, output: Path) -> RLRecipe:
        """Return agapo's own tiny recipe with this work's numbers, and nothing that a step does not need.

        All-correct groups are not dropped and refilled, so that a step samples as many responses as TRL's.
        """
        return load_recipe(RLRecipe, RECIPE, self._overrides(output))

    def _overrides(self, output: Path) -> list[str]:
        actors = load_recipe(RLRecipe, RECIPE).rollout.actors
        return [
            f"run.output={output}",
            f"model.path={self.model}",
            f"steps={self.steps}",
            f"prompts_per_step={self.prompts}",
            "algorithm.drop_all_correct=false",
            f"algorithm.kl.coefficient={self.kl}",
            f"rollout.group_size={self.group}",
            f"rollout.max_new_tokens={self.max_new_tokens}",
            f"rollout.threads={max(1, self.threads // actors)}",
            f"learner.threads={self.threads}",
            f"learner.learning_rate={self.learning_rate}",
            "learner.warmup_steps=0",
            "evaluation.every=0",
            "evaluation.pass_at=0",
            "tracking.wandb=disabled",
            "tracking.samples_every=0",
            *self.changes,
        ]

    def batches(self, recipe: RLRecipe) -> list[list[Prompt]]:
        """Return the prompts of each step, in the order in which agapo's run takes them."""
        from agapo.evaluation.questions import load_questions
        from agapo.stages.running.system import training_stream

        stream = training_stream(recipe, load_questions(recipe.data, recipe.evaluation))
        starts = range(0, self.steps * self.prompts, self.prompts)
        return [[prompt for prompt, _ in stream.take(start, self.prompts)] for start in starts]


@dataclass(frozen=True)
class Step:
    """What one step did, and how long it took."""

    seconds: float
    """From the end of the step before to the end of this one: nothing is left out."""
    cpu_s: float
    """CPU seconds of the side's processes together: what a busy machine disturbs least."""
    phases: dict[str, float]
    """Seconds by phase; they do not overlap."""
    lengths: list[int]
    """Tokens of each response."""
    prompt_ids: list[list[int]]
    """Token ids of each prompt, once a group."""
    learned: int
    """Responses that went through the learner (agapo leaves out those with an advantage of 0)."""

    @property
    def tokens(self) -> int:
        """Sampled tokens."""
        return sum(self.lengths)


@dataclass(frozen=True)
class Run:
    """One side's run in a process of its own."""

    ready_at: float
    """When the first step began, in seconds since the epoch."""
    steps: list[Step]
    settings: dict[str, str] = field(default_factory=dict)
    """What a reader needs to judge whether the comparison is fair, as the side itself reports it."""


def starting_folder(make_in: Path) -> tuple[str, str]:
    """Return (folder, what it is) of the model: the tiny recipe's SFT model, or a random one made in `make_in`."""
    from agapo.tracking import is_finished

    start = load_recipe(RLRecipe, RECIPE).model.start
    assert start
    trained = load_recipe(SFTRecipe, start)
    if is_finished(trained.run_directory):
        return str(trained.hf_directory), "the SFT start of recipes/rl/tiny.yaml"
    _make_random_model(make_in)
    return str(make_in), "random weights: responses run to the token limit (after `make sft`, its model is used)"


def _make_random_model(folder: Path) -> None:
    from agapo.model.loading import create_model, export_hf
    from agapo.model.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    export_hf(create_model(tokenizer, seed=0), tokenizer, folder)


def pin(threads: int) -> None:
    """Keep this process, and all that it starts, on `threads` cores, so that both sides have the same machine.

    To be called before torch is imported. OpenMP's threads wait asleep, as agapo's always do: spinning ones made TRL's
    steps ten times slower wherever something else wanted a core.
    """
    os.environ |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Stopwatch:
    """Wall-clock and CPU seconds since the last look, of this process and those that it had started by then."""

    def __init__(self) -> None:
        own = psutil.Process()
        self._processes = [own, *own.children(recursive=True)]
        self._last = self._now()

    def lap(self) -> tuple[float, float]:
        """Return (wall-clock seconds, CPU seconds) since the last lap."""
        now, last = self._now(), self._last
        self._last = self._now()
        return now[0] - last[0], now[1] - last[1]

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), sum(_cpu_seconds(process) for process in self._processes)


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system
