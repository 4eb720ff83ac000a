"""Whole runs with vLLM: RL, evaluation and filter take it through the same path; a wrong engine is noticed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.stages.rl import collector
from tests.builders import tiny_exaone
from tests.stages.conftest import agapo_here, hold_back_first_tensor, recipe_file, shared_ray, tiny_model  # noqa: F401  fixtures
from tests.stages.test_ahead import require_account
from tests.stages.test_dpo import recipe_file as dpo_recipe
from tests.stages.test_eval import recipe  # noqa: F401  a fixture
from tests.stages.test_rl import rollouts_of, steps_of
from tests.stages.test_rl_lora import switch_engines_adapters_off

VLLM = ["rollout.engine=vllm", "rollout.vllm.cache_gib=0.25", "rollout.vllm.in_flight=16"]

pytestmark = [pytest.mark.usefixtures("shared_ray"), pytest.mark.timeout(600)]


@pytest.fixture
def arguments(recipe_file: Path, vllm_model: Path, tmp_path: Path) -> list[Any]:  # noqa: F811
    """The small RL recipe, with vLLM."""
    return [recipe_file, f"model.path={vllm_model}", f"run.output={tmp_path}", "rollout.actors=1", *VLLM]


def test_rl_learns_from_what_vllm_samples(arguments: list[Any], tmp_path: Path) -> None:
    done = agapo_here("rl", *arguments, "run.name=small", "steps=4")
    assert done.returncode == 0, done.stderr
    assert "is valid, and not the same" in done.stdout.replace("\n", " ")
    steps = steps_of(tmp_path / "rl" / "small")
    assert len(steps) == 4
    for row in steps.values():
        assert row["mismatch/mean"] < 1e-4
        assert row["mismatch/max"] < 1e-3
        assert row["policy/grad_norm"] > 0
    # Weights of each step were sampled from: step n after n-1 updates.
    rows = [json.loads(row) for row in rollouts_of(tmp_path / "rl" / "small")]
    assert {(row["step"], *row["weights_versions"]) for row in rows} == {(1, 0), (2, 1), (3, 2), (4, 3)}


def test_it_samples_ahead_with_vllm(
    arguments: list[Any],
    recipe_file: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The account closes; weights change in mid-response, and tokens are of the version that they name."""
    # It seldom ends a response, so that some are always in flight.
    export_hf(tiny_exaone(head_dim=32), build_tokenizer(), tmp_path / "talkative")
    long = (f"model.path={tmp_path / 'talkative'}", "rollout.stop=[]", "rollout.max_new_tokens=160")
    ahead = ("rollout.max_staleness=1", "rollout.chunk_prompts=1", "evaluation.every=0")
    done = agapo_here("rl", *arguments, "run.name=ahead", *long, *ahead)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "rl" / "ahead"
    require_account(run, recipe_file, 6, bound=1)
    versions = [(row["step"], *row["weights_versions"]) for row in map(json.loads, rollouts_of(run))]
    assert all(step - 2 <= used[0] <= used[-1] < step for step, *used in versions)
    assert any(len(used) == 2 for _, *used in versions)
    found = [row["mismatch/mean"] for row in steps_of(run).values() if "mismatch/mean" in row]
    assert len(found) > 1
    assert max(found) < 1e-4


@pytest.mark.parametrize("transport", ["ipc", "broadcast"])
def test_weights_reach_vllm_by_other_ways(transport: str, arguments: list[Any], tmp_path: Path) -> None:
    moves = ("learner.learning_rate=0.01", "learner.warmup_steps=0", "evaluation.every=0")
    done = agapo_here("rl", *arguments, "run.name=a", "steps=3", f"rollout.weight_transport={transport}", *moves)
    assert done.returncode == 0, done.stderr
    steps = steps_of(tmp_path / "rl" / "a")
    assert all(row["mismatch/mean"] < 1e-4 for row in steps.values())
    assert steps[3]["kl/sequence"] > 0.01, "the policy has moved"


def test_a_run_is_stopped_and_goes_on_with_the_other_engine(arguments: list[Any], tmp_path: Path) -> None:
    done = agapo_here("rl", *arguments, "run.name=both", "steps=1")
    assert done.returncode == 0, done.stderr
    done = agapo_here("rl", *arguments, "run.name=both", "steps=2", "rollout.engine=transformers")
    assert done.returncode == 0, done.stderr
    assert list(steps_of(tmp_path / "rl" / "both")) == [1, 2]


def test_wrong_on_purpose(arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another temperature is noticed at once, a tensor that is not updated when it has moved."""
    real = collector.sampling_params
    with monkeypatch.context() as patch:
        patch.setattr(collector, "sampling_params", lambda *given: replace(real(*given), temperature=0.9))
        done = agapo_here("rl", *arguments, "run.name=warm")
    assert done.returncode != 0
    assert "never agreed: likely another temperature" in done.stderr.replace("\n", " ")

    hold_back_first_tensor(monkeypatch)
    done = agapo_here("rl", *arguments, "run.name=partial", "learner.learning_rate=0.01")
    assert done.returncode != 0
    assert "so weights are the likely cause: stale" in done.stderr.replace("\n", " ")


LORA = ("learner.lora={rank: 4, alpha: 8}", "learner.learning_rate=0.02", "learner.warmup_steps=0")


def test_rl_trains_adapters_with_what_vllm_samples(arguments: list[Any], tmp_path: Path) -> None:
    done = agapo_here("rl", *arguments, "run.name=lora", "steps=4", *LORA)
    assert done.returncode == 0, done.stderr
    steps = steps_of(tmp_path / "rl" / "lora")
    assert all(row["mismatch/mean"] < 1e-4 and row["policy/grad_norm"] > 0 for row in steps.values())
    assert steps[4]["kl/sequence"] > 0.1, "the policy has moved"
    rows = [json.loads(row) for row in rollouts_of(tmp_path / "rl" / "lora")]
    assert {(row["step"], *row["weights_versions"]) for row in rows} == {(1, 0), (2, 1), (3, 2), (4, 3)}


def test_adapters_that_vllm_does_not_apply_are_noticed(
    arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_engines_adapters_off(monkeypatch)
    done = agapo_here("rl", *arguments, "run.name=off", *LORA, "evaluation.every=0")
    assert done.returncode == 1
    assert "or an adapter that is not loaded" in done.stderr.replace("\n", " ")
    assert list(steps_of(tmp_path / "rl" / "off")) == [1, 2]


def test_top_p_is_refused_in_a_line(arguments: list[Any]) -> None:
    done = agapo_here("rl", *arguments, "run.name=cut", "rollout.top_p=0.9")
    assert done.returncode != 0
    assert "rollout.top_p" in done.stderr


def test_filter_samples_with_vllm(arguments: list[Any], tmp_path: Path) -> None:
    limits = ("--samples", "4", "--drop-from", "1")
    done = agapo_here("filter", *arguments, *limits, "run.name=small")
    assert done.returncode == 0, done.stderr
    (summary,) = tmp_path.rglob("summary.json")
    assert json.loads(summary.read_text())["samples"] == 4


def test_evaluation_asks_vllm(recipe: Path, vllm_model: Path, tmp_path: Path) -> None:  # noqa: F811
    chosen = [f"model.path={vllm_model}", "needle.reward.terms.0.args.value=1.0"]
    done = agapo_here("eval", recipe, *chosen, *VLLM)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "eval" / "both" / "summary.json").read_text())
    assert summary["needle"]["green"]
    assert sum(row["questions"] for row in summary["accuracy"]["table"] if row["domain"] == "all") == 32


def test_preference_learning_samples_and_measures_with_vllm(vllm_model: Path, tmp_path: Path) -> None:
    path = dpo_recipe(tmp_path, {"path": str(vllm_model)})
    done = agapo_here("dpo", path, f"run.output={tmp_path}", "pairs.prompts=24", *VLLM)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "dpo" / "first" / "summary.json").read_text())
    assert summary["finished"]
    assert summary["pairs"]["responses"] == 24 * 4
