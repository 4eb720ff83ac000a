"""Rollout actors die; the run does not notice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages.conftest import ROOT, agapo, recipe_file, tiny_model  # noqa: F401  fixtures
from tests.stages.test_rl import rollouts_of, steps_of

pytestmark = pytest.mark.slow

KILLER = """
import ray
from agapo.rollouts import pool as supervisor
real = supervisor.RolloutPool.generate
calls = 0

def generate(self, requests, params, *, chunk_prompts):
    global calls
    calls += 1
    victim = {5: 0, 6: 1, 8: 0}.get(calls)
    for item in real(self, requests, params, chunk_prompts=chunk_prompts):
        yield item
        if victim is not None:
            ray.kill(self.actors[victim])
            victim = None

hand_over = supervisor.RolloutPool.set_weights
syncs = 0

def set_weights(self, *arguments):
    global syncs
    syncs += 1
    if syncs == 3:
        ray.kill(self.actors[1])
    hand_over(self, *arguments)

supervisor.RolloutPool.generate = generate
supervisor.RolloutPool.set_weights = set_weights
from agapo.cli import main
main()
"""


def test_killing_rollout_actors_changes_nothing(recipe_file: Path, tmp_path: Path) -> None:  # noqa: F811
    arguments = ["rl", str(recipe_file), f"run.output={tmp_path}", "rollout.chunk_prompts=1", "rollout.actors=2"]
    quiet = agapo(*arguments, "run.name=quiet")
    assert quiet.returncode == 0, quiet.stderr
    killed = subprocess.run(
        [sys.executable, "-c", KILLER, *arguments, "run.name=killed"], cwd=ROOT, capture_output=True, text=True
    )
    assert killed.returncode == 0, killed.stderr
    assert rollouts_of(tmp_path / "rl" / "killed") == rollouts_of(tmp_path / "rl" / "quiet")
    assert steps_of(tmp_path / "rl" / "killed") == steps_of(tmp_path / "rl" / "quiet")
    last = json.loads((tmp_path / "rl" / "killed" / "metrics.jsonl").read_text().splitlines()[-1])
    restarts = [
        json.loads(line).get("rollout/restarts", 0)
        for line in (tmp_path / "rl" / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert max(restarts) == 4, last
