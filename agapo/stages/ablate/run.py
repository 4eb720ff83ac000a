"""Run all that an ablation asks for: each run is an `agapo rl` of its own, and is kept like any other.

Stopped, it goes on where it was: finished runs are not made again, and one that was stopped resumes. Runs that differ
in the variant alone see the same questions in the same order, and begin with the same weights.
"""

import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agapo.errors import Interrupted, UserError
from agapo.recipe import RLRecipe, load_recipe
from agapo.recipe.ablation import Ablation
from agapo.stages.ablate.results import report
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.start import starting_model
from agapo.tracking import read_json, say
from agapo.tracking.progress import format_duration

POLL_S = 0.5


@dataclass(frozen=True)
class Run:
    """One run of an ablation."""

    start: str
    updates: int
    variant: str
    seed: int
    overrides: tuple[str, ...]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether it is done."""
        return bool((read_json(self.folder / "summary.json") or {}).get("finished"))


def run_ablation(own: Ablation, path: Path) -> None:
    """Make the runs that are lacking, and report on all. Raises UserError where some failed, after the others."""
    folder = own.output / "ablate" / (own.name or path.stem)
    runs = list(runs_of(own, folder))
    recipes = {run: load_recipe(RLRecipe, own.base, list(run.overrides)) for run in runs}
    lacking = [run for run in runs if not run.finished]
    say(f"{len(runs)} runs below {folder}, {len(runs) - len(lacking)} of them finished")
    with StopRequest() as stop:
        # Made once, before several runs would make it.
        for overrides in {tuple(own.starts[run.start]): run for run in lacking}.values():
            starting_model(recipes[overrides])
        failed = _make(lacking, own, stop)
    if stop():
        raise Interrupted
    report(runs, folder, reference=next(iter(own.variants)))
    if failed:
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed, the first: {failed[0].folder}.log ({_last(failed[0])})"
        )


def runs_of(own: Ablation, folder: Path) -> Iterator[Run]:
    """Yield the runs, seed by seed: what is there when it is stopped compares all variants."""
    for seed, start, updates, variant in itertools.product(range(own.seeds), own.starts, own.updates, own.variants):
        name = f"{start}-{updates}-{variant}-{seed}"
        overrides = (
            *own.overrides,
            *own.starts[start],
            *own.variants[variant],
            f"algorithm.updates_per_batch={updates}",
            # The best of many evaluations would flatter what varies most.
            "evaluation.keep=last",
            "tracking.wandb=disabled",
            f"run.seed={seed}",
            f"run.name={name}",
            f"run.output={folder}",
        )
        yield Run(start, updates, variant, seed, overrides, folder / "rl" / name)


def _make(lacking: list[Run], own: Ablation, stop: StopRequest) -> list[Run]:
    """Make runs, `parallel` at once; return those that failed. What runs when a stop is asked for saves and ends."""
    waiting, failed, began = list(reversed(lacking)), [], time.monotonic()
    running: dict[Run, subprocess.Popen[bytes]] = {}
    while running or (waiting and not stop()):
        while waiting and len(running) < own.parallel and not stop():
            run = waiting.pop()
            running[run] = _begun(run, own.base)
        if stop():
            for process in running.values():
                process.send_signal(signal.SIGTERM)
        time.sleep(POLL_S)
        for run in [run for run, process in running.items() if process.poll() is not None]:
            running.pop(run)
            if not run.finished and not stop():
                failed.append(run)
            done = len(lacking) - len(waiting) - len(running)
            left = (time.monotonic() - began) / done * (len(lacking) - done)
            say(f"{done} of {len(lacking)}: {run.folder.name} {_came_to(run)}, {format_duration(left)} left")
    return failed


def _begun(run: Run, base: Path) -> "subprocess.Popen[bytes]":
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "agapo", "rl", str(base), *run.overrides]
    with Path(f"{run.folder}.log").open("ab") as log:
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        # A group of its own: Ctrl-C is for this process, which passes it on once.
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"COLUMNS": "120"}, process_group=0)


def _came_to(run: Run) -> str:
    after = (read_json(run.folder / "summary.json") or {}).get("after") if run.finished else None
    return "failed" if after is None else " ".join(f"{mode} {100 * share:.1f}%" for mode, share in after.items())


def _last(run: Run) -> str:
    lines = Path(f"{run.folder}.log").read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "no word")
