"""What a run writes for TensorBoard, beside W&B and the files (`tracking.tensorboard`)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agapo.errors import UserError, first_line
from agapo.recipe import Recipe

log = logging.getLogger("agapo")


def require_board(recipe: Recipe) -> None:
    """Raise UserError where a recipe wants TensorBoard, and its package is not installed."""
    if recipe.tracking.tensorboard:
        _writer()


def _writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "tracking.tensorboard: the package 'tensorboard' is not installed; pip install 'agapo[tensorboard]'"
        ) from None
    return SummaryWriter


class Board:
    """Writes event files to a folder. What an earlier process wrote of steps after `kept` is hidden.

    Trouble with the files (a full disk, say) costs one warning and TensorBoard, never the run.
    """

    def __init__(self, folder: Path, kept: int) -> None:
        self._folder, self._kept = folder, kept
        self._given_up = False
        self._events: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a step's numbers, by the names of `metrics.jsonl`."""
        self._guarded(step, lambda events: self._add(events, step, metrics))

    def show(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a few responses of `rollouts.jsonl` as text."""
        texts = [f"**{row['prompt']}**\n\n{row['text']}\n\nreward {row['reward']}" for row in rows]
        self._guarded(step, lambda events: events.add_text("rollout/samples", "\n\n---\n\n".join(texts), step))

    def close(self) -> None:
        """Close the files."""
        if self._events:
            self._guarded(None, lambda events: events.close())

    @staticmethod
    def _add(events: Any, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            events.add_scalar(name, value, step)
        events.flush()

    def _guarded(self, step: int | None, action: Callable[[Any], None]) -> None:
        if self._given_up:
            return
        try:
            # What a run that goes on has made after its checkpoint is made again.
            self._events = self._events or _writer()(str(self._folder), purge_step=self._kept + 1)
            action(self._events)
        except Exception as error:
            self._given_up = True
            what = "close its files" if step is None else f"write step {step}"
            reason = first_line(error)
            log.warning("TensorBoard could not %s (%s); going on with the files of the run directory", what, reason)
