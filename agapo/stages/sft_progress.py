"""What TRL's trainer reports, handed on under the project's own metric names."""

import time
from collections.abc import Callable
from typing import Any

from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

NAMES = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "entropy": "train/entropy",
    "mean_token_accuracy": "train/token_accuracy",
}
"""TRL's name of each metric, and ours."""


class ProgressCallback(TrainerCallback):
    """Calls `report(step, metrics)` at each logged step, with the mean seconds a step since the last one."""

    def __init__(self, report: Callable[[int, dict[str, float]], None]) -> None:
        self.loss = float("nan")
        self._report = report
        self._since = (0, time.monotonic())

    def take_over(self, trainer: Trainer) -> None:
        """Report for `trainer` in the place of its own printing."""
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._since = (0, time.monotonic())

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Hand the record on."""
        if not logs or "loss" not in logs:
            return
        self.loss = logs["loss"]
        step, started = self._since
        self._since = (state.global_step, time.monotonic())
        seconds = (self._since[1] - started) / max(1, state.global_step - step)
        metrics = {ours: float(logs[theirs]) for theirs, ours in NAMES.items() if theirs in logs}
        self._report(state.global_step, metrics | {"time/step": seconds})
