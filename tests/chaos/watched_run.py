"""`python -m tests.chaos.watched_run FOLDER rl RECIPE …`: the command line, with places where it waits for a test.

The run is the product's; here it only stands still where a run of real size would take minutes anyhow, and writes down
which host sampled in which step (`FOLDER/sampled.jsonl`).
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agapo.cli import main
from agapo.cluster import room_on_nodes
from agapo.rollouts.dispatch import Dispatch
from agapo.rollouts.pool import RolloutPool
from agapo.stages.rl.collector import Collector

CUT, BACK = 2, 4
"""Finished steps when the host is cut off (in the middle of the next one), and when it comes back."""
LONGEST_S = 120

step = 0


def watch(folder: Path) -> None:
    """Put the waits in."""
    collect, generate, take = Collector.collect, RolloutPool.generate, Dispatch._collect

    def stand(name: str) -> None:
        """Say that the run has come here, and wait till the test says that it may go on."""
        if not (folder / name).exists():
            (folder / name).touch()
            _until((folder / f"{name}.done").exists)

    def watched_collect(self: Collector, *given: Any) -> Any:
        global step
        step = self.progress.step
        if step >= BACK:
            _until(lambda: _all_ready(self.pool))
        if step == BACK:
            stand("back")
            _until(lambda: len(room_on_nodes(cpus=0.1, gpus=0)) == 2)
        return collect(self, *given)

    def watched_generate(self: RolloutPool, *given: Any, **named: Any) -> Iterator[Any]:
        for item in generate(self, *given, **named):
            if step == CUT:
                stand("cut")
            yield item

    def watched_take(self: Dispatch, answer: Any, call: Any) -> Any:
        nodes: list[str | None] = self._pool.nodes  # pyright: ignore[reportAttributeAccessIssue]
        node, pieces = nodes[call.actor], take(self, answer, call)
        if pieces:
            with (folder / "sampled.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "node": node}) + "\n")
        return pieces

    Collector.collect, RolloutPool.generate, Dispatch._collect = watched_collect, watched_generate, watched_take


def _all_ready(pool: RolloutPool) -> bool:
    """Whether nobody is starting: who was replaced is there, and who moves to another host is ready there."""
    pool.look()
    return pool.all_ready


def _until(holds: Any) -> None:
    end = time.monotonic() + LONGEST_S
    while not holds():
        assert time.monotonic() < end, "the test has left this run alone"
        time.sleep(0.05)


if __name__ == "__main__":
    watch(Path(sys.argv.pop(1)))
    main()
