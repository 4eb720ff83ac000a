"""The RL stage: sample, score, select, learn, sync, step after step.

    prompts ──► rollout actors ──► verifier workers ──► groups ──asymmetric sampling──► batch
                     ▲                                                                    │
                     └──────────────── weights ◄── learner ranks (AGAPO objective) ◄──────┘

One batch at a time. On-policy by default: a step is a function of the run's seed, its place in the data and the
weights, so a run that was stopped goes on as if it had not been. With `rollout.max_staleness` actors sample ahead
meanwhile (`agapo.rollouts.ahead`); a step's prompts are the same then, and its responses of somewhat older weights.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

from agapo.algorithm.kl import SequenceEstimator
from agapo.algorithm.sampling import make_batch
from agapo.cluster import fetch
from agapo.errors import Interrupted, ProcessDied, UserError
from agapo.evaluation.evaluator import Evaluator, mean_accuracy
from agapo.evaluation.figures import term_means
from agapo.evaluation.questions import Questions
from agapo.learner.checkpoint import Saved, Unfinished, begin_checkpoint, complete_checkpoint
from agapo.learner.rl.batching import Example, examples_of, with_reference
from agapo.learner.rl.group import LearnerGroup
from agapo.learner.rl.settings import learning_rate_at
from agapo.recipe import RLRecipe
from agapo.recipe.evaluation import VALIDATION
from agapo.rollouts.pool import RolloutPool
from agapo.schema import Batch, Group, Prompt
from agapo.stages.rl.clipping import ClipWatch
from agapo.stages.rl.collector import Collector
from agapo.stages.rl.metrics import Clock, Collected, advantage_metrics, learn_metrics, rollout_metrics
from agapo.stages.rl.mismatch import mismatch_metrics, require_same_policy
from agapo.stages.rl.progress import DOUBTS_AFTER, Progress, doubts
from agapo.stages.running.export import Exporter
from agapo.tracking import MetricsLogger, RunDirectory, StepProgress, Timeline
from agapo.tracking.logger import question
from agapo.tracking.progress import percent
from agapo.tracking.timeline import DRIVER


@dataclass
class RLLoop:
    """The running system, and where the run is."""

    recipe: RLRecipe
    run: RunDirectory
    questions: Questions
    sets: Mapping[str, Sequence[Prompt]]
    """More questions to measure on, by name (`evaluation.sets`)."""
    pool: RolloutPool
    learner: LearnerGroup
    collector: Collector
    evaluator: Evaluator
    exporter: Exporter
    logger: MetricsLogger
    view: StepProgress
    progress: Progress
    timeline: Timeline
    began: float
    """When the clock would have started (`time.monotonic`), had the run never been stopped."""
    clipping: ClipWatch = field(default_factory=ClipWatch)
    unfinished: Unfinished | None = None
    """A checkpoint that is being written."""

    @property
    def ended(self) -> bool:
        """Whether the last step is made."""
        return self.recipe.is_enough(self.progress.step, self.progress.tokens)

    @property
    def wall_s(self) -> float:
        """Seconds that the run has taken, start-up included, over all its processes."""
        return time.monotonic() - self.began

    def train(self) -> None:
        """Run the remaining steps. Raises Interrupted, with everything saved, when the user asks to stop."""
        self.begin()
        with self.completing_saves(), self.collector.at_work():
            while not self.ended:
                self.timeline.begin_step(self.progress.step + 1)
                self._make_step(Clock(partial(self.timeline.add, (DRIVER, 0))))

    def _make_step(self, clock: Clock) -> None:
        with self.saving_on_stop():
            collected = self.collector.collect(clock)
        batch = self.batch(collected)
        sums = self.learn(batch, clock)
        self.sync(clock)
        self.record(collected, batch, sums, clock)
        with self.saving_on_stop():
            self.evaluate_now_and_then()
        self.save_now_and_then()

    def begin(self) -> None:
        """Measure the model that RL starts from (once), or put the weights of a resumed run in place."""
        self.timeline.begin_step(self.progress.step)
        if self.progress.step:
            with self.timeline.phase("resume"):
                self.collector.bring_weights()
            self.evaluate_now_and_then()
            return
        self.view.announce(f"measuring the start on {len(self.questions.test)} test questions, before the first step")
        with self.timeline.phase("evaluate"):
            evaluation = self.evaluator.accuracy(self.questions.test, self.recipe.evaluation.modes)
        self.progress.before = evaluation.accuracy
        figures = _percentages(evaluation.accuracy, evaluation.questions)
        self.view.announce(f"before RL, greedy on the test questions: {figures}")
        self._measure_start()
        if self.recipe.evaluation.every:
            self.evaluate(step=0)

    def _measure_start(self) -> None:
        k = self.recipe.evaluation.pass_at
        if not k:
            return
        for mode in self.recipe.data.modes:
            with self.timeline.phase("evaluate"):
                found = self.evaluator.pass_at(self.questions.validation, mode, k)
            means = term_means(found.groups)
            self.progress.start |= {f"{mode}/{name}": value for name, value in (found.accuracy | means).items()}
            figures = ", ".join([_percentages(found.accuracy), *(f"{name} {mean:.2f}" for name, mean in means.items())])
            self.view.announce(f"before RL, sampled on the validation questions ({mode}): {figures}")

    def batch(self, collected: Collected) -> Batch:
        """Return the kept groups with their advantages."""
        own = self.recipe.algorithm
        return make_batch(
            collected.kept,
            collected.dropped,
            nominal_responses=self.recipe.nominal_responses,
            group=own.advantage.group,
            group_std=own.advantage.group_std,
            batch=own.advantage.batch,
            all_wrong_penalty=own.all_wrong_penalty,
            std_floor=own.advantage.std_floor,
            kl_groups=own.kl.groups,
        )

    def learn(self, batch: Batch, clock: Clock) -> list[dict[str, float]]:
        """Make the step's optimizer updates; return the sums of each (none when no response carries a signal)."""
        with clock.phase("learn"), self._with_the_memory():
            examples = self._examples(batch)
            parts = split_groups(examples, self.recipe.algorithm.updates_per_batch)
            return [self._update(part, batch.nominal_responses / len(parts)) for part in parts if part]

    @contextmanager
    def _with_the_memory(self) -> Iterator[None]:
        """Let the actors sleep, where the recipe says so, while the learner works on their GPUs."""
        if not self.recipe.rollout.sleep_while_learning:
            yield
            return
        with self.pool.asleep():
            yield
            self.learner.rest()

    def _examples(self, batch: Batch) -> list[Example]:
        kl = self.recipe.algorithm.kl
        found = examples_of(batch, self.progress.updates if self.recipe.rollout.max_staleness else None)
        responses = [response for group in batch.groups for response in group.responses]
        chosen = [index for index, item in enumerate(found) if item.advantage or (kl.coefficient and item.kl_weight)]
        examples = [found[index] for index in chosen]
        if not kl.coefficient or not examples:
            return examples
        with self.timeline.phase("reference"):
            reference = self.collector.reference.of([responses[index] for index in chosen], examples)
        per_sequence = kl.estimator in ("sequence", "reward_to_go")
        return with_reference(examples, reference, cast(SequenceEstimator, kl.estimator) if per_sequence else None)

    def _update(self, examples: list[Example], denominator: float) -> dict[str, float]:
        with self.timeline.phase("update"):
            sums = self.learner.update(examples, denominator=denominator, learning_rate=self.learning_rate)
        self.progress.updates += 1
        self.progress.clipped_updates += sums["grad_norm"] > self.recipe.max_grad_norm
        if warning := self.clipping.warning(sums["grad_norm"], self.recipe.max_grad_norm):
            self.view.announce(warning)
        return sums | {"responses": len(examples)}

    @property
    def learning_rate(self) -> float:
        """The learning rate of the step at hand."""
        own = self.recipe.learner
        return learning_rate_at(
            self.progress.step,
            peak=own.learning_rate,
            warmup=own.warmup_steps,
            total=self.recipe.steps,
            schedule=own.schedule,
            floor=own.min_learning_rate,
        )

    def sync(self, clock: Clock) -> None:
        """Bring the new weights to the rollout actors; where no update was made, nothing."""
        with clock.phase("sync"):
            self.collector.bring_weights()

    def record(self, collected: Collected, batch: Batch, sums: list[dict[str, float]], clock: Clock) -> None:
        """Write down the finished step. Raises UserError where engine and learner are too far apart."""
        learning_rate = self.learning_rate
        self.progress.step += 1
        self.progress.cursor += collected.prompts
        self.progress.note_kept(len(collected.kept), collected.prompts)
        step = self.progress.step
        metrics = rollout_metrics(collected, self.recipe) | advantage_metrics(batch) | learn_metrics(sums)
        metrics |= mismatch_metrics(sums)
        metrics |= {
            "policy/learning_rate": learning_rate,
            "policy/clipped_steps": self.progress.clipped_updates / max(1, self.progress.updates),
            "rollout/restarts": float(self.pool.restarts),
        }
        metrics |= clock.metrics(metrics["rollout/tokens"])
        metrics |= self.collector.metrics(batch, collected.version, metrics["time/step"])
        self.progress.tokens += int(metrics["rollout/tokens"])
        self.progress.reward_errors += self.logger.log_errors(step, collected.groups)
        self.logger.log(step, metrics)
        advantages = dict(zip(map(id, batch.groups), batch.advantages, strict=True))
        nothing = (0.0,) * self.recipe.rollout.group_size
        rows = [advantages.get(id(group), nothing) for group in collected.groups]
        self.logger.log_rollouts(step, collected.groups, rows, collected.visits)
        self.view.update(step, metrics)
        self._show_sample(step, collected.groups)
        self._say_doubts(step, collected.groups)
        bound = self.recipe.rollout.mismatch.bound(self.recipe.model.dtype)
        require_same_policy(metrics, bound, self.progress.agreed, adapters=self.recipe.learner.lora is not None)
        self.progress.agreed += "mismatch/mean" in metrics

    def _say_doubts(self, step: int, groups: Sequence[Group]) -> None:
        """Say once where accuracy may be low for how responses are judged or cut, rather than for the model."""
        self.progress.note_responses(groups, self.recipe.reward)
        if step == min(DOUBTS_AFTER, self.recipe.steps):
            for doubt in doubts(self.progress, self.recipe):
                self.view.announce(f"warning: {doubt}")

    def _show_sample(self, step: int, groups: Sequence[Group]) -> None:
        every = self.recipe.tracking.samples_every
        if every and groups and (step == 1 or step % every == 0):
            group = groups[step % len(groups)]
            self.view.show_sample(step, question(group), group.responses[step % len(group.responses)])

    def evaluate_now_and_then(self) -> None:
        """Evaluate every so many steps, and after the last; once, also where a stop came in between."""
        every, step = self.recipe.evaluation.every, self.progress.step
        due = every and (step % every == 0 or self.ended)
        if due and self.progress.evaluated != step:
            self.evaluate(step)

    def evaluate(self, step: int) -> None:
        """Measure accuracy on validation questions and sets, in the modes that are trained; keep the best weights."""
        started, modes = time.monotonic(), list(self.recipe.data.modes)
        with self.collector.paused():
            found = self.evaluator.accuracy(self.questions.validation, modes)
            others = {name: self.evaluator.accuracy(prompts, modes) for name, prompts in self.sets.items()}
        accuracy, reward = mean_accuracy(found.accuracy), found.reward
        # Where the verdict says nothing new (a shaped reward may never reach `correct_at`), the mean reward decides.
        best = (accuracy, reward) >= (self.progress.best_accuracy, self.progress.best_reward)
        self.progress.evaluated = step
        if best or self.progress.best_step < 0:
            self.progress.best_accuracy, self.progress.best_reward = accuracy, reward
            self.progress.best_step = step
            if self.recipe.evaluation.keep == "best":
                self.exporter.keep(fetch(self.learner.weights()), self.run.best)
        metrics = {f"eval/{mode}": value for mode, value in found.accuracy.items()} | {"eval/reward": reward}
        exported = self.progress.best_step == step or self.recipe.evaluation.keep == "last"
        self.progress.note_sets(others, exported=exported)
        metrics |= {
            f"eval/{name}/{mode}": value for name, one in others.items() for mode, value in one.accuracy.items()
        }
        for name, one in {VALIDATION: found, **others}.items():
            self.logger.log_answers(step, name, one.groups)
        ended = time.monotonic()
        self.timeline.add((DRIVER, 0), "evaluate", started, ended)
        self.logger.log(step, metrics | {"time/evaluate": ended - started})
        self.view.evaluation(step, found.accuracy, found.questions, reward=reward, best=best)
        for name, other in others.items():
            self.view.announce(f"  on {name}: {_percentages(other.accuracy, other.questions)}")

    def save_now_and_then(self) -> None:
        """Save every so many steps, and after the last."""
        step = self.progress.step
        if step % self.recipe.checkpoint.every == 0 or self.ended:
            self.save()
        else:
            self.complete_save(wait=False)

    def save(self) -> None:
        """Write a checkpoint of the last finished step; with `checkpoint.background`, begin to."""
        self.complete_save(wait=True)
        self.progress.wandb_id = self.logger.wandb_id
        self.progress.wall_s = self.wall_s
        with self.timeline.phase("checkpoint"):
            state = asdict(self.progress)
            self.unfinished = begin_checkpoint(self.run.checkpoints, self.progress.step, state, self._save_state)
            self.complete_save(wait=not self.recipe.checkpoint.background)

    def _save_state(self, folder: Path) -> Saved:
        saved = self.learner.save(folder)
        return replace(saved, files=[*saved.files, *self.collector.save(folder)])

    def complete_save(self, *, wait: bool) -> None:
        """Let the checkpoint that is being written appear if its files are there; with `wait`, once they are."""
        # Where it cannot be written, nobody is to take it for whole later.
        unfinished, self.unfinished = self.unfinished, None
        if unfinished and not self.learner.written(wait=wait):
            self.unfinished = unfinished
        elif unfinished:
            complete_checkpoint(unfinished, keep=self.recipe.checkpoint.keep)

    @contextmanager
    def completing_saves(self) -> Iterator[None]:
        """Leave no checkpoint half written, whatever happens inside, while there are ranks."""
        try:
            yield
        except ProcessDied:
            raise
        except BaseException:
            # A rank that dies now does not turn a stop into a new start.
            with suppress(ProcessDied):
                self.complete_save(wait=True)
            raise
        self.complete_save(wait=True)

    @contextmanager
    def saving_on_stop(self) -> Iterator[None]:
        """Save when the run stops inside: while sampling, the weights are those of the last finished step."""
        try:
            yield
        except ProcessDied:
            raise  # there is nobody to save
        except (Interrupted, UserError):
            if self.progress.step:
                self.save()
            raise


def split_groups(examples: Sequence[Example], parts: int) -> list[list[Example]]:
    """Deal the examples out to `parts` updates by turns, whole groups each.

    By turns, because the groups that ride along for the KL alone come last.
    """
    return [[item for item in examples if item.group % parts == part] for part in range(parts)]


def _percentages(values: Mapping[str, float], questions: Mapping[str, int] | None = None) -> str:
    return ", ".join(f"{name} {percent(value, (questions or {}).get(name))}" for name, value in values.items())
