"""Sampling ahead (`rollout.max_staleness`) beside taking turns: wall-clock, staleness, idle time and accuracy.

    python -m benchmarks.ahead [--rounds 3] [--steps 100] [--staleness 0 1 2 4] [--out FOLDER] [key=value ...]

Runs of the tiny recipe one after another, each round with a seed of its own and every bound once, in another order each
round. One rollout actor and one learner rank, each on a core of its own: so they do not help each other out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

RECIPE = "recipes/rl/tiny.yaml"
WARM_UP = 5
"""Steps that are not timed."""
ALONE = (
    "rollout.actors=1",
    "learner.ranks=1",
    "rollout.threads=1",
    "learner.threads=1",
    "evaluation.every=0",
    "tracking.wandb=disabled",
)
CORES = {"ray::RolloutAct": 0, "ray::RankActor": 1}
"""Of processes, by their names (the system cuts them at 15 letters)."""


def main() -> None:
    """Run, print a table, and write `ahead.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/ahead"))
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    own = parser.parse_args()
    found: list[dict[str, Any]] = []
    for number in range(own.rounds):
        bounds = own.staleness[number % len(own.staleness) :] + own.staleness[: number % len(own.staleness)]
        for bound in bounds:
            found.append(run(own.out, number, bound, own.steps, own.overrides))
            own.out.mkdir(parents=True, exist_ok=True)
            (own.out / "ahead.json").write_text(json.dumps(found, indent=1))
    print(table(found))


def run(out: Path, seed: int, bound: int, steps: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Make a run, pinned, and return its figures."""
    name = f"ahead-{bound}-seed-{seed}"
    command = [sys.executable, "-m", "agapo", "rl", RECIPE, f"run.output={out}", f"run.name={name}", f"run.seed={seed}"]
    command += [f"steps={steps}", f"rollout.max_staleness={bound}", *ALONE, *overrides]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    stop = threading.Event()
    pinner = threading.Thread(target=_pin, args=(stop,), daemon=True)
    pinner.start()
    status = process.wait()
    stop.set()
    pinner.join()
    if status:
        raise SystemExit(f"{name} ended with status {status}")
    folder = out / "rl" / name
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = [row for row in rows if "time/step" in row and row["step"] > WARM_UP]

    def mean(key: str) -> float:
        return statistics.fmean(row.get(key, 0.0) for row in timed)

    summary = json.loads((folder / "summary.json").read_text())
    return {
        "seed": seed,
        "max_staleness": bound,
        "s a step": mean("time/step"),
        "waiting for groups s": mean("time/generate") + mean("time/score"),
        "learn s": mean("time/learn"),
        "staleness": mean("staleness/mean"),
        "staleness max": max(row.get("staleness/max", 0.0) for row in timed),
        "tokens a step": mean("rollout/tokens"),
        "before": statistics.fmean(summary["before"].values()),
        "after": statistics.fmean(summary["after"].values()),
    }


def _pin(stop: threading.Event) -> None:
    """Keep actors and ranks on their cores, all threads of each."""
    while not stop.wait(0.5):
        for process in psutil.process_iter(["name"]):
            core = CORES.get((process.info["name"] or "")[:15])
            if core is not None:
                try:
                    for thread in process.threads():
                        os.sched_setaffinity(thread.id, {core})
                except (psutil.Error, OSError):
                    continue


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the figures by bound: means over seeds, the ratio to taking turns with its spread."""
    lines = [
        "| max_staleness | s a step | of taking turns | staleness, most | before → after, % |",
        "|---|---|---|---|---|",
    ]
    turns = {row["seed"]: row["s a step"] for row in found if row["max_staleness"] == 0}
    for bound in sorted({row["max_staleness"] for row in found}):
        rows = [row for row in found if row["max_staleness"] == bound]
        ratios = [row["s a step"] / turns[row["seed"]] for row in rows if row["seed"] in turns]
        accuracies = ", ".join(f"{100 * row['before']:.1f} → {100 * row['after']:.1f}" for row in rows)
        ratio = f"{statistics.fmean(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "–"
        lines.append(
            f"| {bound} | {statistics.fmean(row['s a step'] for row in rows):.2f} | {ratio} "
            f"| {statistics.fmean(row['staleness'] for row in rows):.2f}, "
            f"{max(row['staleness max'] for row in rows):g} | {accuracies} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
