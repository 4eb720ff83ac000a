"""The recipes for real data and real models, as far as a machine without GPU and hub can take them."""

import json
from pathlib import Path

import pytest

from agapo.model.loading import create_model, export_hf
from agapo.model.tokenizer import build_tokenizer
from tests.builders import tiny_qwen
from tests.stages.conftest import ROOT, agapo_here
from tests.stages.test_rl import rollouts_of, steps_of

pytestmark = pytest.mark.usefixtures("shared_ray")

SMALL = ("evaluation.test_size=4", "evaluation.validation_size=4", "tracking.wandb=disabled")


@pytest.fixture(scope="module")
def default_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as `recipes/sft/tiny.yaml` creates it, untrained."""
    folder = tmp_path_factory.mktemp("default") / "hf"
    tokenizer = build_tokenizer()
    export_hf(create_model(tokenizer, seed=0), tokenizer, folder)
    return folder


def test_gsm8k_smoke_runs_on_real_rows(real_data: Path, default_model: Path, tmp_path: Path) -> None:
    overrides = (f"data.path={real_data / 'gsm8k'}", f"model.path={default_model}", f"run.output={tmp_path}", *SMALL)
    done = agapo_here("rl", ROOT / "recipes/rl/gsm8k_smoke.yaml", *overrides)
    assert done.returncode == 0, done.stderr
    steps = steps_of(tmp_path / "rl" / "gsm8k_smoke")
    assert sorted(steps) == [1, 2, 3]
    for row in steps.values():
        assert row["group/all_wrong"] == 1
        assert row["policy/grad_norm"] > 0
    rows = [json.loads(line) for line in rollouts_of(tmp_path / "rl" / "gsm8k_smoke")]
    assert {row["advantage"] for row in rows} == {-0.1}
    assert all("\\boxed{}" in row["prompt"] for row in rows)


def test_qwen3_in_bfloat16_with_zero_and_checkpointing(recipe_file: Path, tmp_path: Path) -> None:
    export_hf(tiny_qwen(), build_tokenizer(), tmp_path / "qwen3")
    overrides = (
        f"model.path={tmp_path / 'qwen3'}",
        f"run.output={tmp_path}",
        "model.dtype=bfloat16",
        "model.gradient_checkpointing=true",
        "learner.zero_stage=1",
        "learner.ranks=2",
        "steps=2",
        "evaluation.every=2",
    )
    done = agapo_here("rl", recipe_file, *overrides, *SMALL)
    assert done.returncode == 0, done.stderr
    steps = steps_of(tmp_path / "rl" / "small")
    # In bfloat16 the sampler and the learner differ by rounding, and no more.
    assert all(0.8 < row["policy/ratio_max"] < 1.25 for row in steps.values())
    assert all(row["policy/grad_norm"] > 0 for row in steps.values())
