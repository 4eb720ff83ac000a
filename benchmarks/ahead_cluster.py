"""Sampling ahead (`rollout.max_staleness`) on a simulated cluster, beside taking turns and beside perfect overlap.

    python -m benchmarks.ahead_cluster [--actors 64] [--staleness 0 1 2 4] [--learning 1.0] [--steps 5] [--out FILE]
    python -m benchmarks.ahead_cluster --keep 0.7 --oversample      # where groups are dropped: refill rounds, or not

Real: the RL loop's `Collector`, `Ahead`, `RolloutPool` with its `Dispatch`, and a call of Ray's each slice of work, to
other processes, with answers of real size. Simulated: the engines (64 to a process), each with a window of responses
that all advance at one rate; the learner, which sleeps; verdicts, which are there at once, and say which groups are
kept. Lengths are log-normal with sigma 1, cut at a limit, and the same whatever the bound.

Perfect overlap is max(sampling, learning), where sampling is the steps' tokens over what all windows decode when full.
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from agapo.cluster import in_cluster
from agapo.curation.prompts import PromptStream
from agapo.recipe import RLRecipe
from agapo.recipe.rollout import VLLMConfig
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import ResponseId
from agapo.schema import Batch, Group, Prompt
from agapo.stages.rl.collector import Collector
from agapo.stages.rl.metrics import Clock, staleness_metrics
from agapo.stages.rl.progress import Progress
from benchmarks.crowd import CrowdPool
from benchmarks.decoding import LIMIT, WINDOW, Decoding, length_of

GROUP = 8
ROUNDS = 4
"""Responses a step for each place in a window: so many responses, one after another, a step takes at least."""


@dataclass(frozen=True)
class Setting:
    """What is simulated."""

    actors: int = 64
    rate: float = 300.0
    """Tokens a second of each response that is being decoded."""
    learning: float = 1.0
    """Seconds of learning for each second of sampling with full windows."""
    steps: int = 5
    """Steps that are timed."""
    keep: float = 1.0
    """Share of the groups that is kept."""

    @property
    def prompts(self) -> int:
        """Prompts a step."""
        return self.actors * WINDOW * ROUNDS // GROUP

    @property
    def learning_s(self) -> float:
        """Seconds of a step's learning."""
        lengths = [length_of(ResponseId(f"p{number}", 0, 0)) for number in range(10_000)]
        return self.learning * ROUNDS * float(np.mean(lengths)) / self.rate


@dataclass(frozen=True)
class Found:
    """What came of a bound, a step, over those that were timed."""

    max_staleness: int
    oversample: bool
    step_s: float
    sampling_s: float
    """With all windows full."""
    learning_s: float
    staleness: float
    staleness_max: float

    @property
    def overlap_s(self) -> float:
        """Seconds with perfect overlap."""
        return max(self.sampling_s, self.learning_s)


def main() -> None:
    """Run with each bound, print a table, and write the figures."""
    own = _parse()
    setting = Setting(own.actors, own.rate, own.learning, own.steps, own.keep)
    with in_cluster(None):
        found = [simulate(setting, bound) for bound in own.staleness]
        if own.oversample:
            found.append(simulate(setting, 0, oversample=True))
    own.out.parent.mkdir(parents=True, exist_ok=True)
    own.out.write_text(json.dumps({"setting": asdict(setting), "found": list(map(asdict, found))}, indent=1))
    print(table(found))


def _parse() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ahead_cluster", description=__doc__.partition("\n")[0])
    parser.add_argument("--actors", type=int, default=64)
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 2, 4], metavar="K")
    parser.add_argument("--rate", type=float, default=300.0, help="tokens a second of a response")
    parser.add_argument("--learning", type=float, default=1.0, help="seconds of learning a second of full sampling")
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after as many as the bound is and one")
    parser.add_argument("--keep", type=float, default=1.0, help="share of the groups that is kept")
    parser.add_argument("--oversample", action="store_true", help="take turns with rollout.oversample, too")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/ahead_cluster.json"))
    return parser.parse_args()


def simulate(setting: Setting, bound: int, *, oversample: bool = False) -> Found:
    """Run the loop with a bound."""
    settings = EngineSettings("none", engine="vllm", vllm=VLLMConfig(in_flight=WINDOW))
    pool = CrowdPool(settings, Decoding, setting.rate, actors=setting.actors)
    try:
        pool.wait_ready()
        return _run(_collector(setting, pool, bound, oversample), setting, bound)
    finally:
        pool.close()


def _run(collector: Collector, setting: Setting, bound: int) -> Found:
    progress, learning_s = collector.progress, setting.learning_s
    began, tokens, stale = 0.0, 0, list[dict[str, float]]()
    with collector.at_work():
        for step in range(-1 - bound, setting.steps):
            if step == 0:  # what the first steps had to wait for has gone through
                began, tokens, stale = time.monotonic(), 0, []
            collected = collector.collect(Clock())
            tokens += sum(len(response.token_ids) for group in collected.groups for response in group.responses)
            stale.append(staleness_metrics(Batch(tuple(collected.groups), (), (), 0), collected.version, 1))
            time.sleep(learning_s)
            progress.updates += 1
            collector.bring_weights()
            progress.step += 1
            progress.cursor += collected.prompts
            progress.note_kept(len(collected.kept), collected.prompts)
        took = time.monotonic() - began
    found = Found(
        bound,
        collector.recipe.rollout.oversample,
        step_s=took / setting.steps,
        sampling_s=tokens / setting.rate / (setting.actors * WINDOW) / setting.steps,
        learning_s=learning_s,
        staleness=float(np.mean([row["staleness/mean"] for row in stale])),
        staleness_max=max(row["staleness/max"] for row in stale),
    )
    print(found, flush=True)
    return found


def _collector(setting: Setting, pool: CrowdPool, bound: int, oversample: bool) -> Collector:
    """Return the RL loop's, as far as it is used here."""
    recipe = RLRecipe.model_validate(
        {
            # It is left in the middle: its last steps would have nothing to sample ahead.
            "steps": 10_000,
            "prompts_per_step": setting.prompts,
            "data": {"source": "data.arithmetic:prompts"},
            "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
            "rollout": {
                "engine": "vllm",
                "actors": setting.actors,
                "group_size": GROUP,
                "max_new_tokens": LIMIT,
                "chunk_prompts": 1,
                "max_staleness": bound,
                "oversample": oversample,
            },
        }
    )
    return Collector(
        recipe=recipe,
        run=cast(Any, None),
        stream=PromptStream([Prompt(f"p{number}", ()) for number in range(100_000)], {"reasoning": 1.0}, seed=0),
        render=lambda _: tuple(range(64)),
        pool=pool,
        scorer=Mixed(setting.keep),
        weight_sync=cast(Any, lambda version: pool.set_weights("weights", version)),
        logger=cast(Any, None),
        progress=Progress(keep_rate=setting.keep),
        reference=cast(Any, SimpleNamespace(add=lambda groups: None)),
    )


class Mixed:
    """A judge to whom such a share of the groups is mixed, and the others are all correct."""

    def __init__(self, keep: float):
        self._keep = keep

    def submit(self, group: Group) -> "Future[Group]":
        """Return the group, judged."""
        mixed = Random(group.prompt.id).random() < self._keep
        responses = [
            replace(one, reward=right, correct=bool(right))
            for index, one in enumerate(group.responses)
            for right in [index % 2 if mixed else 1]
        ]
        judged: Future[Group] = Future()
        judged.set_result(replace(group, responses=tuple(responses)))
        return judged

    def check(self, groups: Sequence[Group]) -> None:
        """Find nothing."""


def table(found: Sequence[Found]) -> str:
    """Return the figures by bound, the first bound's time being 1."""
    lines = [
        "| max_staleness | s a step | of the first | windows full | staleness, mean and most |",
        "|---|---|---|---|---|",
    ]
    turns = found[0].step_s
    lines += [
        f"| {row.max_staleness}{', oversample' * row.oversample} | {row.step_s:.1f} | {row.step_s / turns:.2f} "
        f"| {100 * row.sampling_s / row.step_s:.0f} % | {row.staleness:.2f}, {row.staleness_max:g} |"
        for row in found
    ]
    overlap_s = float(np.mean([row.overlap_s for row in found]))
    return "\n".join([*lines, f"| perfect overlap | {overlap_s:.1f} | {overlap_s / turns:.2f} | | |"])


if __name__ == "__main__":
    main()
