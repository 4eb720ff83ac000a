"""What the timeline hears of: the actors' slices, the ranks' updates, and when groups are being judged."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from agapo.learner.rl.group import LearnerGroup
from agapo.rollouts.pool import RolloutPool
from agapo.rollouts.sampling import Judge
from agapo.schema import Group
from agapo.tracking import Timeline
from agapo.tracking.timeline import RANKS, VERIFIERS


def watch(timeline: Timeline, pool: RolloutPool, learner: LearnerGroup, judge: Judge) -> Judge:
    """Have the timeline told of what actors and ranks do; return the judge, of whom it is told as well."""
    pool.on_slice = timeline.add_slice
    learner.on_phase = lambda rank, *phase: timeline.add((RANKS, rank), *phase)
    return WatchedJudge(judge, timeline)


class WatchedJudge:
    """A judge; while any group is with him, that is an interval of the timeline."""

    def __init__(self, judge: Judge, timeline: Timeline):
        self._judge, self._timeline = judge, timeline
        self._lock = threading.Lock()
        self._judging = 0
        self._since = 0.0

    def submit(self, group: Group) -> "Future[Group]":
        """See `Judge`."""
        judged = self._judge.submit(group)
        with self._lock:
            if not self._judging:
                self._since = time.monotonic()
            self._judging += 1
        judged.add_done_callback(self._note)
        return judged

    def check(self, groups: Sequence[Group]) -> None:
        """See `Judge`."""
        self._judge.check(groups)

    def _note(self, _: "Future[Group]") -> None:
        with self._lock:
            self._judging -= 1
            if not self._judging:
                self._timeline.add((VERIFIERS, 0), "judge", self._since, time.monotonic())
