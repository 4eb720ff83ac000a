"""Two hosts on this machine: network namespaces with addresses of their own, joined by a cable, each with its own Ray.

What is real: two network stacks, so that a cut cable loses packets and answers nothing, as a dead switch does; two
raylets and object stores; processes that die without a word. What is not: both see the same disk, cores and clock.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PORT = 6379
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    # Ray takes a token that lies in the home folder for the head, and not for those that join it.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": uuid.uuid4().hex,
    # The head takes a host that does not answer for dead after three seconds; by default after a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
WITHOUT = ("RAY_ADDRESS", "PYTHONPATH")
"""A host's Ray is to find our code in what travels to it, and nowhere else."""


class Host:
    """A network namespace, its end of the cable, and what runs in it."""

    def __init__(self, name: str, address: str, folder: Path):
        self.name, self.address, self.folder = name, address, folder

    def command(self, *words: object) -> list[str]:
        """Return a command that runs in this host."""
        return ["nsenter", f"--net=/var/run/netns/{self.name}", *map(str, words)]

    def ip(self, *words: str) -> None:
        _run(*self.command("ip", *words))

    def connect(self, plugged: bool = True) -> None:
        """Plug the cable in, or pull it: nobody is told, packets are lost."""
        self.ip("link", "set", "cable", "up" if plugged else "down")

    def start_ray(
        self, *, of: "Host | None" = None, cpus: int = 2, private: Path | None = None, dashboard: bool = False
    ) -> None:
        """Start Ray, in the cluster `of` a head or as the head; `private` is a folder that is this host's alone."""
        where = [f"--address={of.ray}"] if of else ["--head", f"--port={PORT}", f"--include-dashboard={dashboard}"]
        start = [*RAY, "start", *where]
        start += [f"--node-ip-address={self.address}", f"--num-cpus={cpus}", "--object-store-memory=100000000"]
        start += [f"--temp-dir={self.folder}", "--disable-usage-stats"]
        if dashboard:
            # By default it answers to this host alone.
            start.append(f"--dashboard-host={self.address}")
        if private:
            mounted = 'mount -t tmpfs private "$0" && exec "$@"'
            start = ["unshare", "--mount", "sh", "-c", mounted, str(private), *start]
        _run(*self.command(*start), timeout=60)

    @property
    def ray(self) -> str:
        """The address of the cluster that this host is the head of."""
        return f"{self.address}:{PORT}"

    def processes(self) -> list[int]:
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return [int(word) for word in found.stdout.split()]

    def pull_the_plug(self) -> None:
        """End every process of the host at once."""
        until = time.monotonic() + 20
        while (running := self.processes()) and time.monotonic() < until:
            for process in running:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)


def _run(*command: str, timeout: float = 20) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, env=environment(), cwd=ROOT
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def environment() -> dict[str, str]:
    """What processes of the hosts have."""
    return {name: value for name, value in os.environ.items() if name not in WITHOUT} | ENVIRONMENT


def namespaces_problem() -> str | None:
    """Return why this machine lets us make no hosts, None where it does."""
    if not (shutil.which("ip") and shutil.which("nsenter")):
        return "no `ip` or `nsenter` here"
    name = f"agapo-{os.getpid()}-try"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"`ip netns add` is not permitted here ({done.stderr.strip()})"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Yield two hosts that reach each other, without Ray; nothing of them stays. Skips where none can be made."""
    if problem := namespaces_problem():
        pytest.skip(problem)
    # Ray's sockets lie there, and the name of a socket may have 107 letters.
    folder = Path(tempfile.mkdtemp(prefix="two-", dir="/tmp"))
    first, second = (
        Host(f"agapo{os.getpid()}{letter}", f"10.77.0.{number}", folder / letter)
        for number, letter in enumerate("ab", start=1)
    )
    try:
        for host in (first, second):
            _run("ip", "netns", "add", host.name)
        # Their names are local to a namespace, and may have 15 letters.
        _run(
            "ip",
            "-n",
            first.name,
            "link",
            "add",
            "cable",
            "type",
            "veth",
            "peer",
            "name",
            "cable",
            "netns",
            second.name,
        )
        for host in (first, second):
            host.ip("addr", "add", f"{host.address}/24", "dev", "cable")
            host.ip("link", "set", "lo", "up")
            host.connect()
        yield first, second
    finally:
        for host in (first, second):
            if Path("/var/run/netns", host.name).exists():
                host.pull_the_plug()
                _run("ip", "netns", "del", host.name)
        shutil.rmtree(folder, ignore_errors=True)
