"""The process that workers are forks of: `python -m agapo.forking.server LISTENER [trainers]`.

It holds no threads and no state beyond its imports. It ends with its driver, at whose end the pipe to its standard
input closes; a fork ends with the server, and with its client. LISTENER is a file descriptor.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import resource
import runpy
import selectors
import shutil
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

PRELOADED = (
    "transformers.models.exaone4.modeling_exaone4",
    "agapo.rollouts.engines.transformers.engine",
    "deepspeed",
    "agapo.learner.rl.rank",
)
"""What workers would import. Not Ray: its library reads the worker's own environment when it is loaded."""
TRAINERS = ("trl.trainer.sft_trainer", "agapo.learner.trl.preference")
"""What ranks of SFT and DPO would, besides: two and a half seconds."""
DIE_WITH_PARENT = 1
"""Linux's PR_SET_PDEATHSIG."""


class Server:
    """Forks a process for each client."""

    def __init__(self, listener: socket.socket):
        self._listener = listener
        self._clients: dict[int, socket.socket] = {}
        """By the worker's process id."""
        self._woken, self._wake = os.pipe()

    def run(self) -> dict[str, Any] | None:
        """Serve until the driver is gone. Returns None then, and in a fork the request that it is to fulfil."""
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as waiting:
            waiting.register(sys.stdin, selectors.EVENT_READ, "driver")
            waiting.register(self._woken, selectors.EVENT_READ, "ended")
            waiting.register(self._listener, selectors.EVENT_READ, "client")
            while True:
                for key, _ in waiting.select():
                    if waiting.get_map().get(key.fd) is not key:
                        continue  # its worker has ended, and with it this connection, in this very round
                    if key.data == "driver":
                        return self._end()
                    if key.data == "client":
                        client, _ = self._listener.accept()
                        if request := self._serve(client, waiting):
                            return request
                    elif key.data == "ended":
                        os.read(self._woken, 4096)
                        self._bury(waiting)
                    else:
                        self._kill(key.fileobj)
                        waiting.unregister(key.fileobj)

    def _serve(self, client: socket.socket, waiting: selectors.BaseSelector) -> dict[str, Any] | None:
        """Read what a client wants, and fork. Returns it in the fork, None in the server."""
        head, files, _, _ = socket.recv_fds(client, 8, 3)
        wanted = _read(client, *struct.unpack("!Q", head)) if len(head) == 8 else b""
        server = os.getpid()
        worker = os.fork() if wanted else None
        if worker == 0:
            self._become(client, files, server)
            return json.loads(wanted)
        for file in files:
            os.close(file)
        if worker is None:
            client.close()  # it was killed before it had said what it wants
        else:
            self._clients[worker] = client
            waiting.register(client, selectors.EVENT_READ, "hung up")
        return None

    def _become(self, client: socket.socket, files: list[int], server: int) -> None:
        """Be a fork: leave the server's sockets and signals behind, and take the client's standard files."""
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)  # it died before that took effect
        # A session of its own: whoever ends a worker's process group is not to end all of them.
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for link in (self._listener, client, *self._clients.values()):
            link.close()
        os.close(self._woken)
        os.close(self._wake)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)

    def _bury(self, waiting: selectors.BaseSelector) -> None:
        """Tell the clients of workers that have ended how."""
        while self._clients:
            worker, status = os.waitpid(-1, os.WNOHANG)
            if not worker:
                return
            client = self._clients.pop(worker, None)
            if client is None:
                continue  # of what the imports had started
            if client.fileno() in waiting.get_map():
                waiting.unregister(client)
            # A client may be gone itself.
            with contextlib.suppress(OSError):
                client.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))
            client.close()

    def _kill(self, client: Any) -> None:
        """End the worker of a client that is gone."""
        for worker, own in self._clients.items():
            if own is client:
                os.kill(worker, signal.SIGKILL)

    def _end(self) -> None:
        """The driver is gone, perhaps without a moment to tidy up: end what is left of it."""
        for worker in self._clients:
            os.kill(worker, signal.SIGKILL)
        shutil.rmtree(Path(self._listener.getsockname()).parent, ignore_errors=True)


def _read(link: socket.socket, size: int) -> bytes:
    """Return so many bytes; none where the other side ends before."""
    found = b""
    while len(found) < size:
        part = link.recv(size - len(found))
        if not part:
            return b""
        found += part
    return found


def _run(request: dict[str, Any]) -> None:
    """Do in a fork what `python COMMAND` would do."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    signal.pthread_sigmask(signal.SIG_SETMASK, request["masked"])
    resource.setrlimit(resource.RLIMIT_NOFILE, request["open_files"])
    random.seed()
    numpy: Any = sys.modules["numpy"]
    numpy.random.seed()
    sys.argv = request["command"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


def main() -> None:
    """Import, and serve those who have come meanwhile."""
    # What cannot be imported fails where it is used.
    with contextlib.suppress(Exception):
        for name in PRELOADED + (TRAINERS if "trainers" in sys.argv else ()):
            importlib.import_module(name)
    # Objects of the imports are not looked through again, in the forks neither, where that would copy their pages.
    gc.collect()
    gc.freeze()
    if request := Server(socket.socket(fileno=int(sys.argv[1]))).run():
        _run(request)


if __name__ == "__main__":
    main()
