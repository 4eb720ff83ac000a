"""Whole runs of the SFT stage through the command line: what they leave, stopping, a second round, LoRA."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.stages.conftest import agapo, agapo_here, interrupt_after

pytestmark = pytest.mark.usefixtures("shared_ray")

RECIPE: dict[str, Any] = {
    "stage": "sft",
    "model": {},
    "create": {"hidden_size": 32, "intermediate_size": 64, "heads": 2, "kv_heads": 1, "layers": 2},
    "steps": 40,
    "data": {"source": "data.arithmetic:dialogues", "args": {"phases": [{"size": 400}]}},
    "prompts": {"source": "data.arithmetic:prompts", "args": {"size": 64}},
    "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}], "workers": 1},
    "training": {"rows_per_step": 4, "row_tokens": 96, "warmup_steps": 2, "threads": 1},
    "rollout": {"max_new_tokens": 16, "threads": 1},
    "evaluation": {"test_size": 8},
    "checkpoint": {"every": 15},
    "tracking": {"wandb": "disabled"},
}


def recipe_file(folder: Path, name: str = "small", **changes: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes))
    return path


def losses_of(run: Path) -> dict[int, float]:
    rows = list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
    assert len({row["step"] for row in rows}) == len(rows)
    return {row["step"]: row["train/loss"] for row in rows}


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(run / "hf").state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    done = agapo("sft", recipe_file(folder), f"run.output={folder}", "tracking.wandb=offline")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "sft: starts from random weights, drawn with run.seed 0 (create)" in done.stdout
    assert "Responses that think" in done.stdout
    assert re.search(r"reasoning : non-reasoning 1\.(49|50)", done.stdout)
    return folder / "sft" / "small"


def test_a_run_leaves_what_it_promises(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert (summary["stage"], summary["steps"], summary["parent"]) == ("sft", 40, None)
    assert set(summary["before"]) == set(summary["after"]) == {"reasoning", "non_reasoning"}
    assert summary["token_ratio"] == pytest.approx(1.5, rel=0.02)
    assert set(summary["trained_tokens_by_domain"]) == {"reasoning/math", "non_reasoning/math"}
    assert summary["thinking"]["after"].keys() == {"reasoning", "non_reasoning"}
    assert summary["curation"]["seen"] == summary["curation"]["kept"] == 400
    losses = losses_of(whole)
    assert list(losses) == list(range(1, 41))
    assert losses[40] < 0.6 * losses[1]
    assert [path.name for path in sorted((whole / "checkpoints").iterdir())] == ["latest", "step-000030", "step-000040"]
    assert (whole / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((whole / "wandb").glob("offline-run-*"))
    assert not (whole / "hf" / "training_args.bin").exists()


def test_a_finished_run_prints_its_result_again(whole: Path) -> None:
    done = agapo_here(
        "sft", whole.parents[1] / "small.yaml", f"run.output={whole.parents[1]}", "tracking.wandb=offline"
    )
    assert done.returncode == 0
    assert "Finished 40 steps" in done.stdout


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "sft" / "small"
    arguments = ("sft", recipe_file(tmp_path), f"run.output={tmp_path}")
    # Slowed down by a log line a step, a run of 40 such steps is still under way when the 8th is seen.
    stopped = interrupt_after(8, run / "metrics.jsonl", *arguments)
    assert stopped.returncode == 130, stopped.stdout
    assert (run / "report.html").exists(), "a stopped run has its page"
    before = losses_of(run)
    done = agapo_here(*arguments)
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"going on from step {max(before)} of 40" in done.stdout
    assert losses_of(run) == losses_of(whole)
    for name, expected in weights_of(whole).items():
        assert torch.equal(weights_of(run)[name], expected), name


@pytest.mark.slow
def test_a_second_round_starts_from_the_first_and_lora_is_merged(whole: Path, tmp_path: Path) -> None:
    first = whole.parents[1] / "small.yaml"
    lora = {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"]}
    second = {
        "model": {"start": str(first)},
        "create": None,
        "steps": 5,
        "training": RECIPE["training"] | {"lora": lora},
    }
    done = agapo_here("sft", recipe_file(tmp_path, "round2", **second), f"run.output={whole.parents[1]}")
    assert done.returncode == 0, done.stderr + done.stdout
    run = whole.parents[1] / "sft" / "round2"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["parent"] == str(whole / "hf")
    base, merged, adapter = weights_of(whole), weights_of(run), load_file(run / "adapter" / "adapter_model.safetensors")
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj", "down_proj"}
    name = "model.layers.0.self_attn.q_proj"
    up, down = (adapter[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "BA")
    expected = base[f"{name}.weight"] + 32 / 4 * up @ down
    torch.testing.assert_close(merged[f"{name}.weight"], expected, rtol=1e-5, atol=1e-6)
    for folder, into in ((run, "adapted"), (whole, "full")):
        assert agapo_here("export", folder, "--out", tmp_path / into / "hf").returncode == 0
        exported = weights_of(tmp_path / into)
        assert all(torch.equal(exported[name], weight) for name, weight in weights_of(folder).items())
    missing = agapo_here("export", whole, "--step", 7)
    assert (missing.returncode, "has checkpoints of the steps 30, 40 alone" in missing.stderr) == (1, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("training.zero_stage=4",), "training.zero_stage"),
        (("data.mix.modes={reasoning: 1, plain: 1}",), "data.mix.modes"),
        (("training.row_tokens=16",), "no dialogue is left to train on"),
        (("reward.terms.0.function=rewards.math_answer:scor",), "did you mean 'score'?"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_trained(
    tmp_path: Path, changes: tuple[str, ...], message: str
) -> None:
    done = agapo_here("sft", recipe_file(tmp_path), f"run.output={tmp_path}", *changes)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "sft" / "small" / "summary.json").exists()
