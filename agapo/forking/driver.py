"""Starts the server for a driver, and says how Ray is to start its workers."""

import atexit
import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

CLIENT = Path(__file__).with_name("client.py")
GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
"""What workers have besides, wherever they run."""


class ForkServer:
    """A server; it ends with this process, or when it is closed."""

    def __init__(self, *, trainers: bool = True) -> None:
        """Start it; it imports what it has to meanwhile, what SFT and DPO train with too if `trainers`.

        Raises OSError where there is no place for its socket: no folder for temporary files, or one with a long name.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="agapo-forks-"))
        self._address = self._folder / "server"
        try:
            # Clients that come before the server has started wait for it.
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(self._address))
                listener.listen(128)
                self._process = self._start(listener.fileno(), trainers)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _start(self, listener: int, trainers: bool) -> "subprocess.Popen[bytes]":
        # Schedulers send SIGTERM to every process of a job: here it is for the driver. The server inherits the mask.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "agapo.forking.server", str(listener), *(["trainers"] * trainers)],
                pass_fds=[listener],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | worker_environment() | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""},
                # As is Ctrl-C in a terminal.
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def executable(self) -> str:
        """What stands for `python` in Ray's command lines (`runtime_env.py_executable`)."""
        return shlex.join([sys.executable, "-I", "-S", str(CLIENT), str(self._address)])

    def close(self) -> None:
        """End the server, and with it the workers that are left."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


_running: list[ForkServer] = []


def start_forks(address: str | None, *, trainers: bool = True) -> ForkServer | None:
    """Start this process's server (see `ForkServer`), unless it has one; None where workers are not forked.

    That is in the cluster at an `address`, where there is a GPU, on other systems than Linux, and where a server has no
    place for its socket. The earlier it is called, the more of the imports are done when Ray starts workers.
    """
    if address is not None or sys.platform != "linux" or any(path.exists() for path in GPU_DRIVERS):
        return None
    if not _running:
        with contextlib.suppress(OSError):
            _running.append(ForkServer(trainers=trainers))
    return _running[0] if _running else None


@atexit.register
def stop_forks() -> None:
    """End this process's server, if it has one."""
    while _running:
        _running.pop().close()


def worker_environment() -> dict[str, str]:
    """Return what workers on this machine have besides: `agapo`, `rewards` and `data` are found from here."""
    paths = [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}
