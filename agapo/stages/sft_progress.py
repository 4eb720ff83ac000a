"""What TRL's trainer reports, as a progress bar and a line of JSON a logged step."""

import json
import time
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_KEPT = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
    "mean_token_accuracy": "token_accuracy",
}


class ProgressCallback(TrainerCallback):
    """Show loss, steps a second and the time left; append each logged record to a JSONL file."""

    def __init__(self, steps: int, metrics: Path) -> None:
        self.loss = float("nan")
        self._metrics = metrics
        columns = TextColumn("sft"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
        self._progress = Progress(*columns, TimeRemainingColumn())
        self._task = self._progress.add_task("", total=steps)
        self._started = time.monotonic()

    def take_over(self, trainer: Trainer) -> None:
        """Report for `trainer` in the place of its own printing."""
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar and a new file."""
        self._metrics.write_text("")
        self._started = time.monotonic()
        self._progress.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        rate = state.global_step / (time.monotonic() - self._started)
        self._progress.update(
            self._task, completed=state.global_step, description=f"loss {self.loss:.3f} · {rate:.1f} steps/s"
        )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append the record."""
        if not logs or "loss" not in logs:
            return
        self.loss = logs["loss"]
        record = {"step": state.global_step, "wall_s": round(time.monotonic() - self._started, 3)}
        record |= {ours: logs[theirs] for theirs, ours in _KEPT.items() if theirs in logs}
        with self._metrics.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the finished bar on the screen."""
        self._progress.stop()
