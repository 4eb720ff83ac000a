"""What a fine-tuning rank makes of its settings: the model, its types, TRL's and DeepSpeed's configuration."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import get_scheduler
from trl.trainer.sft_config import SFTConfig

from agapo.learner.trl.fine_tuning import FineTuning, sharding, trainable_model, training_arguments
from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.model import ModelConfig
from agapo.recipe.run import CheckpointConfig
from agapo.recipe.trainer import SFTTrainingConfig
from tests.builders import tiny_exaone


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "hf"
    export_hf(tiny_exaone(), build_tokenizer(), folder)
    return str(folder)


def settings(model_path: str = "", **changes: Any) -> FineTuning:
    """`changes` are of the recipe's `model` and `training` sections."""
    model = {name: changes.pop(name) for name in list(changes) if name in ModelConfig.model_fields}
    training: dict[str, Any] = {
        "learning_rate": 1e-3,
        "schedule": "constant",
        "warmup_steps": 4,
        "rows_per_step": 6,
        "micro_batch_rows": 2,
    }
    return FineTuning(
        model_path=model_path,
        data=Path("data"),
        checkpoints=Path("checkpoints"),
        weights=Path("hf"),
        steps=10,
        seed=0,
        model=ModelConfig.model_validate(model),
        training=SFTTrainingConfig.model_validate(training | changes),
        checkpoint=CheckpointConfig(every=5),
    )


@pytest.mark.parametrize(
    ("changes", "loaded"),
    [
        ({"dtype": "float32"}, torch.float32),
        ({"dtype": "bfloat16"}, torch.float32),
        ({"dtype": "bfloat16", "zero_stage": 2}, torch.bfloat16),
        ({"dtype": "bfloat16", "lora": {"rank": 2, "alpha": 4, "targets": ["q_proj"]}}, torch.bfloat16),
    ],
)
def test_somebody_keeps_float32_weights(model_path: str, changes: dict[str, Any], loaded: torch.dtype) -> None:
    model = trainable_model(settings(model_path, **changes))
    frozen = [value for value in model.parameters() if not value.requires_grad]
    trained = [value for value in model.parameters() if value.requires_grad]
    assert {value.dtype for value in frozen or trained} == {loaded}
    if frozen:
        assert {value.dtype for value in trained} == {torch.float32}
        assert all("lora_" in name for name, value in model.named_parameters() if value.requires_grad)


def test_the_context_is_stretched(model_path: str) -> None:
    rope = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    model: Any = trainable_model(settings(model_path, rope=rope))
    assert model.config.max_position_embeddings == 256
    assert model.config.rope_parameters["rope_type"] == "yarn"


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]),
        ("linear", [0, 0.25, 0.5, 0.75, 1, 5 / 6, 4 / 6, 3 / 6]),
    ],
)
def test_every_schedule_warms_up(schedule: str, rates: list[float]) -> None:
    arguments = training_arguments(settings(schedule=schedule), SFTConfig)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type, optimizer, num_warmup_steps=arguments.warmup_steps, num_training_steps=10
    )
    found = []
    for _ in rates:
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx(rates)


def test_each_step_is_logged_and_no_bad_loss_is_hidden() -> None:
    arguments = training_arguments(settings(), SFTConfig)
    assert (arguments.logging_steps, arguments.logging_nan_inf_filter, arguments.save_steps) == (1, False, 5)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 3)


def test_offloading_moves_the_optimizer_and_under_zero_3_the_weights() -> None:
    zero = [
        sharding(settings(zero_stage=stage, offload=offload))["zero_optimization"]
        for stage, offload in [(2, False), (2, True), (3, True)]
    ]
    assert zero[0] == {"stage": 2}
    assert zero[1]["offload_optimizer"]["device"] == "cpu"
    assert "offload_param" not in zero[1]
    assert zero[2]["offload_param"]["device"] == "cpu"
    assert zero[2]["stage3_gather_16bit_weights_on_model_save"] is True


STARTS = """
import hashlib, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from tests.unit.test_fine_tuning import settings
from agapo.learner.trl.fine_tuning import make_trainer
from agapo.learner.trl.packing import Example, flatten
from agapo.learner.trl.token_file import PLAN, TokenWriter
model_path, folder = sys.argv[1], Path(sys.argv[2])
with TokenWriter(folder) as writer:
    writer.add(Example([5, 6, 7], [0, 1, 1]))
indices, ends = flatten([[0]])
np.savez(folder / PLAN, indices=indices, ends=ends)
lora = dict(rank=2, alpha=4, targets=["q_proj"])
own = settings(model_path, lora=lora, rows_per_step=1, micro_batch_rows=1)
for seed in map(int, sys.argv[3:]):
    model = make_trainer(replace(own, seed=seed, data=folder, checkpoints=folder), []).model
    values = [value.detach().numpy().tobytes() for name, value in model.named_parameters() if "lora_A" in name]
    print("HASH", hashlib.sha256(b"".join(values)).hexdigest())
"""


def test_adapters_start_by_the_seed(model_path: str, tmp_path: Path) -> None:
    """In a process of its own, whose environment trainers may write to; what was drawn before does not matter."""
    command = [sys.executable, "-c", STARTS, model_path, str(tmp_path), "0", "1", "0"]
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    first, other, again = [line for line in done.stdout.splitlines() if line.startswith("HASH")]
    assert first == again != other
