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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agapo.errors import Interrupted, UserError
from agapo.recipe import RLRecipe, load_recipe
from agapo.recipe.ablation import Ablation
from agapo.recipe.run import ABLATIONS
from agapo.stages.ablate.results import report
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.start import starting_model
from agapo.tracking import is_finished, read_json, say
from agapo.tracking.ownership import describe_other_version, is_over
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
        """Whether it is done, as far as its folder says."""
        return is_finished(self.folder)


def run_ablation(own: Ablation, path: Path) -> None:
    """Make the runs that are lacking, and report on all. Raises UserError where some failed, after the others.

    What is wrong in some run's recipe, and runs that others of their names have left, are said before any is made.
    """
    folder = own.output / ABLATIONS / (own.name or path.stem)
    runs = list(runs_of(own, folder))
    recipes = recipes_of(runs, own.base)
    lacking = [run for run in runs if not is_over(run.folder, recipes[run])]
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


def recipes_of(runs: Sequence[Run], base: Path) -> dict[Run, RLRecipe]:
    """Return each run's recipe. Raises UserError where one is none, is another's too, or its folder holds another's."""
    found: dict[Run, RLRecipe] = {}
    alike: dict[str, Run] = {}
    for run in runs:
        try:
            found[run] = load_recipe(RLRecipe, base, list(run.overrides))
        except UserError as error:
            raise UserError(f"{run.folder.name}: {error}") from None
        content = found[run].model_dump_json(exclude={"run": {"name"}})
        if (other := alike.setdefault(content, run)) is not run:
            raise UserError(
                f"{other.folder.name} and {run.folder.name} are one recipe: the overrides in which they differ change "
                "nothing; leave one of them out"
            )
    stale = [(run, changes) for run, own in found.items() if (changes := describe_other_version(run.folder, own))]
    if stale:
        run, changes = stale[0]
        raise UserError(
            f"{run.folder}: holds a run of another recipe ({changes})"
            + (f", and so do {len(stale) - 1} more" if len(stale) > 1 else "")
            + "; name a new ablation with name=…, or delete them"
        )
    return found


def _make(lacking: list[Run], own: Ablation, stop: StopRequest) -> list[Run]:
    """Make runs, `parallel` at once; return those that failed. What runs when a stop is asked for saves and ends."""
    waiting, failed, began = list(reversed(lacking)), [], time.monotonic()
    running: dict[Run, subprocess.Popen[bytes]] = {}
    told: set[Run] = set()
    try:
        while running or (waiting and not stop()):
            while waiting and len(running) < own.parallel and not stop():
                run = waiting.pop()
                running[run] = _begun(run, own.base)
            if stop():
                for run in running.keys() - told:
                    running[run].send_signal(signal.SIGTERM)
                    told.add(run)
            time.sleep(POLL_S)
            for run in [run for run, process in running.items() if process.poll() is not None]:
                if went_wrong := running.pop(run).returncode != 0 and not stop():
                    failed.append(run)
                done = len(lacking) - len(waiting) - len(running)
                left = (time.monotonic() - began) / done * (len(lacking) - done)
                came_to = _came_to(run, went_wrong)
                say(f"{done} of {len(lacking)}: {run.folder.name} {came_to}, {format_duration(left)} left")
    finally:
        # A second Ctrl-C, say: nobody would be there to stop them.
        for process in running.values():
            process.send_signal(signal.SIGINT)
    return failed


def _begun(run: Run, base: Path) -> "subprocess.Popen[bytes]":
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "agapo", "rl", str(base), *run.overrides]
    with Path(f"{run.folder}.log").open("ab") as log:
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        # A group of its own: Ctrl-C is for this process, which passes it on once.
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"COLUMNS": "120"}, process_group=0)


def _came_to(run: Run, went_wrong: bool) -> str:
    if went_wrong:
        return "failed"
    if not run.finished:
        return "stopped"
    after: dict[str, float] = (read_json(run.folder / "summary.json") or {}).get("after", {})
    return " ".join(f"{mode} {100 * share:.1f}%" for mode, share in after.items())


def _last(run: Run) -> str:
    lines = Path(f"{run.folder}.log").read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "no word")
