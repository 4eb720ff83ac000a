"""Whole RL runs with LoRA: what they leave, going on, export, and that a missing adapter is noticed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from agapo.learner.rl.settings import TAG
from agapo.model.adapters import merge, read_adapter
from agapo.stages.rl import run as stage
from tests.stages.conftest import agapo_here
from tests.stages.test_rl import rollouts_of, steps_of, weights_of

pytestmark = pytest.mark.usefixtures("shared_ray")

LORA = (
    *("learner.lora={rank: 4, alpha: 8}", "learner.learning_rate=0.02", "learner.warmup_steps=0"),
    *("evaluation.every=2", "checkpoint.every=2"),
)


@pytest.fixture(scope="module")
def whole(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 steps that nobody disturbed, measured and saved after each second."""
    output = tmp_path_factory.mktemp("lora")
    done = agapo_here("rl", recipe_file, f"run.output={output}", "run.name=whole", "steps=4", *LORA)
    assert done.returncode == 0, done.stderr
    return output / "rl" / "whole"


def test_engine_and_learner_agree_on_every_step_with_the_adapters_that_travelled(whole: Path) -> None:
    steps = steps_of(whole)
    assert sorted(steps) == [1, 2, 3, 4]
    assert all(row["mismatch/mean"] < 1e-5 and row["policy/grad_norm"] > 0 for row in steps.values())
    rows = [json.loads(row) for row in rollouts_of(whole)]
    assert {(row["step"], *row["weights_versions"]) for row in rows} == {(1, 0), (2, 1), (3, 2), (4, 3)}
    # The reference is the start, whatever has been learnt.
    assert steps[1]["kl/sequence"] == pytest.approx(0, abs=1e-3)
    assert steps[4]["kl/sequence"] > 0.1


def test_what_is_exported_is_the_start_with_the_adapter_merged(whole: Path, tiny_model: Path) -> None:
    config = json.loads((whole / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8, str(tiny_model))
    expected = AutoModelForCausalLM.from_pretrained(tiny_model)
    start = {name: value.clone() for name, value in expected.state_dict().items()}
    merge(expected, read_adapter(whole / "adapter"), 8 / 4)
    found = weights_of(whole)
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    moved = {name.split(".")[-2] for name, value in start.items() if not torch.equal(found[name], value)}
    assert moved == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_best_adapter_is_kept_and_the_checkpoint_of_its_step_is_exported_to_the_same(
    whole: Path, tmp_path: Path
) -> None:
    best = load_file(whole / "best" / "adapter_model.safetensors")
    exported = load_file(whole / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in best.items())
    step = json.loads((whole / "summary.json").read_text())["exported"]["step"]
    assert step > 0
    (file,) = (whole / "checkpoints" / f"step-{step:06d}" / TAG).glob("*model_states.pt")
    assert all("lora_" in name for name in torch.load(file, weights_only=False)["module"])
    done = agapo_here("export", whole, "--step", step, "--out", tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    assert all(torch.equal(weights_of(tmp_path)[name], weight) for name, weight in weights_of(whole).items())


@pytest.mark.slow
def test_a_run_that_is_stopped_and_goes_on_is_the_undisturbed_one(
    whole: Path, recipe_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "rl" / "cut"
    for steps in (2, 4):
        done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=cut", f"steps={steps}", *LORA)
        assert done.returncode == 0, done.stderr
    assert "going on from step 2 of 4" in done.stdout
    assert steps_of(run) == steps_of(whole)
    assert rollouts_of(run) == rollouts_of(whole)
    assert all(torch.equal(weights_of(run)[name], weight) for name, weight in weights_of(whole).items())


def switch_engines_adapters_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engines load every adapter, and add nothing of it."""
    real = stage.start_rollouts

    def without(*given: Any) -> Any:
        *others, lora, placement = given
        return real(*others, lora.model_copy(update={"alpha": 0.0}), placement)

    monkeypatch.setattr(stage, "start_rollouts", without)


def test_adapters_that_the_engine_does_not_apply_are_noticed(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_engines_adapters_off(monkeypatch)
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=off", *LORA, "evaluation.every=0")
    assert done.returncode == 1
    assert "some did not reach the engine, or an adapter that is not loaded" in done.stderr.replace("\n", " ")
    assert list(steps_of(tmp_path / "rl" / "off")) == [1, 2], "at the first step an adapter adds nothing"


@pytest.mark.slow
def test_it_learns_on_two_ranks_in_bfloat16(recipe_file: Path, tmp_path: Path) -> None:
    learning = ("steps=12", "prompts_per_step=8", "learner.ranks=2", "learner.zero_stage=2", "model.dtype=bfloat16")
    short = ("reward.terms.0.function=tests.fakes.length_reward:short", "evaluation.every=0")
    rare = ("rollout.max_new_tokens=12", "learner.learning_rate=0.03")
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=learns", *LORA, *learning, *short, *rare)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "rl" / "learns"
    rows = [json.loads(row) for row in rollouts_of(run)]
    share = [[row["reward"] or 0.0 for row in rows if row["step"] in when] for when in ((1, 2, 3), (10, 11, 12))]
    assert sum(share[1]) / len(share[1]) > sum(share[0]) / len(share[0]) + 0.15
    assert {value.dtype for value in weights_of(run).values()} == {torch.bfloat16}
