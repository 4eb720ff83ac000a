"""`ray job submit`: code, recipe and rewards travel, and what the run makes stays."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.chaos.two_hosts import RAY, ROOT, Host, environment, two_hosts
from tests.stages.conftest import recipe_file, tiny_model  # noqa: F401  fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("aiohttp_cors") is None, reason='jobs need `pip install "ray[default]"`'),
]


@pytest.fixture(scope="module")
def head() -> Iterator[Host]:
    """A host with a Ray that takes jobs."""
    with two_hosts() as (host, _):
        host.start_ray(dashboard=True)
        yield host


def submit(head: Host, *arguments: object) -> "subprocess.CompletedProcess[str]":
    job = [*RAY, "job", "submit", f"--address=http://{head.address}:8265", "--working-dir", ROOT, "--"]
    return subprocess.run(
        head.command(*job, sys.executable, "-m", "agapo", *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_job_runs_in_the_jobs_cluster_and_what_it_makes_stays(head: Host, recipe_file: Path, tmp_path: Path) -> None:  # noqa: F811
    arguments = ["steps=1", "evaluation.every=0", "evaluation.test_size=4", "run.name=job"]
    done = submit(head, "rl", recipe_file, *arguments, f"run.output={tmp_path}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / "rl/job/summary.json").read_text())
    assert summary["finished"]
    assert head.ray in (tmp_path / "rl/job/recipe.yaml").read_text(), "it joined the job's cluster, and started none"


def test_a_job_that_would_write_into_rays_copy_is_refused(head: Host, recipe_file: Path) -> None:  # noqa: F811
    done = submit(head, "rl", recipe_file)
    assert done.returncode == 1
    assert "run.output" in done.stdout and "does not outlive the job" in done.stdout.replace("\n", " ")
