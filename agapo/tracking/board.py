"""What a run writes for TensorBoard, beside W&B and the files (`tracking.tensorboard`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from agapo.recipe import Recipe


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
    """Writes event files to a folder. Steps after the first that it is given, of an earlier process, are hidden."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a step's numbers, by the names of `metrics.jsonl`."""
        events = self._at(step)
        for name, value in metrics.items():
            events.add_scalar(name, value, step)
        events.flush()

    def show(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a few responses of `rollouts.jsonl` as text."""
        texts = [f"**{row['prompt']}**\n\n{row['text']}\n\nreward {row['reward']}" for row in rows]
        self._at(step).add_text("rollout/samples", "\n\n---\n\n".join(texts), step)

    def close(self) -> None:
        """Close the files."""
        if self._events:
            self._events.close()

    def _at(self, step: int) -> Any:
        # What a run that goes on has made after its checkpoint is made again.
        self._events = self._events or _writer()(str(self._folder), purge_step=step)
        return self._events
