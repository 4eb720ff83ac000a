"""A run over two hosts: one is cut off and dies in mid-run, which costs time alone, and has work when it is back."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.chaos.two_hosts import ROOT, Host, environment, two_hosts
from tests.chaos.watched_run import BACK, CUT
from tests.stages.conftest import agapo, recipe_file, tiny_model  # noqa: F401  fixtures
from tests.stages.test_rl import rollouts_of, steps_of, weights_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SHORT = ("steps=8", "rollout.chunk_prompts=1", "evaluation.every=0", "evaluation.test_size=4", "reward.workers=2")


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as made:
        yield made


def wait_for(path: Path, run: "subprocess.Popen[str]", seconds: float = 150) -> None:
    """Wait till the run has come to a place where it stands (`watched_run`)."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < end, f"the run has not come to '{path.name}'"
        time.sleep(0.05)


def go_on(path: Path) -> None:
    path.with_name(f"{path.name}.done").touch()


def hosts_of(folder: Path, steps: range) -> set[str]:
    """The ids of the hosts that sampled in these steps."""
    lines = map(json.loads, (folder / "sampled.jsonl").read_text().splitlines())
    return {line["node"] for line in lines if line["step"] in steps}


def test_a_host_that_is_cut_off_and_dies_costs_time_alone_and_has_work_again_when_it_is_back(
    hosts: tuple[Host, Host],
    recipe_file: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    first, second = hosts
    arguments = ["rl", recipe_file, f"run.output={tmp_path}", *SHORT]
    quiet = agapo(*arguments, "run.name=quiet")
    assert quiet.returncode == 0, quiet.stderr

    first.start_ray()
    second.start_ray(of=first)
    watched = ["-m", "tests.chaos.watched_run", tmp_path, *arguments, "run.name=cut", "rollout.actors=2"]
    run = subprocess.Popen(
        first.command(sys.executable, *watched, f"cluster.address={first.ray}"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(tmp_path / "cut", run)
        second.connect(False)
        second.pull_the_plug()
        go_on(tmp_path / "cut")

        wait_for(tmp_path / "back", run)
        second.connect()
        second.start_ray(of=first)
        go_on(tmp_path / "back")
        said, _ = run.communicate(timeout=150)
    finally:
        run.kill()
    assert run.returncode == 0, said
    assert "starting again" not in said, "the learner was not on the host that died"

    cut, whole = tmp_path / "rl" / "cut", tmp_path / "rl" / "quiet"
    assert rollouts_of(cut) == rollouts_of(whole)
    assert steps_of(cut) == steps_of(whole)
    for name, weight in weights_of(whole).items():
        assert torch.equal(weight, weights_of(cut)[name]), name
    restarts = [
        json.loads(line).get("rollout/restarts", 0) for line in (cut / "metrics.jsonl").read_text().splitlines()
    ]
    assert max(restarts) >= 1

    before, alone, after = (
        hosts_of(tmp_path, steps) for steps in (range(CUT), range(CUT + 1, BACK), range(BACK + 1, 8))
    )
    assert len(before) == 2, "the run spanned both hosts"
    assert len(alone) == 1 and alone < before
    assert len(after) == 2 and alone < after
    assert not (after & before) - alone, "a host that comes back is a new one to Ray"


def test_ranks_on_a_host_that_does_not_see_the_outputs_are_refused_before_they_load(
    hosts: tuple[Host, Host],
    recipe_file: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    first, second = hosts
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    # No room for anything but the driver on the first.
    first.start_ray(cpus=0)
    second.start_ray(of=first, private=outputs)
    command = first.command(sys.executable, "-m", "agapo", "rl", recipe_file, f"run.output={outputs}", *SHORT)
    done = subprocess.run(
        [*command, f"cluster.address={first.ray}"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"run.output: the host {second.address}, on which a rank of the learner runs, does not see" in done.stderr
    assert done.stderr.count("\n") == 1
