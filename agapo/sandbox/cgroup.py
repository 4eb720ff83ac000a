"""A control group for the containers of this process, where the kernel and our rights allow one.

It bounds what they have together, memory that no single process owns (pipes, files in memory) included. Where there
is none the other limits hold all the same: a candidate is one process, and may not make another.
"""

import atexit
import contextlib
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_NAME = "agapo-sandbox-"


def make_group(memory: int, processes: int) -> list[Path]:
    """Return the `cgroup.procs` files that a process joins by writing its id; none where groups cannot be made."""
    if (_ROOT / "cgroup.controllers").exists():
        return _make([(_own("") or _ROOT, {"memory.max": memory, "pids.max": processes})])
    kinds = (("memory", {"memory.limit_in_bytes": memory}), ("pids", {"pids.max": processes}))
    return _make([(parent, limits) for kind, limits in kinds if (parent := _own(kind))])


def _own(kind: str) -> Path | None:
    """The group that this process is in: version 2 has one (kind is empty), version 1 one a kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kind in kinds.split(",") and (_ROOT / kind / path.lstrip("/")).is_dir():
                return _ROOT / kind / path.lstrip("/")
    return None


def _make(wanted: list[tuple[Path, dict[str, int]]]) -> list[Path]:
    joined: list[Path] = []
    for parent, limits in wanted:
        _remove_left_behind(parent)
        group = parent / f"{_NAME}{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir(exist_ok=True)
            atexit.register(_remove, group)
            for name, value in limits.items():
                (group / name).write_text(str(value))
            joined.append(group / "cgroup.procs")
    return joined


def _remove_left_behind(parent: Path) -> None:
    """Verifier workers are killed, and then cannot clean up after themselves."""
    for group in parent.glob(f"{_NAME}*"):
        if not Path("/proc", group.name.removeprefix(_NAME)).exists():
            _remove(group)


def _remove(group: Path) -> None:
    with contextlib.suppress(OSError):
        group.rmdir()
