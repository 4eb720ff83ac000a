"""Checkpoints that appear complete or not at all.

checkpoints/step-000040/state.json     what the main loop needs, and who wrote the files: ranks, ZeRO stage, sizes
                       /state/...      what DeepSpeed or the trainer wrote: weights and optimizer, each rank's share
checkpoints/latest                     the name of the newest complete one, moved last

Complete means: every rank's files are there, by name, with all their bytes. It is looked at before `latest` moves, and
again before a run goes on.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agapo.errors import UserError
from agapo.recipe.sharding import can_be_divided_anew

if TYPE_CHECKING:
    from torch import Tensor

LATEST = "latest"
STATE = "state.json"
WRITTEN = "written"
"""The key of `state.json` under which `Written` stands."""


@dataclass(frozen=True)
class Saved:
    """What the ranks of a learner say they have written."""

    ranks: int
    zero_stage: int
    """The ZeRO stage that ran: 0 shards nothing."""
    files: Sequence[str]
    """Every rank's files, below the checkpoint's folder."""


@dataclass(frozen=True)
class Written:
    """Who wrote a checkpoint, and what."""

    ranks: int
    zero_stage: int
    files: dict[str, int]
    """Bytes of each file that resuming needs, by its path below the checkpoint's folder."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    path: Path
    state: dict[str, Any]
    written: Written


@dataclass(frozen=True)
class Unfinished:
    """A checkpoint whose ranks' files may still be under way."""

    folder: Path
    """Where they are written."""
    final: Path
    """Where the checkpoint appears."""
    state: dict[str, Any]
    saved: Saved


def save_checkpoint(
    directory: Path, step: int, state: dict[str, Any], save_learner: Callable[[Path], Saved], *, keep: int
) -> Path:
    """Write the checkpoint of a step, then point `latest` at it, then delete all but the newest `keep`.

    `save_learner` writes the learner's state below the directory that it is given. A crash at any moment leaves
    the previous checkpoint in place. Raises UserError where a file of a rank is not there afterwards, or empty.
    """
    return complete_checkpoint(begin_checkpoint(directory, step, state, save_learner), keep=keep)


def begin_checkpoint(
    directory: Path, step: int, state: dict[str, Any], save_learner: Callable[[Path], Saved]
) -> Unfinished:
    """Have the learner write the files of a step's checkpoint, or begin to; `complete_checkpoint` does the rest."""
    for abandoned in directory.glob(".step-*.unfinished"):
        shutil.rmtree(abandoned, ignore_errors=True)
    final = directory / f"step-{step:06d}"
    folder = directory / f".{final.name}.unfinished"
    folder.mkdir(parents=True)
    return Unfinished(folder, final, state, save_learner(folder))


def complete_checkpoint(unfinished: Unfinished, *, keep: int) -> Path:
    """Let a checkpoint whose files are written appear, as `save_checkpoint` says."""
    folder, final, saved, directory = unfinished.folder, unfinished.final, unfinished.saved, unfinished.final.parent
    files = {name: _bytes(folder / name) for name in saved.files}
    _require_all(directory, files)
    written = {"ranks": saved.ranks, "zero_stage": saved.zero_stage, "files": files}
    _write_synced(folder / STATE, json.dumps({**unfinished.state, WRITTEN: written}, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)
    _write_synced(directory / ".latest", final.name)
    (directory / ".latest").replace(directory / LATEST)
    _prune(directory, keep, final)
    return final


def latest_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint, None when there is none.

    Raises UserError when `latest` names one that is not there, or lacks a file or bytes of one.
    """
    pointer = directory / LATEST
    if not pointer.exists():
        return None
    return read_checkpoint(directory / pointer.read_text().strip(), pointer)


def steps_of(directory: Path) -> dict[int, Path]:
    """Return the folder of each step that has a checkpoint, in order."""
    return {int(path.name.removeprefix("step-")): path for path in sorted(directory.glob("step-*"))}


def read_checkpoint(path: Path, pointer: Path | None = None) -> Checkpoint:
    """Return a checkpoint. Raises UserError where it is not complete: `pointer` is the file that names it, if any."""
    try:
        state = json.loads((path / STATE).read_text())
        written = Written(**state.pop(WRITTEN))
    except (OSError, ValueError) as error:
        raise _not_whole(pointer, path, str(error)) from None
    except KeyError:
        raise _not_whole(pointer, path, f"{STATE} does not say which files belong to it") from None
    for name, size in written.files.items():
        if (found := _bytes(path / name)) != size:
            raise _not_whole(pointer, path, f"{name} is not there" if not found else f"{name}: {found} of {size} bytes")
    return Checkpoint(path, state, written)


def divided_alike(
    checkpoint: Checkpoint, *, ranks: int, zero_stage: int, section: Literal["learner", "training"]
) -> bool:
    """Return whether the learner that goes on is divided as the one that wrote the checkpoint, so that it can read it.

    Shards of weights and optimizer fit only as many ranks under the same ZeRO stage; without ZeRO any number of ranks
    reads the whole. Other shards have to be divided anew (`agapo.learner.universal`). Raises UserError where that is
    not possible either. `section`: the recipe's that holds `ranks` and `zero_stage`.
    """
    then = checkpoint.written
    if (then.ranks, then.zero_stage) == (ranks, zero_stage) or then.zero_stage == zero_stage == 0:
        return True
    if can_be_divided_anew(then.zero_stage, zero_stage, section):
        return False
    raise UserError(
        f"{checkpoint.path}: written by {_described(then.ranks, then.zero_stage)}, and cannot be read by "
        f"{_described(ranks, zero_stage)}; go on with {section}.ranks={then.ranks} {section}.zero_stage="
        f"{then.zero_stage}"
    )


def deepspeed_files(zero_stage: int, ranks: int, *, bfloat16: bool) -> list[str]:
    """Return the names of the files that the ranks' DeepSpeed engines write together (0.19)."""
    weights = ["mp_rank_00_model_states.pt"]
    if zero_stage == 3:
        weights = [f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in range(ranks)]
    if not zero_stage:
        return weights
    kind = "bf16_" if bfloat16 else ""
    return [*weights, *(f"{kind}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(ranks))]


def _described(ranks: int, zero_stage: int) -> str:
    return f"{ranks} rank{'s' if ranks > 1 else ''} {f'under ZeRO {zero_stage}' if zero_stage else 'without ZeRO'}"


def _bytes(path: Path) -> int:
    """Return the size of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _require_all(directory: Path, files: dict[str, int]) -> None:
    lacking = [name for name, size in files.items() if not size]
    if lacking:
        raise UserError(
            f"{directory}: {lacking[0]} is not there, or empty ({len(lacking)} of {len(files)} files of the ranks are "
            "not); put run.output on a file system that the hosts of all ranks share, and look whether it is full"
        )


def _not_whole(pointer: Path | None, path: Path, reason: str) -> UserError:
    if pointer is None:
        return UserError(f"{path}: is not whole ({reason}); give another --step")
    others = sorted(other.name for other in pointer.parent.glob("step-*") if other != path)
    mend = f"write the name of another one into it ({', '.join(others)})" if others else "bring it back"
    return UserError(
        f"{pointer}: names {path.name}, which is not whole ({reason}); {mend}, or begin anew with another run.name="
    )


def _write_synced(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _prune(directory: Path, keep: int, newest: Path) -> None:
    for old in sorted(directory.glob("step-*"))[:-keep]:
        if old != newest:
            shutil.rmtree(old, ignore_errors=True)


def deepspeed_weights(checkpoint: Checkpoint, tag: str) -> "dict[str, Tensor]":
    """Return the trained weights that the ranks' DeepSpeed engines wrote below `tag`, whole, by name.

    In the model's type; under ZeRO-3, where each rank has a share, in float32.
    """
    import torch

    if checkpoint.written.zero_stage == 3:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        return dict(
            get_fp32_state_dict_from_zero_checkpoint(str(checkpoint.path), tag, exclude_frozen_parameters=True) or {}
        )
    (name,) = deepspeed_files(0, 1, bfloat16=False)
    return torch.load(checkpoint.path / tag / name, map_location="cpu", weights_only=False)["module"]
