"""Several trainings one after another in the same processes, one a rank: starting them costs more than training.

Without Ray, whose part other tests see to; the process group is made as there.
"""

import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from agapo.learner.trl.fine_tuning import FineTuning, fine_tune, make_trainer
from agapo.model.loading import load_tokenizer
from agapo.recipe import SFTRecipe
from agapo.recipe.model import ModelConfig
from agapo.recipe.run import CheckpointConfig
from agapo.stages.sft.data import training_data

STEPS = 20
Job = tuple[Callable[[Any, list[Any]], Any], FineTuning]
"""What makes the trainer, and its settings."""


TRAINING: dict[str, Any] = {"learning_rate": 3e-3, "schedule": "linear", "warmup_steps": 3, "weight_decay": 0.01}


def common(model: Path) -> dict[str, Any]:
    """20 steps with warm-up, decay and weight decay."""
    return {
        "model_path": str(model),
        "model": ModelConfig(),
        "weights": Path(),
        "checkpoints": Path(),
        "steps": STEPS,
        "seed": 0,
        "checkpoint": CheckpointConfig(every=100, keep=2),
    }


def changed(settings: FineTuning, **changes: Any) -> FineTuning:
    """Return the settings with other values in their `training` section."""
    content = settings.training.model_dump() | changes
    return replace(settings, training=type(settings.training).model_validate(content))


def sft_job(model: Path, folder: Path) -> Job:
    recipe = SFTRecipe.model_validate({
        "model": {"path": str(model)},
        "run": {"name": "ranks"},
        "steps": STEPS,
        "data": {"source": "data.arithmetic:dialogues", "args": {"phases": [{"size": 300}]}},
        "prompts": {"source": "data.arithmetic:prompts"},
        "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
        "training": {"rows_per_step": 4, "row_tokens": 96, **TRAINING},
    })  # fmt: skip
    data = training_data(recipe, load_tokenizer(model), folder)
    return make_trainer, FineTuning(data=data.folder, training=recipe.training, **common(model))


def run_jobs(jobs: Sequence[Job], ranks: int) -> list[list[dict[str, float]]]:
    """Train each job on `ranks` processes; return what each step logged."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(rank_main, args=(ranks, port, jobs), nprocs=ranks)
    return [json.loads(log_file(settings).read_text()) for _, settings in jobs]


def log_file(settings: FineTuning) -> Path:
    return settings.checkpoints / "log.json"


def rank_main(rank: int, ranks: int, port: int, jobs: Sequence[Job]) -> None:
    """Be one rank."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    environment = dict(os.environ)
    for make, settings in jobs:
        # accelerate remembers in variables that DeepSpeed ran, and transformers that it loads models in shards.
        os.environ.clear()
        os.environ.update(environment)
        unset_hf_deepspeed_config()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        settings.checkpoints.mkdir(parents=True, exist_ok=True)
        trainer = make(settings, [])
        fine_tune(trainer, settings)
        if rank == 0:
            steps = [record for record in trainer.state.log_history if "loss" in record]
            log_file(settings).write_text(json.dumps(steps))
    torch.distributed.destroy_process_group()
