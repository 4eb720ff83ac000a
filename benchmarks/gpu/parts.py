"""The parts of the check, in order of worth, and how one is run: in a process of its own, with a time limit."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gpu.records import Recorder, read_records


@dataclass(frozen=True)
class Part:
    """One part: the module with its `run(setting)`, and how long it may take."""

    name: str
    module: str
    limit_s: int


PARTS = (
    Part("correct", "benchmarks.gpu.correct", 110),
    Part("memory", "benchmarks.gpu.memory", 110),
    Part("learn", "benchmarks.gpu.learn", 110),
    Part("sample", "benchmarks.gpu.sample", 110),
    Part("run", "benchmarks.gpu.loop", 155),
)
BY_NAME = (Part("transports", "benchmarks.gpu.transports", 110), Part("vllm", "benchmarks.gpu.vllm_engine", 400))
"""Only by their names: one wants a second GPU to be whole, the other another environment."""

RESULTS = "results.json"


@dataclass(frozen=True)
class Outcome:
    """How a part went."""

    name: str
    seconds: float
    problem: str
    """Why it did not come to its end; empty when it did."""
    about: str = ""
    """Date, device and versions."""


def run_part(part: Part, out: Path, arguments: list[str], about: str = "") -> Outcome:
    """Run a part in a process group of its own; one that fails, hangs or dies takes nothing else with it."""
    started = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.gpu", "--only", part.name, "--out", str(out), "--here", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    problem = ""
    try:
        _, errors = process.communicate(timeout=part.limit_s)
        if process.returncode:
            problem = _last_line(errors) or f"ended with status {process.returncode}"
            (out / f"{part.name}.stderr").write_text(errors)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        problem = f"stopped after its {part.limit_s} s"
        (out / f"{part.name}.stderr").write_text(errors)
    return Outcome(part.name, time.monotonic() - started, problem, about)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def run_here(part: Part, out: Path, *, small: bool, weights: Path | None) -> None:
    """Run a part in this process. What it imports at its top must be torch, transformers and numpy alone."""
    from benchmarks.gpu.setting import REAL, SMALL, Setting

    scratch = Path(tempfile.mkdtemp(prefix="agapo-gpu-"))
    setting = Setting(
        device="cpu" if small else "cuda",
        sizes=SMALL if small else REAL,
        record=Recorder(out / f"{part.name}.jsonl"),
        scratch=scratch,
        weights=weights,
    )
    try:
        importlib.import_module(part.module).run(setting)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def earlier_outcomes(out: Path, anew: Sequence[Part]) -> list[Outcome]:
    """Return how the parts went, in an earlier call with the same folder, that are not run anew."""
    written = out / RESULTS
    parts = json.loads(written.read_text())["parts"] if written.exists() else []
    return [Outcome(**part) for part in parts if part["name"] not in {item.name for item in anew}]


def write_results(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Write results.json and results.md from what the parts have recorded."""
    from benchmarks.gpu.records import markdown

    order = [part.name for part in (*PARTS, *BY_NAME)]
    outcomes = sorted(outcomes, key=lambda outcome: order.index(outcome.name))
    found = {outcome.name: read_records(out / f"{outcome.name}.jsonl") for outcome in outcomes}
    rows = {name: [asdict(record) for record in records] for name, records in found.items()}
    results = {"parts": [asdict(outcome) for outcome in outcomes], "records": rows}
    (out / RESULTS).write_text(json.dumps(results, indent=1))
    parts = [
        markdown(f"{o.name} ({o.seconds:.0f} s{f'; {o.problem}' if o.problem else ''}; {o.about})", found[o.name])
        for o in outcomes
    ]
    (out / "results.md").write_text("\n".join(parts))
