"""The last steps of confinement, taken by the process itself before it sees a line of foreign code.

bubblewrap gives the namespaces and the read-only root; the rest is here: an own user id, limits, the call filter.
"""

import os
import re
import resource

from . import seccomp

_STACK = 64 << 20
"""Deep recursion is a common way to solve things."""
_OPEN_FILES = 64
_THREADS = 64


def confine(user: int, cpu_s: int, memory: int, file_size: int) -> None:
    """Give up all rights for good. Raises OSError where one of the steps is refused.

    `user` is the user id to become, one for each container, since the kernel counts processes by user (0: keep the one
    we have, which is an ordinary user's); `cpu_s` seconds of processor time, `memory` bytes of address space,
    `file_size` bytes of the largest file.
    """
    _limit("CPU", cpu_s, cpu_s + 1)  # the soft limit's signal can be caught, the hard one's cannot
    _limit("AS", memory)
    _limit("FSIZE", file_size)
    # A program may ask for more, as many do that recurse deeply: address space bounds it.
    _limit("STACK", _STACK, resource.getrlimit(resource.RLIMIT_STACK)[1])
    _limit("NOFILE", _OPEN_FILES)
    _limit("CORE", 0)
    _limit("MEMLOCK", 0)
    _limit("MSGQUEUE", 0)
    if user or _counts_by_namespace():
        _limit("NPROC", _THREADS)
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if 0 in os.getresuid() or 0 in os.getresgid():
        raise PermissionError("refusing to run foreign code as root")
    seccomp.install()


def _counts_by_namespace() -> bool:
    """Whether the kernel counts our processes apart from those of the same user outside (since 5.14)."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(re.match(r"\d*", minor)[0] or 0)) >= (5, 14)  # pyright: ignore[reportOptionalSubscript]


def _limit(name: str, soft: int, hard: int | None = None) -> None:
    kind = getattr(resource, f"RLIMIT_{name}")
    bound = resource.getrlimit(kind)[1]
    hard = soft if hard is None else hard
    if bound != resource.RLIM_INFINITY:
        soft, hard = min(soft, bound), min(hard, bound)
    resource.setrlimit(kind, (soft, hard))
