"""The parent's end of one verifier worker: start it, send it a sample, read its replies until a deadline, kill it.

`subprocess`, not `multiprocessing`: it works inside a Ray actor, from any thread and under any `__main__`. A worker
leads a session of its own, so that killing its process group takes along what the reward has started.
"""

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import agapo
from agapo.errors import UserError
from agapo.rewarding.forms import Form
from agapo.rewarding.worker import LENGTH, Outcome, frame

_START_TIMEOUT_S = 120.0
_LOOK_EVERY_S = 0.2
"""How soon a worker's end is noticed when its pipe is kept open by a child of its own, and how soon a close is."""
_MAX_REPLY = 1 << 20


class WorkerDied(Exception):
    """The worker ended, or wrote what is no frame; the message says how."""


class VerifierProcess:
    """One worker process. To be used by one thread, the one that made it: the worker is killed when that ends."""

    def __init__(
        self, terms: Mapping[str, tuple[str, Mapping[str, Any], Form]], *, cwd: str, is_closing: Callable[[], bool]
    ):
        """Start the process (raises OSError where that is not possible); `wait_until_ready` comes next.

        `terms` maps a term's name to 'module:function', its fixed arguments, and the form it reads.
        """
        self._terms = dict(terms)
        self._is_closing = is_closing
        self._buffer = bytearray()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agapo.rewarding.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=cwd,
            env=_environment(),
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._output, select.POLLIN)
        self._writable.register(self._input, select.POLLOUT)

    def wait_until_ready(self) -> list[str]:
        """Wait until every reward is imported; return the terms that judge groups. Raises UserError, WorkerDied."""
        deadline, importing = time.monotonic() + _START_TIMEOUT_S, ""
        try:
            self._send(frame(self._terms), deadline)
            while (reply := self._receive(deadline))[0] == "importing":
                importing = reply[1]
        except WorkerDied as error:
            raise WorkerDied(f"{self._named(importing)}: the verifier worker {error} while importing it") from None
        except TimeoutError:
            raise UserError(f"{self._named(importing)} takes more than {_START_TIMEOUT_S:.0f} s to import") from None
        if reply[0] == "failed":
            raise UserError(reply[1])
        return reply[1]

    def score(self, sample: bytes, deadlines_s: Mapping[str, float]) -> Iterator[Outcome]:
        """Send a sample (a frame) to the terms named in `deadlines_s`, and yield the outcome of each.

        A term's deadline counts from the end of the one before. Raises TimeoutError, WorkerDied.
        """
        for number, seconds in enumerate(deadlines_s.values()):
            deadline = time.monotonic() + seconds
            if not number:
                self._send(frame(list(deadlines_s)) + sample, deadline)
            yield self._receive(deadline)

    def resident_bytes(self) -> int:
        """Return the memory that the worker holds; 0 where that cannot be known."""
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def has_ended(self) -> bool:
        """Whether the process is over. It stays a zombie until `kill`, so that its id is not given to another."""
        return self._exit() is not None

    def kill(self) -> None:
        """Kill the worker and what it started, and free its pipes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()

    def _named(self, term: str) -> str:
        return f"reward '{term}' ('{self._terms[term][0]}')" if term in self._terms else "rewards"

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._writable, deadline)
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise WorkerDied(self._how_it_ended()) from None

    def _receive(self, deadline: float) -> Any:
        size = LENGTH.unpack(self._take(LENGTH.size, deadline))[0]
        if size > _MAX_REPLY:
            raise WorkerDied("wrote something else than a result")
        content = self._take(size, deadline)
        try:
            return pickle.loads(content)
        except Exception:
            raise WorkerDied("wrote something else than a result") from None

    def _take(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._wait(self._readable, deadline)
            chunk = os.read(self._output, 1 << 16)
            if not chunk:
                raise WorkerDied(self._how_it_ended())
            self._buffer += chunk
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _wait(self, poll: select.poll, deadline: float) -> None:
        """Return when the pipe is ready; one that is ready after the deadline, since we were late, is in time."""
        while True:
            left = deadline - time.monotonic()
            if poll.poll(1000 * max(0.0, min(left, _LOOK_EVERY_S))):
                return
            if self._is_closing():
                raise CancelledError
            if left <= 0:
                raise TimeoutError
            if self.has_ended() and not poll.poll(0):
                raise WorkerDied(self._how_it_ended())

    def _exit(self) -> Any:
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # reaped behind our back: the host process ignores SIGCHLD, say
            return os.EX_OK

    def _how_it_ended(self) -> str:
        """Its pipe closes a moment before the process ends."""
        give_up = time.monotonic() + 1
        while (ended := self._exit()) is None and time.monotonic() < give_up:
            time.sleep(0.005)
        if ended is None:
            return "closed its pipe"
        code = getattr(ended, "si_status", 0)
        if getattr(ended, "si_code", os.CLD_EXITED) == os.CLD_EXITED:
            return f"exited with code {code}"
        return f"was killed by {signal.Signals(code).name}"


def _environment() -> dict[str, str]:
    """Find agapo where this process did; one thread a worker, since there are many workers."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "AGAPO_VERIFIER": "1"}
    home = str(Path(agapo.__file__).resolve().parent.parent)
    # An installed agapo is found anyway, and its folder in front would shadow the standard library.
    if Path(home).name not in ("site-packages", "dist-packages"):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), home]))
    return environment
