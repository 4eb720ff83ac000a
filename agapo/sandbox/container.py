"""One container: a Python process in namespaces of its own, made by bubblewrap, that forks one for each job.

It sees the interpreter's own files read-only, a private /tmp of bounded size, and nothing else: no network, no other
process, no /proc, no environment, no home. A job's process starts as the user that we are and, where that is root,
becomes a user of its own before it reads its first message (`inside/confine.py`), where limits and call filter are too.
"""

import compileall
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from agapo.sandbox.inside import seccomp

_INSIDE = Path(__file__).parent / "inside"
_MOUNTED = "/sandbox/inside"
_USERS = 0x70000000
"""Ids that no system gives out; each container has the one of its process id."""
_START = "import sys; sys.path.insert(0, '/sandbox'); from inside import forkserver; forkserver.main()"
_FILES = 64 << 20
_LEAVE_S = 1.0


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    cpu_s: int = 10
    """Processor seconds."""
    wall_s: float = 20.0
    """Seconds from its start to its end; then it is killed."""
    memory_mb: int = 1024
    """Address space."""
    tmp_mb: int = 64
    """Size of its /tmp."""


class Container:
    """A running container, which does one job at a time. Dies with the thread that started it."""

    def __init__(self, role: str, limits: Limits, groups: Sequence[Path]):
        """Start it; `role` is the module of `inside` that its children run, `groups` are control groups to join.

        Raises OSError where bubblewrap cannot be started.
        """
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [*_bubblewrap(limits.tmp_mb), _interpreter(), "-I", "-S", "-c", _START, role]
        with theirs:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _script(groups), "sh", _confinement(limits), *command],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
            )

    def give(self, descriptors: Sequence[int]) -> None:
        """Begin a job: a new process with these descriptors. Raises OSError when the container is gone."""
        socket.send_fds(self._control, [b"job"], descriptors)

    def end(self, timeout_s: float) -> bool:
        """End the job; return whether the container is fit for another."""
        self._control.settimeout(timeout_s)
        try:
            self._control.send(b"end")
            return self._control.recv(16) == b"clean"
        except OSError:
            return False

    def kill(self) -> None:
        """End all that is in it.

        The fork server leaves when its socket closes, and its namespace dies with it. Where it does not, bubblewrap is
        killed; its inner process then dies as well, but is left to the host's first process to be reaped.
        """
        self._control.close()
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _script(groups: Sequence[Path]) -> str:
    """A shell's `$$` is the process id that bubblewrap will have: the groups take it, and the user id comes from it."""
    joins = "".join(f"echo $$ >'{path}' 2>/dev/null; " for path in groups)
    user = f"$(($$ + {_USERS}))" if os.geteuid() == 0 else "0"
    return f'{joins}confinement=$(printf "$1" {user}); shift; exec "$@" "$confinement"'


def _confinement(limits: Limits) -> str:
    """What `confine` takes, with a place for the user id."""
    rest = json.dumps({"cpu_s": limits.cpu_s, "memory": limits.memory_mb << 20, "file_size": _FILES})
    return f'{{"user": %d, {rest[1:]}'


@lru_cache
def _bubblewrap(tmp_mb: int) -> list[str]:
    compileall.compile_dir(_INSIDE, quiet=2)  # a container cannot keep what it compiles
    command = [shutil.which("bwrap") or "bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
    if os.geteuid():
        command += ["--unshare-user"]
    else:
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        command += ["--cap-add", "CAP_KILL"]
    for path, place in [(path, path) for path in _system_files()] + _time_zones():
        for parent in reversed(Path(place).parents):  # those that bubblewrap makes by itself are its own user's alone
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--ro-bind", path, place]
    command += ["--ro-bind", str(_INSIDE), _MOUNTED, "--perms", "0755", "--dir", "/dev"]
    for device in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"):
        command += ["--dev-bind", device, device]
    if _has_option("--size"):  # an older bubblewrap would give it half of the memory
        command += ["--size", str(tmp_mb << 20), "--tmpfs", "/tmp", "--chmod", "1777", "/tmp"]
    else:
        command += ["--dir", "/tmp"]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp"]


@lru_cache
def _has_option(name: str) -> bool:
    shown = subprocess.run(["bwrap", "--help"], capture_output=True, text=True, check=False)
    return f" {name} " in shown.stdout + shown.stderr


@lru_cache
def _interpreter() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return os.path.realpath(sys.executable)


@lru_cache
def _system_files() -> list[str]:
    """What the interpreter needs: itself, its library, the C library."""
    wanted = [_interpreter(), f"{sys.base_prefix}/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
    return list(dict.fromkeys(path for path in wanted if Path(path).exists()))


@lru_cache
def _time_zones() -> list[tuple[str, str]]:
    """Where this machine has the rules of time zones, in the system or in the package `tzdata`, and where they go."""
    package = importlib.util.find_spec("tzdata")
    packaged = [f"{place}/zoneinfo" for place in (package and package.submodule_search_locations) or ()]
    found = [path for path in (*zoneinfo.TZPATH, *packaged) if Path(path).is_dir()]
    return [(path, "/usr/share/zoneinfo") for path in found[:1]]


def problem() -> str | None:
    """Return what keeps containers from being made on this machine, in one line, or None."""
    if sys.platform != "linux":
        return f"the sandbox needs Linux, this is {platform.system()}"
    if not seccomp.is_supported():
        return f"the sandbox has no system-call table for {platform.machine()}"
    if shutil.which("bwrap") is None:
        return (
            "bubblewrap is not installed (Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap)"
        )
    tried = subprocess.run(
        [*_bubblewrap(1), _interpreter(), "-I", "-S", "-c", "pass"], capture_output=True, text=True, check=False
    )
    if tried.returncode == 0:
        return None
    said = next(iter(tried.stderr.strip().splitlines()), f"exit status {tried.returncode}")
    return f"bubblewrap cannot make namespaces here ({said})"
