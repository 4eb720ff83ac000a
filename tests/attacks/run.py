"""Runs every attack as the user that we are, and prints what each did as JSON: `python -m tests.attacks.run`.

A process of its own, so that the same suite runs as root and as an ordinary user, with any interpreter.
"""

import json
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from rewards.unit_tests import score
from tests.attacks.programs import ATTACKS, CANARY

EXPECTED = "EXPECTED-" + os.urandom(6).hex()[:11]
TEST = "def check(candidate):\n    assert candidate(3) == {!r}\n"
HONEST = "def f(x):\n    return x + 1"
LIMITS = {"cpu_s": 1, "wall_s": 2.5, "memory_mb": 256}


def main() -> None:
    os.environ[CANARY] = EXPECTED
    port = _answer_on_loopback()
    before = _own_processes()
    with tempfile.NamedTemporaryFile("w", prefix="AGAPO", dir="/tmp") as canary:
        canary.write(EXPECTED)
        canary.flush()
        Path(canary.name).chmod(0o644)
        for name, program in ATTACKS.items():
            source = program.replace("%r", repr(EXPECTED) if "%r" in program else "").replace("PORT", str(port))
            print(json.dumps({"name": name, **_attack(source)}), flush=True)
        intact = Path(canary.name).read_text() == EXPECTED
    print(json.dumps({"name": "afterwards", "intact": intact, "left": sorted(_own_processes() - before)}), flush=True)


def _attack(source: str) -> dict[str, object]:
    """`%r` stands for the expected value where a program proves by it that it did what it must not."""
    started = time.monotonic()
    found = _run(source, TEST.format(EXPECTED))
    seconds = time.monotonic() - started
    return {
        "score": found,
        "seconds": seconds,
        "then": _run(HONEST, "def check(candidate):\n    assert candidate(3) == 4"),
    }


def _run(source: str, test: str) -> float | None:
    return score([""], [f"```python\n{source}\n```"], test=[test], entry_point=["f"], **LIMITS)[0]


def _answer_on_loopback() -> int:
    """A server that tells whoever asks."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(EXPECTED.encode())

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def _own_processes() -> set[str]:
    """Processes of containers' users, or, where containers have our own, of ours; not the two containers themselves."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    continue
                owner, command = entry.stat().st_uid, (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            is_ours = owner >= 0x70000000 if os.getuid() == 0 else owner == os.getuid()
            if is_ours and "forkserver" not in command and "bwrap" not in command:
                found.add(f"{entry.name} {command[:80]}")
    return found


if __name__ == "__main__":
    sys.exit(main())
