"""A run's folder: whose it is, what made it, where its files lie, and that one process at a time uses it.

    outputs/rl/tiny/
      recipe.yaml           the resolved recipe: every key, overrides and presets applied
      provenance.json       versions, git revision, command, seed, fingerprint; `history` has the later starts
      metrics.jsonl         one line of numbers a step
      rollouts.jsonl        one line a sampled response
      reward_errors.jsonl   one line an error met in scoring
      summary.json          written at the end, with `"finished": true`
      learning_curve.png
      checkpoints/ best/    what a resumed run needs; the best weights
      hf/                   the exported model
      wandb/

A directory belongs to one recipe, by its fingerprint: another recipe's run is never resumed silently.
"""

import fcntl
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import yaml

import agapo
from agapo.errors import UserError
from agapo.recipe import Recipe, fingerprint
from agapo.recipe.base import FREE_BEFORE_TRAINING, may_differ
from agapo.tracking.files import keep_steps_up_to, read_json, write_json_atomic, write_text_atomic

PACKAGES = ("torch", "transformers", "ray", "deepspeed", "trl", "wandb", "vllm")
"""Packages whose versions decide what a run computes."""

ABSENT = "(absent)"


class RunDirectory:
    """The folder of one run, held by this process until `close`. Make one with `RunDirectory.open`."""

    def __init__(self, path: Path, lock: TextIOWrapper, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed
        """Whether the directory was there before, with the same fingerprint."""
        self._lock = lock

    @classmethod
    def open(cls, recipe: Recipe, recipe_path: Path) -> "RunDirectory":
        """Make the recipe's run directory, or re-open it when it holds a run of the same recipe.

        Raises UserError when the folder holds something else, a run of another recipe, or when another
        process uses it.
        """
        path = recipe.run_directory
        _refuse_foreign(path)
        _make(path)
        lock = _take_lock(path)
        try:
            resumed = _record(path, recipe, recipe_path)
        except BaseException:
            lock.close()
            raise
        return cls(path, lock, resumed)

    def close(self) -> None:
        """Let other processes use the directory."""
        self._lock.close()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def provenance(self) -> Path:
        """What made the run."""
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        """One line of numbers a step."""
        return self.path / "metrics.jsonl"

    @property
    def rollouts(self) -> Path:
        """One line a sampled response."""
        return self.path / "rollouts.jsonl"

    @property
    def reward_errors(self) -> Path:
        """One line an error met in scoring."""
        return self.path / "reward_errors.jsonl"

    @property
    def summary(self) -> Path:
        """The result, written at the end."""
        return self.path / "summary.json"

    @property
    def curve(self) -> Path:
        """The learning curve, a picture."""
        return self.path / "learning_curve.png"

    @property
    def checkpoints(self) -> Path:
        """Folder of what a resumed run needs."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Folder of the best weights on the validation questions."""
        return self.path / "best"

    @property
    def hf(self) -> Path:
        """Folder of the exported model (`recipe.hf_directory`)."""
        return self.path / "hf"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return is_finished(self.path)

    def truncate_after(self, step: int) -> None:
        """Drop what was logged after `step`, so that a run resumed from that checkpoint has each step once.

        With no checkpoint to resume from, `truncate_after(-1)` drops everything.
        """
        for path in (self.metrics, self.rollouts, self.reward_errors):
            keep_steps_up_to(path, step)


def is_finished(path: Path) -> bool:
    """Return whether the run in folder `path` came to its end; takes no lock."""
    summary = read_json(path / "summary.json")
    return summary is not None and summary.get("finished") is True


def stored_fingerprint(path: Path) -> str | None:
    """Return the fingerprint of the recipe whose run lies in folder `path`, None where there is no run."""
    provenance = read_json(path / "provenance.json")
    return provenance.get("fingerprint") if provenance else None


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return `(dotted key, old, new)` for each key in which two resolved recipes differ.

    Keys that may differ between a run and its continuation are left out.
    """
    before, after = _flatten(old), _flatten(new)
    pairs = ((key, before.get(key, ABSENT), after.get(key, ABSENT)) for key in {**before, **after})
    return [(key, was, now) for key, was, now in pairs if was != now and not _is_free(key, str(new.get("stage")))]


def _refuse_foreign(path: Path) -> None:
    """A folder with things in it but no run is somebody's: nothing is written there."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; give the run another place with run.name=… or run.output=…")
    content = sorted(item.name for item in path.iterdir() if not _is_ours(item.name)) if path.exists() else []
    if content and not (path / "provenance.json").exists():
        raise UserError(
            f"{path}: holds '{content[0]}' but no run; give the run another name with run.name=…, or empty the folder"
        )


def _is_ours(name: str) -> bool:
    """What a crash while the run was being set up can leave behind."""
    return name == ".lock" or (name.startswith(".") and name.endswith(".tmp"))


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot make the run directory: {error.strerror}; set run.output=…") from None


def _take_lock(path: Path) -> TextIOWrapper:
    """Hold `.lock` as long as the returned file is open; the system lets go when the process ends, however it ends."""
    try:
        lock = (path / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"{path}: cannot be written to: {error.strerror}; set run.output=…") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise UserError(
            f"{path}: is in use by {holder}; wait for it, stop it, or name a new run with run.name=…"
        ) from None
    except OSError:
        # Some cluster file systems have no locks. Refusing to run there would be worse than going without.
        return lock
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return lock


def _record(path: Path, recipe: Recipe, recipe_path: Path) -> bool:
    """Write recipe and provenance; return whether there was a run of the same recipe already."""
    # A directory without provenance is new: nothing else has been written there yet.
    resumed = (path / "provenance.json").exists()
    if resumed and stored_fingerprint(path) != fingerprint(recipe):
        resumed = _has_begun(path)
        if resumed:
            _refuse_other_recipe(path, recipe)
    if resumed:
        _append_history(path, recipe, recipe_path)
    else:
        write_json_atomic(path / "provenance.json", _provenance(recipe, recipe_path))
    write_text_atomic(path / "recipe.yaml", yaml.safe_dump(_resolved(recipe), sort_keys=False, allow_unicode=True))
    return resumed


def _has_begun(path: Path) -> bool:
    """Whether a run has left more than its recipe: what was refused before any work may be mended in place."""
    return any(
        item.name not in ("provenance.json", "recipe.yaml") and not _is_ours(item.name) for item in path.iterdir()
    )


def _has_trained(path: Path) -> bool:
    return is_finished(path) or ((path / "checkpoints").is_dir() and any((path / "checkpoints").iterdir()))


def _refuse_other_recipe(path: Path, recipe: Recipe) -> None:
    changes = _changes_since(path, recipe)
    free = FREE_BEFORE_TRAINING.get(recipe.stage, ())
    if changes and not _has_trained(path) and all(_is_below(key, free) for key, _, _ in changes):
        return
    raise UserError(
        f"{path}: holds a run of another recipe ({_describe(changes)}); "
        f"name a new run with run.name=…, or delete the directory"
    )


def describe_changes(path: Path, recipe: Recipe) -> str:
    """Return `key: old → new` of the first few keys in which a recipe differs from that of the run in folder `path`."""
    return _describe(_changes_since(path, recipe))


def _changes_since(path: Path, recipe: Recipe) -> list[tuple[str, Any, Any]]:
    return changed_keys(_stored_recipe(path), _resolved(recipe))


def _resolved(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", by_alias=True)


def _describe(changes: list[tuple[str, Any, Any]], most: int = 3) -> str:
    if not changes:
        return "its fingerprint differs"
    shown = ", ".join(f"{key}: {_short(old)} → {_short(new)}" for key, old, new in changes[:most])
    return shown + (f", and {len(changes) - most} more" if len(changes) > most else "")


def _short(value: Any, most: int = 60) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _stored_recipe(path: Path) -> dict[str, Any]:
    try:
        stored = yaml.safe_load((path / "recipe.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return leaves by dotted key; an empty section is a leaf, so that it differs from an absent one."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None or not value:
        return {prefix: value} if prefix else {}
    leaves: dict[str, Any] = {}
    for key, item in items:
        leaves |= _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def _is_free(key: str, stage: str) -> bool:
    return _is_below(key, may_differ(stage))


def _is_below(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _append_history(path: Path, recipe: Recipe, recipe_path: Path) -> None:
    provenance = read_json(path / "provenance.json") or {}
    provenance["fingerprint"] = fingerprint(recipe)
    provenance["history"] = [*provenance.get("history", []), _launch(recipe_path)]
    write_json_atomic(path / "provenance.json", provenance)


def _provenance(recipe: Recipe, recipe_path: Path) -> dict[str, Any]:
    identity = {"fingerprint": fingerprint(recipe), "stage": recipe.stage, "seed": recipe.run.seed}
    return {**identity, **_launch(recipe_path), "history": []}


def _launch(recipe_path: Path) -> dict[str, Any]:
    """What is true of one start of the program."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "recipe": str(recipe_path.resolve()),
        "working_directory": str(Path.cwd()),
        "hostname": socket.gethostname(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "packages": _versions(),
        "git": _git(),
    }


def _versions() -> dict[str, str]:
    """Read from the installed packages' metadata: importing them would take seconds."""
    versions = {"agapo": agapo.__version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git() -> dict[str, Any] | None:
    """Revision of the working directory, where the recipe's rewards and data sources come from; None without one."""
    revision = _git_output("rev-parse", "HEAD")
    return {"revision": revision, "dirty": bool(_git_output("status", "--porcelain"))} if revision else None


def _git_output(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
