"""Whole runs with frozen weights of 4 bits: engine, reference and learner are one policy, which is exported."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from agapo.model.adapters import merge, read_adapter, trained_start
from agapo.model.loading import create_model, export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.lora import LoRAConfig
from agapo.recipe.model import ModelConfig
from tests.stages.conftest import agapo_here
from tests.stages.test_rl import rollouts_of, steps_of, weights_of
from tests.stages.test_sft import RECIPE as SFT

pytest.importorskip("bitsandbytes")
pytestmark = [pytest.mark.usefixtures("shared_ray"), pytest.mark.slow]

QLORA = LoRAConfig(rank=4, alpha=8, quantize="nf4")
RL = (
    *("learner.lora={rank: 4, alpha: 8, quantize: nf4}", "learner.learning_rate=0.02", "learner.warmup_steps=0"),
    *("evaluation.every=0", "checkpoint.every=2", "rollout.max_new_tokens=16"),
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows are whole blocks of 64."""
    tokenizer, folder = build_tokenizer(), tmp_path_factory.mktemp("wide") / "hf"
    export_hf(create_model(tokenizer, seed=0, hidden_size=64, intermediate_size=128, head_dim=16), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def recipe(start: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = yaml.safe_load(recipe_file.read_text()) | {"model": {"path": str(start)}}
    path = tmp_path_factory.mktemp("recipe") / "qlora.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("sharding", [(), ("learner.ranks=2", "learner.zero_stage=2", "model.dtype=bfloat16")])
def test_rl_samples_from_learns_and_exports_the_rounded_model(
    start: Path, recipe: Path, tmp_path: Path, sharding: tuple[str, ...]
) -> None:
    def run(name: str, steps: int) -> Path:
        done = agapo_here("rl", recipe, f"run.output={tmp_path}", f"run.name={name}", f"steps={steps}", *RL, *sharding)
        assert done.returncode == 0, done.stderr
        return tmp_path / "rl" / name

    whole = run("whole", 3)
    steps = steps_of(whole)
    assert all(row["mismatch/mean"] < (0.05 if sharding else 1e-5) for row in steps.values())
    # The reference is rounded as well.
    assert steps[1]["kl/sequence"] == pytest.approx(0, abs=0.3 if sharding else 1e-3)
    assert steps[3]["kl/sequence"] > 0.01
    dtype = "bfloat16" if sharding else "float32"
    expected = trained_start(str(start), ModelConfig(dtype=dtype), QLORA)
    merge(expected, read_adapter(whole / "adapter"), 8 / 4)
    found = weights_of(whole)
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    assert "quantization_config" not in json.loads((whole / "hf" / "config.json").read_text())
    run("cut", 2)
    cut = run("cut", 3)
    assert rollouts_of(cut) == rollouts_of(whole)
    assert all(torch.equal(weights_of(cut)[name], weight) for name, weight in found.items())


@pytest.mark.parametrize("sharding", [{}, {"ranks": 2, "zero_stage": 2}])
def test_sft_and_preference_learning_export_it_too(start: Path, tmp_path: Path, sharding: dict[str, int]) -> None:
    lora = {"lora": {"rank": 4, "alpha": 8, "quantize": "nf4"}, "threads": 1, "warmup_steps": 0, **sharding}
    common = {"model": {"path": str(start), "dtype": "bfloat16"}, "tracking": {"wandb": "disabled"}}
    sft = SFT | common | {"steps": 4, "training": lora | {"rows_per_step": 4, "row_tokens": 96}}
    sft = {name: section for name, section in sft.items() if name != "create"}
    pairs = [
        {"prompt": f"{number}+1=", "chosen": str(number + 1), "rejected": f"{number + 2} or so"} for number in range(24)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    dpo = {
        "stage": "dpo",
        "pairs": {"rows": {"path": str(tmp_path / "pairs.jsonl"), "max_tokens": 96}},
        "training": lora | {"pairs_per_step": 4, "learning_rate": 1e-2, "loss": "dpo"},
    }
    for stage, recipe in (("sft", sft), ("dpo", dpo | common)):
        file = tmp_path / f"{stage}.yaml"
        file.write_text(yaml.safe_dump(recipe))
        done = agapo_here(stage, file, f"run.output={tmp_path}", "run.name=run")
        assert done.returncode == 0, done.stderr + done.stdout
        run = tmp_path / stage / "run"
        expected = trained_start(str(start), ModelConfig(dtype="bfloat16"), QLORA)
        merge(expected, read_adapter(run / "adapter"), 8 / 4)
        found = weights_of(run)
        assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
        moved = trained_start(str(start), ModelConfig(dtype="bfloat16"), QLORA).state_dict()
        assert any(not torch.equal(found[name], value) for name, value in moved.items())
