"""The first process of a container: it has Python loaded, and forks a process for each program.

A fork costs a millisecond where a new interpreter costs twenty. The child confines itself before it reads a word from
outside, and is killed when its job is over. Since its call filter leaves it no way to fork, to signal or to share
memory, files in /tmp are all that it could hand to the next: where it left any, the container is reported as `dirty`
and thrown away.

On the socket at descriptor 0 a message is `job` with the child's descriptors attached, or `end`; the answers are
`clean` or `dirty`.
"""

import contextlib
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable

_MAX_DESCRIPTORS = 8


def main() -> None:
    """Serve until the other side hangs up. Arguments: the role (a module of `inside`), what `confine` takes (JSON)."""
    module = importlib.import_module(f".{sys.argv[1]}", __package__)
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    child = 0
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 16, _MAX_DESCRIPTORS)
        if message == b"job":
            child = _fork(module.main, sys.argv[2], descriptors, control)
        elif message == b"end":
            child = _end(child)
            control.send(b"dirty" if any(os.scandir("/tmp")) else b"clean")
        else:
            return


def _fork(role_main: Callable[..., None], confinement: str, descriptors: list[int], control: socket.socket) -> int:
    child = os.fork()
    if child:
        for descriptor in descriptors:
            os.close(descriptor)
        return child
    try:
        control.close()
        role_main(confinement, *descriptors)
    finally:
        os._exit(0)


def _end(child: int) -> int:
    if not child:
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 0
