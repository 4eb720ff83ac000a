"""What `recipes/cluster/` starts a run with on SLURM and Kubernetes: it parses, and names what exists."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import ray
import typer
import yaml

from agapo.cli import app
from agapo.recipe import RLRecipe, load_recipe

ROOT = Path(__file__).parents[2]
SBATCH = ROOT / "recipes/cluster/slurm.sbatch"
KUBERAY = ROOT / "recipes/cluster/kuberay.yaml"

STUB = """#!/usr/bin/env bash
[[ $0 != *agapo ]] || trap 'echo saved >>"$CALLS"; exit 143' TERM
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
  python*) echo 10.0.0.1 ;;
  scontrol*) printf 'node1\\nnode2\\nnode3\\n' ;;
  srun*) while [[ $1 == --* ]]; do shift; done; exec "$@" ;;
  *--block*) exec sleep 60 ;;
  agapo*) for _ in $(seq "$STEPS"); do sleep 0.1; done; exit "$STATUS" ;;
esac
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder to submit from, and on the PATH commands that write down how they are called."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name in (".venv/bin/python", ".venv/bin/ray", ".venv/bin/agapo", "bin/scontrol", "bin/srun"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def submit(site: Path, *, steps: int, status: int = 0) -> "subprocess.Popen[str]":
    slurm = {"SLURM_SUBMIT_DIR": site, "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_JOB_ID": 7, "SLURM_GPUS_ON_NODE": 8}
    stubs = {"PATH": f"{site / 'bin'}:{os.environ['PATH']}", "CALLS": site / "calls", "STEPS": steps, "STATUS": status}
    environment = os.environ | {name: str(value) for name, value in (slurm | stubs).items()}
    command = ["bash", SBATCH, "rl", "recipes/rl/tiny.yaml", "run.name=a b"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def calls(site: Path) -> list[str]:
    return (site / "calls").read_text().splitlines() if (site / "calls").exists() else []


@pytest.mark.parametrize("status", [0, 3])
def test_the_script_starts_a_head_then_the_others_then_the_run_and_ends_as_it_does(site: Path, status: int) -> None:
    job = submit(site, steps=3, status=status)
    assert job.wait(timeout=30) == status, job.communicate()[0]
    head, *others, run = sorted((line for line in calls(site) if re.match("ray start|srun|agapo", line)), key=order)
    assert "--head" in head and "--num-gpus=8" in head and "--node-ip-address=10.0.0.1 " in head
    assert any("--address=10.0.0.1:6379" in line and line.startswith("ray start") for line in others)
    (spread,) = (line for line in others if line.startswith("srun"))
    assert "--nodes=2" in spread and "--exclude=node1" in spread
    assert run == "agapo rl recipes/rl/tiny.yaml run.name=a b cluster.address=10.0.0.1:6379"


def order(line: str) -> int:
    return 2 if line.startswith("agapo") else 0 if "--head" in line else 1


def test_a_job_whose_time_is_over_lets_the_run_save(site: Path) -> None:
    job = submit(site, steps=300)
    while not any(line.startswith("agapo") for line in calls(site)):
        assert job.poll() is None, job.communicate()[0]
    job.terminate()
    assert job.wait(timeout=30) == 143
    assert "saved" in calls(site)


def test_the_options_of_ray_start_exist() -> None:
    from ray.scripts.scripts import cli

    def options(name: str) -> set[str]:
        return {
            option for parameter in cli.commands[name].params for option in [*parameter.opts, *parameter.secondary_opts]
        }

    (start,) = re.findall(r"^ray=\((.*)\)$", SBATCH.read_text(), re.MULTILINE)
    used = set(re.findall(r"--[a-z-]+", f"{start} --head --node-ip-address --port --include-dashboard --address"))
    assert used <= options("start")
    assert "--address" in options("health-check")
    groups = [rayjob()["headGroupSpec"], *rayjob()["workerGroupSpecs"]]
    assert {f"--{name}" for group in groups for name in group["rayStartParams"]} <= options("start")


def rayjob() -> dict[str, Any]:
    return yaml.safe_load(KUBERAY.read_text())["spec"]["rayClusterSpec"]


def test_the_job_runs_a_command_that_exists_on_hosts_that_are_enough_for_its_recipe() -> None:
    job = yaml.safe_load(KUBERAY.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    shell, option, line = shlex.split(job["spec"]["entrypoint"])
    assert (shell, option) == ("bash", "-c")
    assert subprocess.run(["bash", "-n", "-c", line], check=False).returncode == 0
    name, recipe, *overrides = line.partition("exec agapo ")[2].split()
    assert name in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    loaded = load_recipe(RLRecipe, ROOT / recipe, overrides)
    (workers,) = rayjob()["workerGroupSpecs"]
    container = workers["template"]["spec"]["containers"][0]
    gpus = workers["replicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"])
    wanted = loaded.learner.ranks * loaded.learner.gpus_per_rank + loaded.rollout.actors * loaded.rollout.gpus_per_actor
    assert wanted <= gpus
    assert str(loaded.run.output).startswith(container["volumeMounts"][0]["mountPath"])
    assert rayjob()["rayVersion"] == ray.__version__


def test_the_script_parses() -> None:
    assert subprocess.run(["bash", "-n", SBATCH], check=False).returncode == 0
