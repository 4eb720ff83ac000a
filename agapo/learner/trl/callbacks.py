"""What a TRL trainer does after each step, for SFT and preference learning alike: tell the driver, and save.

Checkpoints have the guarantees of the RL stage's (`checkpoint.py`): complete or not there, `latest` moved last, and a
run that goes on from one is equal to one that was never stopped (weights, optimizer, schedule, random states, place in
the data).
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from agapo.errors import UserError
from agapo.learner.checkpoint import Saved, deepspeed_files, save_checkpoint
from agapo.learner.trl.fine_tuning import UNFINISHED, FineTuning

if TYPE_CHECKING:
    from agapo.learner.background import BackgroundWriter

NAMES = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "entropy": "train/entropy",
    "mean_token_accuracy": "train/token_accuracy",
}
"""TRL's name of each metric, and ours."""

STATE = "state"
"""The trainer's own files, inside a checkpoint."""


class CheckpointCallback(TrainerCallback):
    """Turns the folder that transformers has written into a checkpoint that is complete or not there at all."""

    trainer: Any = None
    """To be set before it trains."""

    def __init__(self, settings: FineTuning) -> None:
        self._settings = settings
        self._writer: BackgroundWriter | None = None
        self._unfinished: int | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Let DeepSpeed write through the background, if the recipe says so."""
        if self._settings.sharded and self._settings.checkpoint.background:
            from agapo.learner.background import BackgroundWriter  # imports DeepSpeed, which the driver does without

            self._writer = self.trainer.deepspeed.checkpoint_engine = BackgroundWriter()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Complete the checkpoint; in the background, the one before it."""
        self._complete(wait=True)
        self._unfinished = state.global_step
        self._complete(wait=self._writer is None)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Complete a checkpoint that was under way; before the next one is copied, it has to be."""
        self._complete(wait=control.should_save)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Wait for a checkpoint that is under way."""
        self._complete(wait=True)

    def _complete(self, *, wait: bool) -> None:
        """Move the files to their place, on rank 0, if every rank has written its own; with `wait`, once they have."""
        if self._unfinished is None:
            return
        # Every rank has answered, so every rank is done.
        if any_rank(self._writer is not None and not self._writer.written(wait=wait)):
            return
        if self.trainer.is_world_process_zero():
            self._move(self._unfinished)
        wait_for_all()
        self._unfinished = None

    def _move(self, step: int) -> None:
        own = self._settings
        written = own.checkpoints / UNFINISHED / f"checkpoint-{step}"

        def take(folder: Path) -> Saved:
            written.rename(folder / STATE)
            ranks, zero_stage = own.training.ranks, own.training.zero_stage
            needed = needed_files(folder / STATE, step, ranks, zero_stage, bfloat16=own.bfloat16)
            return Saved(ranks, zero_stage, [f"{STATE}/{name}" for name in needed])

        save_checkpoint(own.checkpoints, step, {**own.state, "step": step}, take, keep=own.checkpoint.keep)


class LearningRateCallback(TrainerCallback):
    """Lets the recipe's learning rate count where a run goes on; the checkpoint brings the one it was saved with."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        lr_scheduler: Any = None,
        **_: Any,
    ) -> None:
        """Set the peak, and with it the rate of the next step. Changes nothing where the recipe is the same."""
        if not state.global_step:
            return
        schedule = getattr(lr_scheduler, "scheduler", lr_scheduler)  # accelerate wraps it
        schedule.base_lrs = [args.learning_rate for _ in schedule.base_lrs]
        rates = [args.learning_rate * share(schedule.last_epoch) for share in schedule.lr_lambdas]
        for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
            group["initial_lr"], group["lr"] = args.learning_rate, rate
        schedule._last_lr = rates


class ReportCallback(TrainerCallback):
    """Reports each step's metrics to the driver, and stops, saving, when the driver asks to."""

    def __init__(self, report: Callable[[int, dict[str, float]], bool], names: Mapping[str, str] = NAMES) -> None:
        self._report, self._names = report, names
        self._stop = False
        self._started = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Hand the step's metrics on. Raises UserError on every rank when the loss is not a number."""
        if not logs or "loss" not in logs:
            return
        now = time.monotonic()
        metrics = {ours: float(logs[theirs]) for theirs, ours in self._names.items() if theirs in logs}
        metrics["time/step"], self._started = now - self._started, now
        if not math.isfinite(metrics["train/loss"]):
            raise UserError(
                f"step {state.global_step}: the loss became {metrics['train/loss']}; lower training.learning_rate or "
                "training.max_grad_norm, and run again to go on from the last checkpoint"
            )
        if state.is_world_process_zero:
            self._stop = self._report(state.global_step, metrics)
        if any_rank(self._stop):
            # Saved now, since transformers looks at `should_save` after it has logged.
            control.should_save = control.should_training_stop = True


def needed_files(folder: Path, step: int, ranks: int, zero_stage: int, *, bfloat16: bool) -> list[str]:
    """Return the names of the files that resuming a trainer on `ranks` ranks needs, and its weights in `folder`.

    What the ranks write follows from their number and the ZeRO stage (transformers 5); how the weights are called
    and cut, from the model.
    """
    weights = sorted(path.name for path in folder.glob("*.safetensors*")) or ["model.safetensors"]
    random = [f"rng_state_{rank}.pth" for rank in range(ranks)] if ranks > 1 else ["rng_state.pth"]
    optimizer = ["optimizer.pt"]
    if zero_stage:
        shards = deepspeed_files(zero_stage, ranks, bfloat16=bfloat16)
        optimizer = ["latest", *(f"global_step{step}/{name}" for name in shards)]
    return ["trainer_state.json", "scheduler.pt", *weights, *random, *optimizer]


def wait_for_all() -> None:
    """Return once every rank is here."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set on any rank. Collective."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return flag
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    found = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found.item())
