"""What made a run: versions, git revision, command, seed; and each later start, with what it changed."""

import hashlib
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import agapo
from agapo.recipe import Recipe, fingerprint
from agapo.recipe.keys import Change
from agapo.tracking.files import read_json, write_json_atomic

PACKAGES = ("torch", "transformers", "ray", "deepspeed", "trl", "wandb", "vllm")
"""Packages whose versions decide what a run computes."""


def write_provenance(path: Path, recipe: Recipe, recipe_path: Path) -> None:
    """Note what begins the run in folder `path`."""
    identity = {"fingerprint": fingerprint(recipe), "stage": recipe.stage, "seed": recipe.run.seed}
    if template := template_mark(recipe):
        identity["chat_template"] = template
    write_json_atomic(path / "provenance.json", {**identity, **_launch(recipe_path), "history": []})


def append_history(
    path: Path, recipe: Recipe, recipe_path: Path, changes: Sequence[Change], from_step: int | None
) -> None:
    """Note a later start of the run, and the changed keys with the step from which they count."""
    provenance = read_json(path / "provenance.json") or {}
    start = _launch(recipe_path)
    if changes:
        start["from_step"] = from_step
        start["changes"] = [{"key": key, "old": old, "new": new} for key, old, new in changes]
    provenance["fingerprint"] = fingerprint(recipe)
    provenance["history"] = [*provenance.get("history", []), start]
    write_json_atomic(path / "provenance.json", provenance)


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


def noted_start(run: Path) -> str | None:
    """Return the model that the run in folder `run` began with: a folder, where it lies now, or a hub name."""
    start = (read_json(run / "provenance.json") or {}).get("start")
    return str((run / start).resolve()) if start and start.startswith("..") else start


def template_mark(recipe: Recipe) -> str | None:
    """Return a hash of the text of `model.chat_template`; None without one, or where it cannot be read."""
    try:
        return hashlib.sha256(Path(recipe.model.chat_template or "").read_bytes()).hexdigest()[:12]
    except OSError:
        return None
