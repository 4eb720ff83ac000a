"""What ends a run from outside: SIGTERM saves and says how to go on, at any moment; a killed rank is one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stages.conftest import ROOT

pytestmark = pytest.mark.slow

STACK = ("SIGTERM received", "*** ", "Traceback", "raylet.out")
"""Marks of the stack dump of Ray's C++ handler, and of Python's."""


class Started:
    """A command line in a session of its own, as a scheduler starts one."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "agapo", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def wait_for(self, seen: Callable[[], object]) -> None:
        while self.process.poll() is None and not seen():
            time.sleep(0.02)

    def descendants(self, name: str) -> list[int]:
        """The ids of the processes below it (Ray's workers are in sessions of their own) whose command has `name`."""
        listed = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
        parts = [line.split(None, 2) for line in listed.splitlines()]
        rows = [(int(pid), int(parent), args) for pid, parent, args in parts]
        below = {self.process.pid}
        for _ in range(4):
            below |= {pid for pid, parent, _ in rows if parent in below}
        return [pid for pid, _, args in rows if pid in below and name in args.split(" --")[0]]

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=180)
        assert not [mark for mark in STACK if mark in output], output
        return self.process.returncode, output


def saved_step(run: Path) -> int:
    folder = run / "checkpoints" / (run / "checkpoints" / "latest").read_text()
    return json.loads((folder / "state.json").read_text())["step"]


def has_step(run: Path, step: int) -> bool:
    metrics = run / "metrics.jsonl"
    return metrics.exists() and f'"step": {step},' in metrics.read_text()


def test_sigterm_saves_and_a_killed_rank_is_a_line(recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "rl" / "small"
    arguments = ("rl", recipe_file, f"run.output={tmp_path}", "steps=1000", "evaluation.every=0", "rollout.top_p=0.95")

    stopped = Started(*arguments)
    stopped.wait_for(lambda: has_step(run, 2))
    # To every process of the session, as SLURM does, and twice.
    for _ in range(2):
        os.killpg(stopped.process.pid, signal.SIGTERM)
    status, output = stopped.end()
    assert status == 143
    assert "To go on" in output
    assert "warning: rollout.top_p 0.95" in output
    step = saved_step(run)
    assert step >= 2
    assert not has_step(run, step + 1)

    killed = Started(*arguments, "learner.max_restarts=0")
    killed.wait_for(lambda: has_step(run, step + 2))
    (rank,) = killed.descendants("RankActor")
    os.kill(rank, signal.SIGKILL)
    status, output = killed.end()
    assert status == 1
    assert f"going on from step {step}" in output
    last = output.splitlines()[-1]
    assert last.startswith("error: learner rank 0 died (")
    assert "lower learner.micro_batch_tokens" in last
    assert last.endswith(f"the same command goes on from step {step + 1}")


def test_sigterm_while_ray_starts(recipe_file: Path, tmp_path: Path) -> None:
    started = Started("rl", recipe_file, f"run.output={tmp_path}")
    started.wait_for(lambda: started.descendants("gcs_server"))
    os.kill(started.process.pid, signal.SIGTERM)
    status, output = started.end()
    assert status == 143
    assert "the same command goes on" in output
    assert not (tmp_path / "rl" / "small" / "checkpoints").exists()


def test_sigterm_before_anything_is_started(recipe_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    source = ("data.source=tests.fakes.endless:prompts", f"data.args={{marker: {tmp_path / 'reading'}}}")
    started = Started("rl", recipe_file, f"run.output={tmp_path}", *source)
    started.wait_for((tmp_path / "reading").exists)
    os.kill(started.process.pid, signal.SIGTERM)
    status, output = started.end()
    assert status == 143
    assert output.splitlines() == [
        "rl: small; loading PyTorch and what goes with it",
        f"rl: starts from {tiny_model} (model.path)",
        "reading the questions and loading the rewards",
        "stopped; the same command goes on from what is saved",
    ]
