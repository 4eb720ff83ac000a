"""TRL trainers on Ray actors, a rank each: one cluster serves every stage.

    driver ── fit ──► a TrainerRank a rank ── fine_tune()
       ▲                 │ each step
       └── Mailbox ◄─────┘ metrics of rank 0; back comes whether to stop

When a rank dies, all are started anew, a bounded number of times, and go on from the last checkpoint. Steps that are
made again have the same numbers, and are reported once.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from transformers import TrainerCallback

from agapo.cluster import fetch, how_it_died, number_of, require_shared
from agapo.errors import Interrupted, ProcessDied, UserError
from agapo.learner.checkpoint import divided_alike, latest_checkpoint
from agapo.learner.process_group import group_variables
from agapo.learner.trl.callbacks import STATE, CheckpointCallback, LearningRateCallback, ReportCallback
from agapo.learner.trl.fine_tuning import FineTuning, fine_tune
from agapo.learner.trl.rank_actor import Mailbox, TrainerRank
from agapo.learner.universal import universal_form
from agapo.placement import Placement

POLL_S = 0.2
"""How often the driver looks for news."""
MEETING = timedelta(minutes=30)
"""A rank that waits longer for the others gives up."""

R = TypeVar("R")
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
    done: int,
    report: Report,
    should_stop: Callable[[], bool],
) -> None:
    """Train to the last step on `training.ranks` ranks, on from the newest checkpoint.

    `report` gets each step after `done`. Raises Interrupted after saving when `should_stop()` became true, and
    UserError when the ranks cannot go on.
    """
    mailbox: Any = ray.remote(Mailbox).options(num_cpus=0).remote()

    def look() -> None:
        nonlocal done
        for step, metrics in fetch(mailbox.collect.remote(should_stop())):
            if step > done:
                report(step, metrics)
                done = step

    starts = 0
    while not _finished(settings, kind, mailbox, look, last=starts == settings.training.max_restarts):
        starts += 1
    if done < settings.steps:
        raise Interrupted


def _finished(settings: FineTuning, kind: Kind, mailbox: Any, look: Callable[[], None], *, last: bool) -> bool:
    """Start the ranks, and return whether they came to their end: False where one died or failed.

    In the `last` try, that is raised. Raises UserError for what a new start would not mend.
    """
    with _readable_checkpoint(settings) as settings:
        return _have_run(settings, kind, mailbox, look, last=last)


@contextmanager
def _readable_checkpoint(settings: FineTuning) -> Iterator[FineTuning]:
    """Yield what the ranks are told to read the newest checkpoint: that of others, in its universal form."""
    own, newest = settings.training, latest_checkpoint(settings.checkpoints)
    if not newest or divided_alike(newest, ranks=own.ranks, zero_stage=own.zero_stage, section="training"):
        yield settings
        return
    with universal_form(newest.path / STATE / f"global_step{newest.state['step']}"):
        yield replace(settings, universal=True)


def _have_run(settings: FineTuning, kind: Kind, mailbox: Any, look: Callable[[], None], *, last: bool) -> bool:
    placement = Placement(ranks=settings.training.ranks, gpus_per_rank=settings.training.gpus_per_rank)
    ranks = _start(settings, placement)
    try:
        address, port = fetch(ranks[0].endpoint.remote(), timeout_s=MEETING.total_seconds())
        require_shared(settings.checkpoints.parent, ranks)
        job = (rank_main, settings, kind, mailbox)
        running = [
            actor.fit.remote(group_variables(rank, len(ranks), address, port), *job) for rank, actor in enumerate(ranks)
        ]
        while running:
            ended, running = ray.wait(running, timeout=POLL_S)
            look()
            for problem in filter(None, fetch(ended)):
                raise UserError(problem)
    except GetTimeoutError:
        raise ProcessDied(
            f"training.ranks: no host of the cluster has had room for a rank for {MEETING.total_seconds():g} s"
        ) from None
    except (RayActorError, RayTaskError) as error:
        if last:
            raise _explained(error, ranks, kind.relief) from None
        return False
    finally:
        for actor in ranks:
            ray.kill(actor)
        placement.close()
    return True


def in_a_process(work: Callable[..., R], *given: Any, on_gpu: bool, should_stop: Callable[[], bool], **named: Any) -> R:
    """Return what `work` returns in a process of its own, on a GPU of its own or on none.

    Raises Interrupted when `should_stop()` became true, and UserError where a worker raised it or its GPU is too small.
    """
    # One try: work that failed is not mended by doing it again.
    how = {"num_cpus": 0, "num_gpus": int(on_gpu), "max_retries": 0, **_environment(on_gpu)}
    running = ray.remote(work).options(**how).remote(*given, **named)
    while not ray.wait([running], timeout=POLL_S)[0]:
        if should_stop():
            ray.cancel(running, force=True)
            raise Interrupted
    return fetch(running, relief="evaluation.held_out to 0, or take a larger GPU")


def _environment(on_gpu: bool) -> dict[str, Any]:
    cpu_only = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "false"}
    return {"runtime_env": {"env_vars": {} if on_gpu else cpu_only}}


def _start(settings: FineTuning, placement: Placement) -> list[Any]:
    own = _environment(settings.on_gpu)
    return [
        ray.remote(TrainerRank).options(**placement.rank(rank), **own).remote()
        for rank in range(settings.training.ranks)
    ]


def rank_main(settings: FineTuning, kind: Kind, mailbox: Any) -> str:
    """Be one rank. Returns what a new start would not mend, as a line for the user; raises all else."""
    saving = CheckpointCallback(settings)
    callbacks = [
        saving,
        LearningRateCallback(),
        ReportCallback(lambda step, metrics: ray.get(mailbox.post.remote(step, metrics)), kind.names),
    ]
    try:
        torch.distributed.init_process_group("nccl" if settings.on_gpu else "gloo", timeout=MEETING)
        trainer = saving.trainer = kind.make_trainer(settings, callbacks)
    except Exception as error:
        return _one_line(error, kind.relief)
    try:
        newest = latest_checkpoint(settings.checkpoints)
        fine_tune(trainer, settings, newest.path / STATE if newest else None)
    except Exception as error:
        if not isinstance(error, UserError) and type(error).__name__ != "OutOfMemoryError":
            raise
        return _one_line(error, kind.relief)
    return ""


def _one_line(error: BaseException, relief: str) -> str:
    """Return an error as one line; what Ray wraps around it is left out."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, UserError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":
        return f"out of GPU memory ({lines[0]}); lower {relief}"
    return f"training: {type(error).__name__}: {lines[-1]}"


def _explained(error: RayActorError | RayTaskError, ranks: list[Any], relief: str) -> UserError:
    """Return what stopped the ranks as one line; the whole of it is in Ray's log."""
    if isinstance(error, RayTaskError):
        return UserError(f"a rank failed again and again ({_one_line(error.cause, relief)}); Ray's log has all of it")
    return ProcessDied(
        f"training: rank {number_of(error, ranks)} died ({how_it_died(error)}), and no new start is left "
        f"(training.max_restarts); often memory: lower {relief}"
    )
