"""CPU time that Ray, pool and scorer take a response, by the number of rollout actors.

    python -m benchmarks.scaling [--actors 8 64 512] [--responses 16384] [--rate 512] [--out FILE] [--plot FILE]

Real: `sample_and_score`, `RolloutPool` with its `Dispatch`, the `Scorer` with a verifier pool of two processes (math
answers), and a call of Ray's each slice of work, to other processes, with answers of real size. Simulated: the engines
(`benchmarks.crowd`), which wait instead of sampling, and 64 of which share a process.

All sizes have the same responses a second together (an actor of many is slower), so that nothing but the number of
actors differs.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from agapo.cluster import in_cluster
from agapo.recipe.reward import RewardConfig
from agapo.recipe.rollout import VLLMConfig
from agapo.rewarding.scorer import Scorer
from agapo.rewarding.start import start_scorer
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.sampling import sample_and_score
from agapo.schema import Prompt
from benchmarks.crowd import A_SLICE, Crowd, CrowdPool

GROUP, IN_FLIGHT = 8, 16
REWARD = {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}], "workers": 2}
PARTS = {
    "loop": "driver: pool, dispatch, groups",
    "driver_ray": "driver: Ray's threads",
    "driver_scorer": "driver: scorer's threads",
    "ray": "Ray's own processes",
    "verifiers": "verifier workers",
}
"""Whose CPU time it is. That of the actors' processes, with a share of Ray's in it, stands besides (`simulated`)."""

Figures = dict[str, float]


def main() -> None:
    """Measure each size, and write figures and plot."""
    options = _parse()
    with in_cluster(None):
        rows = [measure(actors, options.responses, options.rate) for actors in options.actors]
    found = {"date": date.today().isoformat(), "cores": os.cpu_count(), "rate": options.rate, "sizes": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1))
    if options.plot:
        draw(rows, options.plot)


def _parse() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("--actors", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--responses", type=int, default=16384, help="responses a size")
    parser.add_argument("--rate", type=float, default=512, help="responses a second that the actors finish together")
    parser.add_argument("--out", type=Path, default=Path("outputs/scaling.json"))
    parser.add_argument("--plot", type=Path, help="an SVG file")
    return parser.parse_args()


def measure(actors: int, responses: int, rate: float) -> Figures:
    """Return microseconds of CPU a response by part, and what there is to say of the size."""
    settings = EngineSettings("none", engine="vllm", vllm=VLLMConfig(in_flight=IN_FLIGHT))
    pool = CrowdPool(settings, Crowd, actors * A_SLICE / rate, actors=actors)
    scorer = start_scorer(RewardConfig.model_validate(REWARD))
    try:
        pool.wait_ready()
        _sample(pool, scorer, 4 * GROUP)  # the first calls import
        before, actors_before, began = cpu_times(), pool.actors_cpu_s(), time.monotonic()
        assert _sample(pool, scorer, responses) == responses / 2, "every second answer is right"
        wall_s, after = time.monotonic() - began, cpu_times()
        spent = {name: after[name] - before[name] for name in PARTS}
        spent["simulated"] = pool.actors_cpu_s() - actors_before
    finally:
        scorer.close()
        pool.close()
    figures = {name: round(1e6 * seconds / responses, 1) for name, seconds in spent.items()}
    row = {"actors": actors, "responses": responses, "wall_s": round(wall_s, 1), **figures}
    row["total"] = round(sum(row[name] for name in PARTS), 1)
    print(", ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)
    return row


def _sample(pool: CrowdPool, scorer: Scorer, responses: int) -> int:
    """Sample and score so many responses; return how many were right."""
    message = {"role": "user", "content": "What is 0 + 1?"}
    requests = [
        PromptRequest(Prompt(f"p{number}", (message,), mode="non_reasoning", columns={"answer": "1"}), tuple(range(64)))
        for number in range(responses // GROUP)
    ]
    params = SamplingParams(group_size=GROUP, max_new_tokens=256)
    chunks = sample_and_score(pool, scorer, requests, params, chunk_prompts=1)
    return sum(bool(response.correct) for groups in chunks for group in groups for response in group.responses)


def cpu_times() -> Figures:
    """Return the CPU seconds so far of this process's threads and of the processes below it, by part."""
    own = psutil.Process()
    threads = {thread.id: thread.user_time + thread.system_time for thread in own.threads()}
    verifier = {thread.native_id for thread in threading.enumerate() if thread.name.startswith(("verifier", "scorer"))}
    loop = threads[threading.get_native_id()]
    scoring = sum(seconds for number, seconds in threads.items() if number in verifier)
    found = {"loop": loop, "driver_scorer": scoring, "ray": 0.0, "verifiers": 0.0}
    found["driver_ray"] = sum(threads.values()) - loop - scoring
    for part, seconds in _children(own):
        found[part] += seconds
    return found


def _children(own: psutil.Process) -> Iterator[tuple[str, float]]:
    for process in own.children(recursive=True):
        try:
            command, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        if "agapo.rewarding.worker" in command:
            yield "verifiers", times.user + times.system
        elif any(name in command for name in ("gcs_server", "raylet/raylet", "dashboard", "runtime_env/agent")):
            yield "ray", times.user + times.system


def draw(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write the plot."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "agapo"
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes: Any = figure.subplots()
    places, bottom = range(len(rows)), [0.0] * len(rows)
    for name, label in PARTS.items():
        heights = [row[name] for row in rows]
        axes.bar(places, heights, bottom=bottom, width=0.5, label=label)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.set_xticks(places, [f"{row['actors']:g}" for row in rows])
    axes.set_xlabel("simulated rollout actors")
    axes.set_ylabel("CPU µs a response")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
