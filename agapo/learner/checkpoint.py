"""Checkpoints that appear complete or not at all.

checkpoints/step-000040/state.json     what the main loop needs
                       /state/...      what DeepSpeed wrote: weights and optimizer, each rank's share
checkpoints/latest                     the name of the newest complete one, moved last
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agapo.errors import UserError

LATEST = "latest"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    path: Path
    state: dict[str, Any]


def save_checkpoint(
    directory: Path, step: int, state: dict[str, Any], save_learner: Callable[[Path], None], *, keep: int
) -> Path:
    """Write the checkpoint of a step, then point `latest` at it, then delete all but the newest `keep`.

    `save_learner` writes the learner's state below the directory that it is given. A crash at any moment leaves
    the previous checkpoint in place.
    """
    final = directory / f"step-{step:06d}"
    unfinished = directory / f".{final.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_learner(unfinished)
    if not any(unfinished.iterdir()):
        raise UserError(f"{directory}: the learner's hosts do not write to it; put run.output on a shared file system")
    _write_synced(unfinished / "state.json", json.dumps(state, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    _write_synced(directory / ".latest", final.name)
    (directory / ".latest").replace(directory / LATEST)
    _prune(directory, keep, final)
    return final


def latest_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint, None when there is none.

    Raises UserError when `latest` names one that is not there.
    """
    pointer = directory / LATEST
    if not pointer.exists():
        return None
    path = directory / pointer.read_text().strip()
    try:
        return Checkpoint(path, json.loads((path / "state.json").read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{pointer}: names {path.name}, which is not whole ({error}); name another one in it") from None


def _write_synced(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _prune(directory: Path, keep: int, newest: Path) -> None:
    for old in sorted(directory.glob("step-*"))[:-keep]:
        if old != newest:
            shutil.rmtree(old, ignore_errors=True)
