"""Kills at random over runs that sample ahead: each ends, and its account of prompts closes.

Three runs in `make test-slow`. A campaign, each seed another run, with a line for each of who was killed:

    AGAPO_KILLED_RUNS=30 python -m pytest tests/chaos/test_ahead_kills.py -s
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.stages.conftest import ROOT, recipe_file, tiny_model  # noqa: F401  fixtures
from tests.stages.test_ahead import AHEAD, require_account

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUNS = int(os.environ.get("AGAPO_KILLED_RUNS", "3"))
STEPS = 6
VICTIMS = {
    "actor": "ray::RolloutActor",
    "rank": "ray::RankActor",
    "verifier": "agapo.rewarding.worker",
}


def of_the_run(driver: int, kind: str) -> list[psutil.Process]:
    """The run's processes of a kind, which have its mark in their environment."""
    if kind == "driver":
        return [psutil.Process(driver)]
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if VICTIMS[kind] in " ".join(process.info["cmdline"] or [])
        and (process.info["environ"] or {}).get("AGAPO_CHAOS") == str(driver)
    ]


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_run_whose_processes_are_killed_ends_and_its_account_closes(
    seed: int,
    recipe_file: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    draw = random.Random(seed)
    kinds = [*draw.sample([*VICTIMS, "driver"], 2), "actor"]
    overrides = [*AHEAD, "checkpoint.every=1", "evaluation.every=0", "learner.max_restarts=9", "reward.workers=2"]
    arguments = ["rl", str(recipe_file), f"run.output={tmp_path}", "run.name=a", f"steps={STEPS}", *overrides]
    code = "import os; os.environ['AGAPO_CHAOS'] = str(os.getpid()); from agapo.cli import main; main()"
    killed: list[str] = []
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        over = threading.Event()
        killer = threading.Thread(target=kill_at_random, args=(process.pid, kinds, killed, draw, over, tmp_path))
        killer.start()
        output, _ = process.communicate(timeout=400)
        over.set()
        killer.join()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output
    else:
        pytest.fail(f"four processes, and the run has not ended: {killed}")
    assert len(killed) >= 1
    require_account(tmp_path / "rl" / "a", recipe_file, STEPS)
    print(f"seed {seed}: killed {', '.join(killed)}; ended, and the account closes", flush=True)


def kill_at_random(
    driver: int, kinds: list[str], killed: list[str], draw: random.Random, over: threading.Event, folder: Path
) -> None:
    """Once the run makes steps, kill one process of each kind that is left, at random moments."""
    metrics = folder / "rl" / "a" / "metrics.jsonl"
    while not over.is_set() and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    while kinds and not over.wait(draw.uniform(0.05, 0.6)):
        try:
            if victims := of_the_run(driver, kinds[0]):
                os.kill(draw.choice(victims).pid, signal.SIGKILL)
                killed.append(kinds.pop(0))
        except (psutil.Error, ProcessLookupError):
            continue
