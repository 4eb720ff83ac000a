"""TRL trainers as Ray Train workers: one cluster serves every stage.

    driver ── fit() in a thread ──► Ray Train ──► a worker a rank ── fine_tune()
       ▲                                             │ each step
       └───────────── Mailbox (an actor) ◄───────────┘ metrics; back comes whether to stop

Ray Train starts the ranks, sets up the process group, and starts them anew when one dies; they then go on from the
last checkpoint. Steps that are made again have the same numbers, and are reported once.
"""

import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from transformers import TrainerCallback

from agapo.cluster import death_in, fetch
from agapo.errors import Interrupted, ProcessDied, UserError
from agapo.learner.checkpoint import latest_checkpoint
from agapo.learner.trl.callbacks import STATE, CheckpointCallback, LearningRateCallback, ReportCallback
from agapo.learner.trl.fine_tuning import FineTuning, fine_tune
from agapo.learner.trl.mailbox import Mailbox, begin

RAY_TRAIN = "ray_train"
"""Folder in the run's own where Ray Train keeps notes."""

RAY_TRAIN_WITHOUT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
"""What Ray Train does without: a process that asks for warnings of preemption, which no rank here answers; and 2 s between
looks at whether the ranks are done."""

POLL_S = 0.2
"""How often the driver looks for news."""

Report = Callable[[int, dict[str, float]], None]
"""Takes a step (counted from 1) and its metrics."""


@dataclass(frozen=True)
class Kind:
    """What tells one stage's training from another's."""

    make_trainer: Callable[[Any, list[TrainerCallback]], Any]
    """Makes a rank's trainer from its settings."""
    names: Mapping[str, str]
    """The trainer's name of each metric, and ours."""
    relief: str
    """The recipe's keys that make a micro-batch smaller, for who runs out of memory."""


def run_ranks(
    settings: FineTuning,
    kind: Kind,
    *,
    storage: Path,
    done: int,
    report: Report,
    should_stop: Callable[[], bool],
) -> None:
    """Train to the last step on `training.ranks` workers, on from the newest checkpoint.

    `report` gets each step after `done`. Raises Interrupted after saving when `should_stop()` became true, and
    UserError when the workers cannot go on.
    """
    mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            _trainer(settings, kind, mailbox, storage).fit()
        except BaseException as error:  # handed to the main thread
            failure.append(error)

    # Beside the main thread, where Ray Train would put its own handler over ours for Ctrl-C.
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    last = _follow(thread, mailbox, report, should_stop, done)
    if failure:
        raise _explained(failure[0], kind.relief)
    if last < settings.steps:
        raise Interrupted


def _follow(thread: threading.Thread, mailbox: Any, report: Report, should_stop: Callable[[], bool], last: int) -> int:
    """Hand metrics on until the ranks are done; return the last step. Raises UserError where a rank met one."""
    done = False
    while not done:
        done = not thread.is_alive()
        news, problem = fetch(mailbox.collect.remote(should_stop()))
        for step, metrics in news:
            if step > last:
                report(step, metrics)
                last = step
        if problem:
            raise UserError(problem)
        if not done:
            time.sleep(POLL_S)
    return last


def _trainer(settings: FineTuning, kind: Kind, mailbox: Any, storage: Path) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    for name, value in RAY_TRAIN_WITHOUT.items():
        os.environ.setdefault(name, value)
    own, on_gpu = settings.training, settings.on_gpu
    resources = {"CPU": 0.1} | ({"GPU": own.gpus_per_rank} if on_gpu else {})
    cpu_only = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "false"}
    environment = {} if on_gpu else cpu_only
    return TorchTrainer(
        begin,
        train_loop_config={"job": pickle.dumps((rank_main, settings, kind)), "mailbox": mailbox},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=own.ranks, use_gpu=on_gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name=RAY_TRAIN,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=own.max_restarts),
            worker_runtime_env={"env_vars": environment},
        ),
    )


def rank_main(settings: FineTuning, kind: Kind, mailbox: Any) -> None:
    """Be one rank. What a new start would not mend goes to the driver; after all else, Ray Train starts it anew."""
    callbacks = [
        CheckpointCallback(settings),
        LearningRateCallback(),
        ReportCallback(lambda step, metrics: ray.get(mailbox.post.remote(step, metrics)), kind.names),
    ]
    try:
        trainer = kind.make_trainer(settings, callbacks)
    except Exception as error:
        ray.get(mailbox.fail.remote(_one_line(error, kind.relief)))
        return
    try:
        newest = latest_checkpoint(settings.checkpoints)
        fine_tune(trainer, settings, newest.path / STATE if newest else None)
    except Exception as error:
        if not isinstance(error, UserError) and type(error).__name__ != "OutOfMemoryError":
            raise
        ray.get(mailbox.fail.remote(_one_line(error, kind.relief)))


def _one_line(error: BaseException, relief: str = "the micro-batch") -> str:
    """Return an error as one line; what Ray wraps around it is left out."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, UserError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":
        return f"out of GPU memory ({lines[0]}); lower {relief}"
    return f"training: {type(error).__name__}: {lines[-1]}"


def _explained(error: BaseException, relief: str) -> UserError:
    """Return what stopped the ranks as one line; the whole of it is in Ray's log."""
    causes = getattr(error, "worker_failures", None) or {0: error}
    rank, cause = next(iter(causes.items()))
    if how := death_in(getattr(cause, "health_check_failure", cause)):
        return ProcessDied(
            f"training: rank {rank} died ({how}), and no new start is left (training.max_restarts); often memory: "
            f"lower {relief}"
        )
    return UserError(f"training: rank {rank} failed again and again ({_one_line(cause)}); Ray's log has all of it")
