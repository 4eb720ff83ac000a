"""Training by TRL on ranks, as the SFT and preference stages do it: run, report, go on, export."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agapo.cluster import threads_for
from agapo.learner.checkpoint import divided_alike, latest_checkpoint
from agapo.learner.trl.callbacks import STATE
from agapo.learner.trl.fine_tuning import UNFINISHED, FineTuning
from agapo.learner.trl.ranks import Kind, run_ranks
from agapo.model.adapters import merged_model
from agapo.model.loading import export_hf, load_tokenizer
from agapo.recipe import DPORecipe, SFTRecipe
from agapo.stages.running.interrupt import StopRequest
from agapo.tracking import MetricsLogger, RunDirectory, StepProgress, read_json
from agapo.tracking.files import read_json_lines


@dataclass(frozen=True)
class TrainerLoop:
    """A training run with everything that it needs."""

    recipe: SFTRecipe | DPORecipe
    run: RunDirectory
    start: str
    """Folder or hub name of the model before training."""
    settings: FineTuning
    kind: Kind
    logger: MetricsLogger
    view: StepProgress
    done: int
    """Steps that an earlier process made."""
    more: Callable[[int], Mapping[str, float]]
    """What there is to say of a step besides the trainer's own numbers."""

    def train(self, stop: StopRequest) -> None:
        """Train to the last step and export. Raises Interrupted after saving when a stop was asked for."""
        self.write_missing_steps()
        if self.done == self.settings.steps and self.run.hf.exists():
            return
        self.view.announce(f"starting training ranks: {self.recipe.training.ranks}, which load {self.start}")
        run_ranks(
            self.settings,
            self.kind,
            done=self.done,
            report=self.report,
            should_stop=stop,
        )
        shutil.rmtree(self.run.checkpoints / UNFINISHED, ignore_errors=True)
        if lora := self.settings.training.lora:
            merged = merged_model(self.start, self.settings.weights, self.recipe.model, lora)
            export_hf(merged, load_tokenizer(self.start), self.run.hf)

    def write_missing_steps(self) -> None:
        """Write the steps that the checkpoint has made and a driver that was killed had no time to write down."""
        checkpoint = latest_checkpoint(self.run.checkpoints)
        history = read_json(checkpoint.path / STATE / "trainer_state.json") if checkpoint else None
        known = {line["step"] for line in read_json_lines(self.run.metrics)}
        for record in (history or {}).get("log_history", []):
            if "loss" in record and record["step"] not in known:
                metrics = {ours: float(record[theirs]) for theirs, ours in self.kind.names.items() if theirs in record}
                self.logger.log(record["step"], {**metrics, **self.more(record["step"])})

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Write a step's numbers down."""
        if step == self.done + 1:
            self.view.begin(metrics["time/step"])
        metrics = {**metrics, **self.more(step)}
        self.logger.log(step, metrics)
        self.view.update(step, metrics)


@contextmanager
def trainer_loop(
    recipe: SFTRecipe | DPORecipe,
    run: RunDirectory,
    start: str,
    kind: Kind,
    *,
    steps: int,
    doing: str,
    of: str = "",
    log_every: int,
    more: Callable[[int], Mapping[str, float]] = lambda step: {},
) -> Iterator[TrainerLoop]:
    """Yield the loop, logs open, where the run is known.

    `doing` and `of` say what the steps are: `fine-tuning`, or `training` and ` of 32 pairs`.
    """
    checkpoint = latest_checkpoint(run.checkpoints)
    if checkpoint:
        # What cannot be read is said before anything is cut off.
        own = recipe.training
        divided_alike(checkpoint, ranks=own.ranks, zero_stage=own.zero_stage, section="training")
    done = int(checkpoint.state["step"]) if checkpoint else 0
    run.truncate_after(done if checkpoint else -1)
    logger = MetricsLogger(run, recipe, checkpoint.state["wandb_id"] if checkpoint else None, run.resumed)
    failed = 1
    try:
        with StepProgress(steps, done, name=recipe.stage, log_every=log_every) as view:
            verb = f"going on from step {done} of" if done else f"{doing} for"
            view.announce(f"{verb} {steps} steps{of} in {run.path}")
            state = {"wandb_id": logger.wandb_id}
            settings = trainer_settings(recipe, run, start, steps, state)
            yield TrainerLoop(recipe, run, start, settings, kind, logger, view, done, more)
        failed = 0
    finally:
        logger.close(failed)


def trainer_settings(
    recipe: SFTRecipe | DPORecipe, run: RunDirectory, start: str, steps: int, state: Mapping[str, Any]
) -> FineTuning:
    """Return what the ranks are told."""
    training = recipe.training
    return FineTuning(
        model_path=start,
        data=run.path / "data",
        checkpoints=run.checkpoints,
        weights=run.adapter if training.lora else run.hf,
        steps=steps,
        seed=recipe.run.seed,
        model=recipe.model,
        training=training,
        checkpoint=recipe.checkpoint,
        threads=threads_for(training.threads, training.ranks),
        state=state,
    )
