"""`python -m benchmarks.gpu [--only PART] [--out FOLDER] [--weights PATH] [--small] [--plan]`.

Deliberately argparse, and nothing but torch, transformers and numpy: it has to run on a machine that has only these.
"""

import argparse
import datetime
import platform
import sys
from pathlib import Path

from benchmarks.gpu.parts import BY_NAME, PARTS, earlier_outcomes, run_here, run_part, write_results


def main() -> int:
    """Run the parts, each in a process of its own; return 1 when one of them did not come to its end."""
    own = _arguments()
    if own.plan:
        return _plan()
    chosen = [part for part in (*PARTS, *BY_NAME) if own.only == part.name] or list(PARTS)
    own.out.mkdir(parents=True, exist_ok=True)
    if own.here:
        run_here(chosen[0], own.out, small=own.small, weights=own.weights)
        return 0
    about = _about(own.small)
    passed_on = [*(["--small"] if own.small else []), *(["--weights", str(own.weights)] if own.weights else [])]
    outcomes = earlier_outcomes(own.out, chosen)
    for part in chosen:
        print(f"{part.name} (at most {part.limit_s} s)", flush=True)
        outcomes.append(run_part(part, own.out, passed_on, about))
        problem = outcomes[-1].problem
        print(f"  {'stopped: ' + problem if problem else 'done'}, {outcomes[-1].seconds:.0f} s", flush=True)
        # After each, so that what is measured is there even when the machine is taken away.
        write_results(own.out, outcomes)
    print(f"results: {own.out / 'results.md'}")
    return int(any(outcome.problem for outcome in outcomes[-len(chosen) :]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Check and measure agapo on a GPU.")
    parser.add_argument("--only", choices=[part.name for part in (*PARTS, *BY_NAME)], help="one part instead of all")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"), help="where results go (outputs/gpu)")
    parser.add_argument("--weights", type=Path, help="a Hugging Face folder or GGUF file of real weights, for `run`")
    parser.add_argument("--small", action="store_true", help="small shapes on the CPU: tries the check itself")
    parser.add_argument("--plan", action="store_true", help="only say how long each part should take on an H100")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    own = parser.parse_args()
    if own.weights and not own.weights.exists():
        parser.error(f"--weights {own.weights}: no such folder or file")
    if own.weights and own.weights.is_dir() and not (own.weights / "config.json").exists():
        parser.error(f"--weights {own.weights}: has no config.json; give a Hugging Face folder or a GGUF file")
    if own.weights and own.weights.is_file() and own.weights.open("rb").read(4) != b"GGUF":
        parser.error(f"--weights {own.weights}: is no GGUF file; give one, or a Hugging Face folder")
    if not own.small and not own.plan and not _has_gpu():
        parser.error("PyTorch sees no CUDA device here; --small runs every part at small shapes on the CPU")
    return own


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _about(small: bool) -> str:
    import torch
    import transformers

    device = "CPU, small shapes" if small else torch.cuda.get_device_name()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{datetime.datetime.now():%Y-%m-%d}, {device}, {versions}"


def _plan() -> int:
    from benchmarks.gpu.estimate import estimates

    total = 0.0
    for part, item in zip(PARTS, estimates(), strict=True):
        total += item.seconds
        counts = (
            f"{item.operations:.1e} operations, {item.decode_steps:,} decode steps, {item.other_s:.0f} s of starting"
        )
        print(f"{part.name:8} about {item.seconds:4.0f} s (limit {part.limit_s} s): {counts}")
    print(f"{'together':8} about {total:4.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
