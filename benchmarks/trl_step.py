"""A step of TRL's GRPOTrainer beside a step of agapo's RL loop: same model, prompts, group size, limits and cores.

    python -m benchmarks.trl_step [--pairs 5] [--steps 10] [--model HF_FOLDER] [--out FILE]

Runs are paired, A B A B …, each in a process of its own on the same cores, so that a busy machine hurts both. A step
is timed from the end of the one before to its own end; the first steps of each run and the start-up do not count. A
pair's ratio is TRL's median step over agapo's. That both sides saw the same prompt tokens is checked at every step.

Not compared here: how fast the two learn. The learning rate is tiny by default, so that both sides keep sampling from
the same policy and their responses stay equally long; each optimizes its own objective.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

from agapo.tracking.files import write_json_atomic
from benchmarks import report
from benchmarks.work import ROOT, Run, Step, Work, pin, starting_folder

SIDES = ("trl", "agapo")


def main() -> None:
    """Run all pairs and print the comparison; with --side, run one side and print its times as JSON."""
    options = parse(sys.argv[1:])
    if options.side:
        _run_side(options.side, work_of(options, options.model))
        return
    with _model(options.model) as (folder, origin):
        _compare(work_of(options, folder), origin, options)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options of a command line."""
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trl_step", description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5, help="paired runs (default 5)")
    parser.add_argument("--steps", type=int, default=10, help="counted steps of each run (default 10)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them that do not count (default 2)")
    parser.add_argument("--model", default="", help="Hugging Face folder (default: the tiny recipe's SFT model)")
    parser.add_argument("--prompts", type=int, default=16, help="prompts a step (default 16)")
    parser.add_argument("--group", type=int, default=8, help="responses a prompt (default 8)")
    parser.add_argument("--max-new-tokens", type=int, default=96, help="limit of a response (default 96)")
    parser.add_argument("--kl", type=float, default=0.0, help="KL coefficient of both sides (default 0)")
    parser.add_argument("--learning-rate", type=float, default=1e-6, help="of both sides (default 1e-6)")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores of each side (default 2)")
    parser.add_argument("--out", type=Path, help="also write everything measured to this JSON file")
    parser.add_argument("--side", choices=SIDES, help="run one side only")
    parser.add_argument("--json", action="store_true", help="with --side: print the times as JSON (always so)")
    options = parser.parse_args(arguments)
    if min(options.pairs, options.steps) < 1 or options.warmup < 0:
        parser.error("--pairs and --steps should be at least 1, --warmup at least 0")
    if options.side and not options.model:
        parser.error("--side needs --model")
    return options


def work_of(options: argparse.Namespace, model: str) -> Work:
    """Return one side's work; the steps include the warm-up."""
    return Work(
        model=str(Path(model).resolve()),
        steps=options.warmup + options.steps,
        prompts=options.prompts,
        group=options.group,
        max_new_tokens=options.max_new_tokens,
        kl=options.kl,
        learning_rate=options.learning_rate,
        threads=options.threads,
    )


@contextlib.contextmanager
def _model(given: str) -> Iterator[tuple[str, str]]:
    """Give (folder, what it is) of the model to time, made for the while where there is none."""
    with tempfile.TemporaryDirectory() as temporary:
        yield (given, "given") if given else starting_folder(Path(temporary) / "model")


def _run_side(side: str, work: Work) -> None:
    """Run one side; all that it says goes to stderr, and its times as JSON to stdout."""
    pin(work.threads)
    with contextlib.redirect_stdout(sys.stderr):
        if side == "trl":
            from benchmarks.trl_side import run
        else:
            from benchmarks.agapo_side import run
        result = run(work)
    print(json.dumps(asdict(result)))


def _compare(work: Work, origin: str, options: argparse.Namespace) -> None:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed warns, on import, that it finds nothing else
    shared = _shared_settings(work, origin, options.warmup)
    pairs: list[report.Pair] = []
    last: dict[str, Run] = {}
    for number in range(options.pairs):
        spawned: dict[str, float] = {}
        for side in SIDES:
            spawned[side] = time.time()
            last[side] = _spawn(side, work)
        pair = report.make_pair(last["trl"], last["agapo"], spawned, options.warmup)
        pairs.append(pair)
        if number == 0:
            print(report.settings_table(shared, last["trl"], last["agapo"]) + "\n")
        print(f"pair {number + 1}: {pair.trl.step_s:.3f} s / {pair.agapo.step_s:.3f} s = {pair.ratio:.2f}", flush=True)
    for text in (report.pairs_table, report.totals_table, report.phase_table, report.headline):
        print("\n" + text(pairs))
    if options.out:
        write_json_atomic(options.out, report.as_json(shared, last["trl"], last["agapo"], pairs))


def _shared_settings(work: Work, origin: str, warmup: int) -> dict[str, str]:
    from agapo.model.loading import load_model

    parameters = sum(weight.numel() for weight in load_model(work.model).parameters())
    return {
        "model": f"{origin}, {parameters / 1e6:.3f} M parameters",
        "cores": f"{work.threads}, pinned; OpenMP threads wait asleep (OMP_WAIT_POLICY=PASSIVE)",
        "steps": f"{work.steps}, the first {warmup} not counted",
        "evaluation, checkpoints, W&B": "none",
        "machine": report.machine(),
        "versions": f"Python {sys.version.split()[0]}, {report.versions()}",
    }


def _spawn(side: str, work: Work) -> Run:
    """Run one side in a process of its own. Exits with the end of what it said when it fails."""
    command = [sys.executable, "-m", "benchmarks.trl_step", *side_arguments(side, work)]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side}: the run failed:\n{done.stderr[-3000:]}")
    return _parse_run(json.loads(done.stdout.splitlines()[-1]))


def side_arguments(side: str, work: Work) -> list[str]:
    """Return the command line of one side's process, which gives it the same work."""
    # `changes` is what the GPU check asks for; these sides have no option for it.
    values = {item.name.replace("_", "-"): getattr(work, item.name) for item in fields(work) if item.name != "changes"}
    return ["--side", side, "--json", "--warmup", "0", *(f"--{name}={value}" for name, value in values.items())]


def _parse_run(content: dict) -> Run:
    return Run(content["ready_at"], [Step(**step) for step in content["steps"]], content["settings"])


if __name__ == "__main__":
    main()
