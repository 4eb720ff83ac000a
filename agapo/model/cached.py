"""Models that are made of others' files, once, in the user's cache: whatever process wants one takes what is there."""

import fcntl
import os
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path


def cached_place(kind: str, name: str, files: Iterable[Path]) -> Path:
    """Return where what is made of these files goes: in the user's cache, a folder a version of them."""
    marks = [f"{file.resolve()}|{file.stat().st_size}|{file.stat().st_mtime_ns}" for file in files]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "agapo" / kind / f"{name}-{sha256(' '.join(marks).encode()).hexdigest()[:12]}"


def made_once(folder: Path, make: Callable[[], None]) -> Path:
    """Return a folder that `make` makes, whole or not at all, where it is not there.

    A host's ranks and actors all want it: one makes it, the others wait.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            make()
    return folder
