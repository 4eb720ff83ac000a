"""Several trainings one after another in the same processes, one a rank: starting them costs more than training.

Without Ray, whose part other tests see to; the process group is made as Ray Train makes it.
"""

import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from agapo.learner.fine_tuning import FineTuning, fine_tune

Job = tuple[Callable[[Any, list[Any]], Any], FineTuning]
"""What makes the trainer, and its settings."""


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
    for make_trainer, settings in jobs:
        # accelerate remembers in variables that DeepSpeed ran, and transformers that it loads models in shards.
        os.environ.clear()
        os.environ.update(environment)
        unset_hf_deepspeed_config()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        settings.checkpoints.mkdir(parents=True, exist_ok=True)
        trainer = make_trainer(settings, [])
        fine_tune(trainer, settings)
        if rank == 0:
            steps = [record for record in trainer.state.log_history if "loss" in record]
            log_file(settings).write_text(json.dumps(steps))
    torch.distributed.destroy_process_group()
