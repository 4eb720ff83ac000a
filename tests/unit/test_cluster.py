"""What a run asks of a cluster of several hosts, with no Ray behind it."""

import json
from pathlib import Path
from typing import Any

import pytest

from agapo import cluster
from agapo.cluster import ENVIRONMENT, in_cluster, require_gpus, require_shared, sees
from agapo.errors import UserError
from agapo.recipe import RLRecipe
from agapo.recipe.run import JOB
from agapo.tracking import RunDirectory
from tests.unit.test_advice import load


def in_job(monkeypatch: pytest.MonkeyPatch, **runtime_env: Any) -> None:
    monkeypatch.setenv(JOB, json.dumps({"runtime_env": runtime_env, "metadata": {}}))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")


def test_the_working_directory_travels_unless_a_job_has_brought_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster._shipped()["working_dir"] == str(Path.cwd())
    in_job(monkeypatch, env_vars={"OMP_WAIT_POLICY": "ACTIVE"})
    assert cluster._shipped()["working_dir"] == str(Path.cwd())
    # Ray refuses what the job has said already.
    assert set(cluster._shipped()["env_vars"]) == set(ENVIRONMENT) - {"OMP_WAIT_POLICY"}
    in_job(monkeypatch, working_dir="gcs://_ray_pkg_1.zip")
    assert cluster._shipped() == {"env_vars": ENVIRONMENT}


def test_a_ray_that_starts_slowly_is_waited_for_and_one_that_does_not_is_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([RuntimeError("not there yet"), {"node_id": "a"}])

    def get_node(*given: Any) -> Any:
        if isinstance(answer := next(answers, RuntimeError("never")), Exception):
            raise answer
        return answer

    monkeypatch.setattr(cluster, "_real_get_node", get_node)
    assert cluster._patient_get_node("address", "a") == {"node_id": "a"}
    monkeypatch.setattr(cluster, "START_S", 0.0)
    with pytest.raises(RuntimeError, match="never"):
        cluster._patient_get_node("address", "a")

    def init(**options: Any) -> None:
        assert cluster.ray_services.get_node is cluster._patient_get_node
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster, "start_forks", lambda _: None)
    with pytest.raises(UserError, match=r"cannot start or join Ray \(The current node timed out"):
        cluster._join(None)


def test_in_a_job_the_cluster_is_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://10.0.0.1:8265")
    assert load(RLRecipe).cluster.address is None, "as `ray job submit` reads it, it is no cluster's"
    in_job(monkeypatch)
    assert load(RLRecipe).cluster.address == "10.0.0.1:6379"
    assert load(RLRecipe, cluster={"address": "auto"}).cluster.address == "auto"


def test_a_run_in_rays_copy_of_the_working_directory_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_1/outputs"
    with pytest.raises(UserError, match=r"run\.output: .* does not outlive the job; .*run\.output=/shared/outputs"):
        RunDirectory.open(load(RLRecipe, run={"name": "a", "output": str(folder)}), Path("a.yaml"))
    assert not folder.exists()


def test_rays_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests of this process may have left a cluster that they share.
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with (
        pytest.raises(UserError, match=r"cluster\.address: ray://10\.0\.0\.1:10001 is for Ray's client"),
        in_cluster("ray://10.0.0.1:10001"),
    ):
        pass


class Rank:
    """A rank on a host that sees some folder, or none."""

    def __init__(self, address: str, shared: bool):
        self.address, self.shared = address, shared
        self.sees = self

    def remote(self, mark: Path) -> str | None:
        return sees(mark) if self.shared else self.address


def test_ranks_that_do_not_see_the_runs_folder_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "fetch", lambda found: found)
    monkeypatch.setattr(cluster, "cluster_nodes", lambda: ["a", "b"])
    ranks = [Rank("10.0.0.1", True), Rank("10.0.0.2", False), Rank("10.0.0.2", False)]
    require_shared(tmp_path, ranks[:1])
    with pytest.raises(UserError, match=r"run\.output: the host 10\.0\.0\.2, .* \(2 of 3 ranks do not\)"):
        require_shared(tmp_path, ranks)
    assert not list(tmp_path.iterdir())


def test_a_host_that_does_not_see_a_file_says_who_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "LAG_S", 0.1)
    monkeypatch.setattr(cluster, "own_address", lambda: "10.0.0.2")
    assert sees(tmp_path / "mark") == "10.0.0.2"


def test_gpus_of_hosts_that_are_still_to_come_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)
    there = iter([0.0, 8.0, 16.0])
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"GPU": next(there)})
    require_gpus(16, "learner.gpus_per_rank", "auto")
    assert capsys.readouterr().out == "waiting for hosts: 16 GPUs are asked for, and there are 0 yet\n"
    monkeypatch.setattr(cluster, "JOINING_S", 0.0)
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"GPU": 8.0})
    with pytest.raises(UserError, match=r"^learner\.gpus_per_rank: 16 GPUs are asked for, and there are 8; lower them"):
        require_gpus(16, "learner.gpus_per_rank", "auto")
