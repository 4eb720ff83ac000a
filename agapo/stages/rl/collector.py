"""A step's groups: sampled when the step is there, or ahead of it (`rollout.max_staleness`).

Which prompts a step takes is the same either way: those that follow in the stream, until the batch is full.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from agapo.algorithm.sampling import prompts_to_keep, select_groups, shuffle_rewards
from agapo.curation.mixing import MixedStream
from agapo.curation.prompts import PromptStream
from agapo.errors import Interrupted, UserError
from agapo.evaluation.rendering import Renderer
from agapo.learner.rl.reference import Reference
from agapo.recipe import RLRecipe
from agapo.rollouts.ahead import Ahead
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.pool import RolloutPool
from agapo.rollouts.sampling import ErrorWatch, Judge, JudgingError, sample_and_score
from agapo.rollouts.waiting import Begun, save_waiting
from agapo.schema import Batch, Group, Prompt
from agapo.stages.rl.metrics import Clock, Collected, staleness_metrics
from agapo.stages.rl.progress import WAITING, Progress
from agapo.stages.rl.weight_sync import WeightSync
from agapo.stages.running.system import sampling_params
from agapo.tracking import MetricsLogger, RunDirectory


@dataclass
class Collector:
    """Samples and scores prompts for the loop, and keeps the actors' weights up to date."""

    recipe: RLRecipe
    run: RunDirectory
    stream: PromptStream | MixedStream
    render: Renderer
    pool: RolloutPool
    scorer: Judge
    weight_sync: WeightSync
    logger: MetricsLogger
    progress: Progress
    reference: Reference
    """Told of groups that the step will learn from as they are judged."""
    begun: Begun | None = None
    """What the run that goes on here had begun."""
    ahead: Ahead | None = None
    """What samples ahead, where the recipe lets it, between `start` and `close`."""
    watch: ErrorWatch = field(init=False)
    """Looks at errors over steps: one with few prompts says little."""
    _busy_s: float = 0.0
    """Of `ahead`, up to the last step."""

    def __post_init__(self) -> None:
        self.watch = ErrorWatch(self.scorer)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Sample ahead inside, if the recipe says so."""
        own, progress = self.recipe.rollout, self.progress
        if not own.max_staleness or self.recipe.is_enough(progress.step, progress.tokens):
            yield
            with self._judging_errors_told():
                self.watch.end()
            return
        self.ahead = Ahead(
            self.pool,
            self.scorer,
            lambda position, count: self._requests(self.stream.take(position, count)),
            self._params,
            chunk_prompts=own.chunk_prompts,
            start=progress.cursor,
            begun=self.begun,
        )
        try:
            yield
        finally:
            self.ahead.close()
            self.ahead = None

    def collect(self, clock: Clock) -> Collected:
        """Sample and score prompts until the batch is full, or the refill is used up."""
        own = self.recipe
        allowed = own.prompts_per_step + int(own.algorithm.refill.max_extra * own.prompts_per_step)
        collected = Collected(version=self.progress.updates)
        if self.ahead:
            self.ahead.learned(self.progress.cursor)
        while collected.prompts < allowed and len(collected.kept) < own.prompts_per_step:
            missing = own.prompts_per_step - len(collected.kept)
            wanted = min(self._enough_for(missing), allowed - collected.prompts)
            position = self.progress.cursor + collected.prompts
            taken = self.stream.take(position, wanted)
            with self._judging_errors_told():
                groups = (
                    self._from_ahead(position, wanted, clock) if self.ahead else self._sampled(taken, missing, clock)
                )
            if own.algorithm.shuffle_rewards:
                groups = shuffle_rewards(groups, f"{own.run.seed}/{self.progress.step}/{collected.prompts}")
            collected.add(taken[: len(groups)], groups, *self._selected(groups))
            collected.surplus += wanted - len(groups)
        return collected

    def _enough_for(self, missing: int) -> int:
        """Return how many prompts to begin where so many groups are missing."""
        if not self.recipe.rollout.oversample:
            return missing
        return prompts_to_keep(missing, self.progress.keep_rate)

    def _selected(self, groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
        own = self.recipe.algorithm
        return select_groups(groups, drop_all_correct=own.drop_all_correct, drop_all_wrong=own.drop_all_wrong)

    def _sampled(self, taken: Sequence[tuple[Prompt, int]], missing: int, clock: Clock) -> list[Group]:
        """Return the groups of the prompts, in order; with `oversample`, those up to the last of so many that are kept.

        The rest is given up, whole groups as well as begun ones: were the former kept for a later step, which would
        learn from older weights' tokens, and only they, short responses would be favoured.
        """
        own, lap = self.recipe.rollout, clock.laps()
        chunks = sample_and_score(
            self.pool,
            self.scorer,
            self._requests(taken),
            self._params,
            chunk_prompts=own.chunk_prompts,
            on_sampled=lambda: lap("generate"),
            watch=self.watch,
            singly=own.oversample,
        )
        groups: list[Group] = []
        kept = 0
        for chunk in chunks:
            groups += chunk
            kept += len(self._selected(chunk)[0])
            self._tell_reference(chunk)
            if kept == missing and len(groups) < len(taken):
                chunks.close()
                lap("generate")
                return groups
        lap("score")
        return groups

    def _tell_reference(self, groups: Sequence[Group]) -> None:
        kl = self.recipe.algorithm.kl
        # Shuffled verdicts make other responses of them, of which the step learns.
        if kl.coefficient and not self.recipe.algorithm.shuffle_rewards:
            self.reference.add(groups if kl.groups == "all" else self._selected(groups)[0])

    def _from_ahead(self, position: int, count: int, clock: Clock) -> list[Group]:
        assert self.ahead
        left = self.recipe.steps - self.progress.step - 1
        further = min(self.recipe.rollout.max_staleness, left) * self.recipe.prompts_per_step
        with clock.phase("generate"):
            return self.ahead.groups(position, count, position + count + further, self._tell_reference)

    @property
    def _params(self) -> SamplingParams:
        return sampling_params(self.recipe.rollout, self.recipe.run.seed)

    def _requests(self, taken: Sequence[tuple[Prompt, int]]) -> list[PromptRequest]:
        return rendered(taken, self.render)

    @contextmanager
    def _judging_errors_told(self) -> Iterator[None]:
        try:
            yield
        except JudgingError as error:
            self.logger.log_errors(self.progress.step + 1, error.groups)
            raise UserError(f"{error} (all of them: {self.run.reward_errors})") from None

    def bring_weights(self) -> None:
        """Bring the learner's weights to the actors; where no update was made, nothing."""
        version = self.progress.updates
        if self.pool.version == version:
            return
        if not self.ahead:
            self.weight_sync(version)
            return
        # Where a stop was asked for, `collect` says so, when this step has been recorded.
        with suppress(Interrupted):
            self.ahead.call(lambda: self.weight_sync(version))

    def save(self, folder: Path) -> list[str]:
        """Write what was begun and not learned from below a checkpoint's folder; return the files' names."""
        if not self.ahead:
            return []
        waiting = self.ahead.left(self.progress.cursor)
        save_waiting(folder / WAITING, Begun(self._params, self.ahead.asked, tuple(waiting)))
        return [WAITING]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have the pool to oneself."""
        if not self.ahead:
            yield
            return
        with self.ahead.paused():
            yield

    def metrics(self, batch: Batch, version: int, seconds: float) -> dict[str, float]:
        """Return what sampling ahead did in a step of so many seconds; nothing where it does not.

        `version`: of the weights that learned from the batch.
        """
        if not self.ahead:
            return {}
        busy, self._busy_s = self.ahead.busy_s - self._busy_s, self.ahead.busy_s
        return staleness_metrics(batch, version, self.recipe.algorithm.updates_per_batch) | {
            "rollout/waiting": float(self.ahead.waiting),
            "rollout/idle": max(0.0, 1 - busy / seconds / self.recipe.rollout.actors),
        }


def rendered(taken: Sequence[tuple[Prompt, int]], render: Renderer) -> list[PromptRequest]:
    """Return what the stream gives, a prompt and its visit each, as it is asked."""
    return [PromptRequest(prompt, render(prompt), visit) for prompt, visit in taken]
