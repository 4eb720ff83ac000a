"""Workers that are forks behave as processes started anew do, and never outlive what they belong to."""

import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agapo.forking.driver import ForkServer, start_forks

REPORT = """
import json, os, random, signal, sys
import numpy
print(json.dumps({
    "argv": sys.argv, "name": __name__, "folder": os.getcwd(), "path": sys.path[0], "color": os.environ.get("COLOR"),
    "stdin": sys.stdin.read(), "had": sorted({"torch", "deepspeed", "ray"} & set(sys.modules)),
    "draws": [random.random(), numpy.random.random()], "group": os.getpgrp() == os.getpid(),
    "masked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
}))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    running = ForkServer()
    yield running
    running.close()


def _command(server: ForkServer, script: Path, *arguments: str) -> list[str]:
    return [*shlex.split(server.executable), str(script), *arguments]


def _run(server: ForkServer, tmp_path: Path, text: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(text)
    command = _command(server, script, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_a_fork_is_what_a_new_interpreter_would_be_but_for_its_imports(server: ForkServer, tmp_path: Path):
    options = {"input": "hello", "cwd": tmp_path, "env": {**os.environ, "COLOR": "green"}}
    first, second = (json.loads(_run(server, tmp_path, REPORT, "a b", "--c", **options).stdout) for _ in range(2))
    assert first["had"] == ["deepspeed", "torch"]
    assert first["argv"] == [str(tmp_path / "script.py"), "a b", "--c"]
    assert (first["name"], first["folder"], first["path"]) == ("__main__", str(tmp_path), str(tmp_path))
    assert (first["color"], first["stdin"], first["group"]) == ("green", "hello", True)
    # The server blocks SIGTERM; its forks have their client's mask.
    assert signal.SIGTERM not in first["masked"]
    assert not set(first["draws"]) & set(second["draws"])


def test_a_fork_ends_as_its_client_is_seen_to_end(server: ForkServer, tmp_path: Path):
    assert _run(server, tmp_path, "raise SystemExit(7)").returncode == 7
    assert _run(server, tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)").returncode == -9
    failed = _run(server, tmp_path, "raise ValueError('no')")
    assert failed.returncode == 1
    assert failed.stderr.endswith("ValueError: no\n")


def test_a_fork_ends_with_its_client_and_with_the_server(server: ForkServer, tmp_path: Path):
    client, worker = _sleeper(server, tmp_path)
    client.kill()
    client.wait()
    _gone(worker)

    other = ForkServer()
    client, worker = _sleeper(other, tmp_path)
    other.close()
    _gone(worker)
    assert client.wait(timeout=30) == 1


def test_clients_that_end_early_or_all_at_once_do_not_disturb_the_server(server: ForkServer, tmp_path: Path):
    address = shlex.split(server.executable)[-1]
    for said in (b"", b"abc", struct.pack("!Q", 1000) + b"{"):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(address)
            link.sendall(said)
    # Clients that die just as their workers end.
    sleepers = [_sleeper(server, tmp_path) for _ in range(8)]
    for client, worker in sleepers:
        os.kill(worker, signal.SIGKILL)
        client.kill()
    for client, worker in sleepers:
        client.wait()
        _gone(worker)
    assert _run(server, tmp_path, "print('still here')").stdout == "still here\n"


def test_without_a_server_a_client_is_an_ordinary_interpreter(tmp_path: Path):
    server = ForkServer()
    server.close()
    done = _run(server, tmp_path, "import sys; print(sys.argv[1:], 'torch' in sys.modules)", "x")
    assert done.stdout == "['x'] False\n"


def test_the_server_ends_with_its_driver_and_not_at_sigterm():
    code = """
import os, time
from agapo.forking.driver import ForkServer
print(ForkServer()._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        server = psutil.Process(int(driver.stdout.readline()))
        server.terminate()
        time.sleep(1)
        assert server.is_running()
        driver.kill()
    _gone(server.pid)


def test_workers_of_another_cluster_are_not_forked():
    assert start_forks("auto") is None


def test_a_fork_learns_from_its_own_environment_that_there_is_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    server = ForkServer()
    text = "from agapo.hub import missing_way\nfrom huggingface_hub import constants\n"
    text += "print(constants.HF_HUB_OFFLINE, missing_way(), constants.HF_HUB_OFFLINE)"
    done = _run(server, tmp_path, text, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    server.close()
    assert done.stdout == "False  True\n", done.stderr


def test_where_a_socket_has_no_place_workers_are_not_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    # A test before this one may have started this process's own, which Ray's workers here still come from.
    monkeypatch.setattr("agapo.forking.driver._running", [])
    assert start_forks(None) is None


def _sleeper(server: ForkServer, tmp_path: Path) -> tuple[subprocess.Popen[str], int]:
    """Return a client, and the id of its worker, which sleeps."""
    script = tmp_path / "sleep.py"
    script.write_text("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    client = subprocess.Popen(_command(server, script), stdout=subprocess.PIPE, text=True)
    assert client.stdout
    return client, int(client.stdout.readline())


def _gone(pid: int) -> None:
    until = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, f"process {pid} is still there"
        time.sleep(0.05)
