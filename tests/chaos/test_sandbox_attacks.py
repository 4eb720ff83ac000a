"""More than forty programs that cheat or destroy, as root and as an ordinary user: none succeeds, none hurts."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.attacks.programs import ATTACKS
from tests.sandboxed import needs_sandbox

ROOT = Path(__file__).parents[2]
NOBODY = 65534
SHARED = (
    *("agapo/__init__.py", "agapo/errors.py", "agapo/chat.py", "agapo/schema.py"),
    *("rewards/unit_tests.py", "rewards/code_blocks.py", "rewards/code_tests.py"),
)
HONEST_SECONDS = 10.0
"""A program is stopped at 2.5 s; the rest is starting containers anew on a busy machine."""

pytestmark = [needs_sandbox, pytest.mark.slow]


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """What the suite needs, where another user can read it."""
    folder = Path(tempfile.mkdtemp(prefix="agapo-attacks-", dir="/tmp"))
    for name in SHARED:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "agapo/sandbox", folder / "agapo/sandbox")
    shutil.copytree(ROOT / "tests/attacks", folder / "tests/attacks")
    # The records are made of numpy's arrays, which the ordinary user's interpreter need not have.
    for package in Path(np.__file__).parents[1].glob("numpy*"):
        shutil.copytree(package, folder / package.name)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    yield folder
    shutil.rmtree(folder)


def ordinary_users_python() -> str | None:
    """An interpreter that an ordinary user may run: pyenv's often lies in root's home."""
    for name in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            done = subprocess.run(
                [name, "-c", f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                check=False,
                capture_output=True,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return name
    return None


@pytest.fixture(scope="module", params=["as we are", "as an ordinary user"])
def found(request: pytest.FixtureRequest, copy: Path) -> dict[str, Any]:
    identity: dict[str, Any] = {}
    python = sys.executable
    if request.param == "as an ordinary user":
        if os.geteuid():
            pytest.skip("not root, so the other run is an ordinary user's")
        python = ordinary_users_python() or pytest.skip("no Python of this version that an ordinary user may run")
        identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    done = subprocess.run(
        [python, "-m", "tests.attacks.run"],
        cwd=copy,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        **identity,
    )
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_fails_and_the_next_honest_program_passes(found: dict[str, Any], name: str) -> None:
    row = found[name]
    assert row["score"] == 0.0
    assert row["then"] == 1.0
    assert row["seconds"] < HONEST_SECONDS


def test_nothing_is_left_behind(found: dict[str, Any]) -> None:
    assert found["afterwards"]["intact"]
    assert found["afterwards"]["left"] == []


NAIVE = """
import os, sys
test, program = sys.argv[1:]
names = {}
exec(test, names)
try:
    exec(program, names)
    names["check"](names["f"])
except SystemExit as leaving:
    os._exit(leaving.code or 0)
except BaseException:
    os._exit(1)
"""
"""The usual harness: program and tests in one process, where leaving with status 0 counts as passed."""


@pytest.mark.parametrize(
    "name",
    [
        "a lying __eq__",
        "a lying string",
        "a lying class",
        "a lying __bool__ and comparison",
        "leaving before the tests",
        "leaving at once before the tests",
        "leaving in a test",
        "leaving in a test, politely",
        "patching unittest",
        "expected values through gc",
        "expected values through the memory",
        "the parent's environment",
        "reading /proc of others",
        "reading the host's /tmp",
        "leaving a daemon behind",
        "running another program",
    ],
)
def test_the_attacks_are_real(name: str) -> None:
    """Each of these passes in a harness without walls, so the zeros above are the walls' doing."""
    expected = "EXPECTED-0123456789a"
    program = ATTACKS[name].replace("%r", repr(expected)).replace("while True: time.sleep(1)", "pass")
    program = program.replace("'1000'", "'0'")
    test = f"def check(candidate):\n    assert candidate(3) == {expected!r}\n"
    with tempfile.NamedTemporaryFile("w", prefix="AGAPO", dir="/tmp") as canary:
        canary.write(expected)
        canary.flush()
        environment = os.environ | {"AGAPO_TEST_CANARY": expected}
        done = subprocess.run([sys.executable, "-c", NAIVE, test, program], env=environment, check=False, timeout=60)
    assert done.returncode == 0
