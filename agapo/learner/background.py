"""Checkpoints that are written while training goes on (`checkpoint.background`).

    save_checkpoint ──► BackgroundWriter.save: copies of the tensors in the host's memory ──► back to training
                                                     └──► a thread: the file, flushed to the disk

A rank's share is copied when it is saved, so that what is written is the state of that moment; the host needs room for
the copy. Nobody waits for the disk but who asks (`wait`): the driver, before it says that a checkpoint is complete.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from torch import Tensor
from torch.utils._pytree import tree_map

from agapo.errors import UserError


class BackgroundWriter(TorchCheckpointEngine):
    """DeepSpeed's way to write files, a moment later."""

    def __init__(self) -> None:
        super().__init__()
        # One thread: files of one disk, one after the other.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: list[Future[None]] = []

    def save(self, state_dict: Any, path: str) -> None:
        """Copy what is to be written, and return."""
        self._writing.append(self._thread.submit(_write, copied(state_dict), Path(path)))

    def preserves_storage_sharing(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether DeepSpeed is to clone views before it hands them over: they are copied anyway."""
        return False

    def written(self, *, wait: bool) -> bool:
        """Return whether all files are there, at once or, with `wait`, once they are.

        Raises UserError where one could not be written.
        """
        if not wait and not all(file.done() for file in self._writing):
            return False
        try:
            for file in self._writing:
                file.result()
        except OSError as error:
            raise UserError(
                f"checkpoint: {error.filename or 'a file'} could not be written ({error.strerror or error}); make room "
                "for it, and run again to go on from the checkpoint before it"
            ) from error
        # After a failure they stay: who asks again hears of it again.
        self._writing = []
        return True


def copied(state: Any) -> Any:
    """Return the state with copies of its tensors in the host's memory; what was one tensor is one copy."""
    seen: dict[tuple[Any, ...], Tensor] = {}

    def copy(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        mark = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
        if mark not in seen:
            seen[mark] = value.detach().to("cpu", copy=True)
        return seen[mark]

    return tree_map(copy, state)


def _write(state: Any, path: Path) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
