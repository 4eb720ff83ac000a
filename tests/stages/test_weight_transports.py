"""Runs whose weights travel otherwise are the same runs, also where an actor dies under a broadcast."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stages.conftest import ROOT, agapo_here
from tests.stages.test_rl import rollouts_of, steps_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_ray")]

SHORT = ("steps=4", "rollout.actors=2", "evaluation.every=0", "learner.ranks=2")

KILLER = """
import ray
from agapo.learner.rl import group
from agapo.rollouts.pool import RolloutPool
hand_over, syncs = RolloutPool.set_weights, 0
# Who still lives waits for the dead one till then.
group.TRANSFER_TIMEOUT_S = 10.0

def set_weights(self, *arguments, **named):
    global syncs
    syncs += 1
    if syncs == 2:
        ray.kill(self.actors[1])
    hand_over(self, *arguments, **named)

RolloutPool.set_weights = set_weights
from agapo.cli import main
main()
"""


@pytest.fixture(scope="module")
def by_host(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(recipe_file, tmp_path_factory.mktemp("host"), "learner.zero_stage=3")


def run(recipe_file: Path, output: Path, *arguments: str) -> Path:
    done = agapo_here("rl", recipe_file, f"run.output={output}", "run.name=a", *SHORT, *arguments)
    assert done.returncode == 0, done.stderr
    return output / "rl" / "a"


def all_steps(run: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if "reward/mean" in row]


@pytest.mark.parametrize("transport", ["ipc", "broadcast"])
def test_another_transport_gives_the_same_run(transport: str, by_host: Path, recipe_file: Path, tmp_path: Path):
    other = run(recipe_file, tmp_path, f"rollout.weight_transport={transport}", "learner.zero_stage=3")
    assert rollouts_of(other) == rollouts_of(by_host)
    assert steps_of(other) == steps_of(by_host)
    assert {row["rollout/restarts"] for row in all_steps(other)} == {0}


def test_an_actor_that_dies_under_a_broadcast_delays_the_run(by_host: Path, recipe_file: Path, tmp_path: Path):
    arguments = ["rl", str(recipe_file), f"run.output={tmp_path}", "run.name=a", *SHORT, "learner.zero_stage=3"]
    command = [sys.executable, "-c", KILLER, *arguments, "rollout.weight_transport=broadcast"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    killed = tmp_path / "rl" / "a"
    assert rollouts_of(killed) == rollouts_of(by_host)
    assert steps_of(killed) == steps_of(by_host)
    assert all_steps(killed)[-1]["rollout/restarts"] >= 1


def test_actors_that_sleep_while_ranks_learn_change_nothing(by_host: Path, recipe_file: Path, tmp_path: Path):
    other = run(recipe_file, tmp_path, "rollout.sleep_while_learning=true", "learner.zero_stage=3")
    assert rollouts_of(other) == rollouts_of(by_host)
    assert steps_of(other) == steps_of(by_host)
