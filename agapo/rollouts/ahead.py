"""Sampling ahead of the learner: actors go on with the next steps' prompts while the learner learns.

    stream ──► prompts that may be begun ──► Dispatch ──► Judge ──► judged groups, by their place in the stream
                      ▲                        ▲                              │
                   horizon                new weights                   groups(start, count)

A thread of its own is the only one that uses the pool: it deals out prompts, collects groups, hands new weights over
between two slices of the actors' work (`call`), and steps aside while somebody else samples (`paused`). It waits for
slices (half a second at most), or, when it has nothing to do, for the learner to move the horizon.

The learner takes groups **in the order of the stream**, so a step's prompts are what they would be without this: none
is lost, seen twice, or passed over because its responses are long. A group stays here until the step that learns from
it is over: what a checkpoint holds (`left`) is all that was begun and not learned from, as far as it has come.

The horizon is what bounds staleness. While the learner works on step v, whose last prompt is at e, prompts before
e + k · prompts_per_step may be begun. A step takes prompts_per_step prompts or more, so such a prompt is learned from
in step v + k at the latest: no token is ever staler than k steps, whatever was dropped.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from agapo.rollouts.dispatch import Dispatch
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.sampling import ErrorWatch, Judge
from agapo.rollouts.waiting import Begun, Waiting
from agapo.schema import Group

T = TypeVar("T")
LOOK_S = 0.5
"""How often who waits looks whether the thread has failed."""
LAST_S = 10.0
"""How long a run that ends waits for the actors' last slices."""


@dataclass(frozen=True)
class _Sampled:
    """A whole group, until it is learned from."""

    group: Group
    judging: Future[Future[Group]]

    @property
    def judged(self) -> Group | None:
        """The group with its verdicts; None where there are none yet, or judging has failed, of a response too.

        A run is often stopped to mend a reward: what it failed at is judged again.
        """
        if not self.judging.done() or self.judging.exception():
            return None
        judging = self.judging.result()
        if not judging.done() or judging.exception():
            return None
        judged = judging.result()
        return None if any(response.reward_error for response in judged.responses) else judged


class AheadPool(Protocol):
    """A pool whose calls can go on without an end, as `agapo.rollouts.pool.RolloutPool`."""

    def dispatch_ahead(self, params: SamplingParams, *, chunk_prompts: int) -> Dispatch:
        """Return a call that prompts can be fed to."""
        ...


class Ahead:
    """The thread that samples ahead, and the groups that wait for the learner."""

    def __init__(
        self,
        pool: AheadPool,
        judge: Judge,
        requests: Callable[[int, int], Sequence[PromptRequest]],
        params: SamplingParams,
        *,
        chunk_prompts: int,
        start: int,
        begun: Begun | None = None,
    ):
        """`requests(position, count)`: prompts of the stream, rendered; `start`: the first position to sample.

        `begun`: what there is already of prompts from `start` on, of the run that goes on here.
        """
        self._pool, self._judge, self._requests = pool, judge, requests
        self._dispatch = pool.dispatch_ahead(params, chunk_prompts=chunk_prompts)
        self._watch = ErrorWatch(judge)
        self._fed = self._horizon = self._taken = start
        self.asked = max(start, begun.asked) if begun else start
        """The end of the prompts that the learner has asked for."""
        self._positions: dict[int, int] = {}
        """Of the prompts that are fed and not whole, by their places in the dispatch."""
        self._begun = {item.position: item for item in begun.waiting} if begun else {}
        """Of what was begun by the run before: what is not fed yet."""
        self._sampled: dict[int, _Sampled] = {}
        """By their positions."""
        self._requested: dict[int, PromptRequest] = {}
        """What is fed and not learned from, by position."""
        # Judging may hold back who submits; that must not hold back the dealing out.
        self._submitting = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._changed = threading.Condition()
        self._asked: list[tuple[Callable[[], None], Future[None]]] = []
        self._pauses = 0
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    # --- for the learner's thread ---

    def groups(
        self, start: int, count: int, horizon: int, on_judged: Callable[[Sequence[Group]], None] = lambda _: None
    ) -> list[Group]:
        """Return the judged groups of the prompts from position `start` on, in order.

        Prompts before `horizon` may be begun from now on. Waits for the slowest of the `count`, and tells `on_judged`
        of each as early as can be; raises what sampling or judging raised.
        """
        self.asked = max(self.asked, start + count)
        self.move_horizon(horizon)
        found: list[Group] = []
        for position in range(start, start + count):
            self._wait_for(lambda position=position: position in self._sampled)
            found.append(self._result(self._result(self._sampled[position].judging)))
            on_judged(found[-1:])
        self._taken = start + count
        return self._watch.seen(found)

    def learned(self, end: int) -> None:
        """Let go of the prompts before position `end`: they have been learned from, or dropped."""
        with self._changed:
            for position in [position for position in self._sampled if position < end]:
                del self._sampled[position], self._requested[position]

    def left(self, start: int) -> list[Waiting]:
        """Return what was begun of the prompts from position `start` on, in order; sampling goes on afterwards.

        After a failure (a stop that the user asked for, say) as well, before `close`.
        """
        found: list[Waiting] = []
        try:
            self.call(lambda: found.extend(self._left(start)))
        except Exception:
            if not self.has_failed:
                raise
            # The thread has ended, and has taken everything out of flight first.
            return self._now(start)
        return found

    def move_horizon(self, horizon: int) -> None:
        """Let prompts before it be begun."""
        with self._changed:
            self._horizon = max(self._horizon, horizon)
            self._changed.notify_all()

    @property
    def has_failed(self) -> bool:
        """Whether the thread has ended with what `groups` will raise: a stop that the user asked for, say."""
        return self._failure is not None

    @property
    def waiting(self) -> int:
        """Groups that are sampled and not taken yet."""
        with self._changed:
            return sum(position >= self._taken for position in self._sampled)

    @property
    def busy_s(self) -> float:
        """Seconds that actors have worked, all of them together."""
        return self._dispatch.busy_s

    def call(self, work: Callable[[], None]) -> None:
        """Have the thread do this between two slices, with the pool to itself; raises what it raises."""
        done: Future[None] = Future()
        with self._changed:
            self._asked.append((work, done))
            self._changed.notify_all()
        self._result(done)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have the pool to oneself; what is in flight goes on afterwards from where it is."""
        self.call(self._pause)
        try:
            yield
        finally:
            with self._changed:
                self._pauses -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """End the thread; what is in flight is forgotten."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._submitting.shutdown(wait=False, cancel_futures=True)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            while True:
                if self._failure:
                    raise self._failure
                if condition():
                    return
                self._changed.wait(LOOK_S)

    def _result(self, future: "Future[T]") -> T:
        """Return a future's result; raises the thread's failure where that came first."""
        while True:
            try:
                return future.result(timeout=LOOK_S)
            except TimeoutError:
                if self._failure and not future.done():
                    raise self._failure from None

    # --- the thread ---

    def _run(self) -> None:
        try:
            while not self._closed:
                self._feed()
                self._do_what_was_asked()
                if self._pauses or self._dispatch.idle:
                    with self._changed:
                        if not self._asked and not self._closed and (self._pauses or self._fed >= self._horizon):
                            self._changed.wait(LOOK_S)
                else:
                    self._take(self._dispatch.poll())
        except BaseException as error:
            with suppress(Exception):
                self._take(self._dispatch.pause(LAST_S))
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            self._dispatch.drop()

    def _feed(self) -> None:
        horizon = self._horizon
        if horizon <= self._fed:
            return
        positions = range(self._fed, horizon)
        requests = dict(zip(positions, self._requests(self._fed, len(positions)), strict=True))
        self._requested |= requests
        begun = [self._begun.pop(position) for position in positions if position in self._begun]
        for item in begun:
            if item.group:
                del requests[item.position]
                self._note(item.position, item.group, judged=item.judged)
        places = self._dispatch.feed(list(requests.values()))
        self._positions |= zip(places, requests, strict=True)
        place_of = dict(zip(requests, places, strict=True))
        for item in begun:
            for piece in item.pieces:
                self._dispatch.keep(replace(piece, id=replace(piece.id, number=place_of[item.position])))
        self._fed = horizon

    def _do_what_was_asked(self) -> None:
        with self._changed:
            asked, self._asked = self._asked, []
        for work, done in asked:
            try:
                work()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    def _pause(self) -> None:
        self._take(self._dispatch.pause())
        self._pauses += 1

    def _left(self, start: int) -> list[Waiting]:
        self._take(self._dispatch.pause())
        return self._now(start)

    def _now(self, start: int) -> list[Waiting]:
        """Return what there is while nothing is in flight."""
        found = [item for position, item in self._begun.items() if position >= start]
        for position, sampled in self._sampled.items():
            if position >= start:
                judged, request = sampled.judged, self._requested[position]
                found.append(Waiting(position, request, judged or sampled.group, judged=judged is not None))
        for place, position in self._positions.items():
            if pieces := self._dispatch.pieces(place):
                found.append(Waiting(position, self._requested[position], pieces=tuple(pieces)))
        return sorted(found, key=lambda item: item.position)

    def _take(self, found: Iterable[tuple[int, Group]]) -> None:
        for place, group in found:
            self._note(self._positions.pop(place), group, judged=False)

    def _note(self, position: int, group: Group, *, judged: bool) -> None:
        """Have a whole group judged, where it is not, and tell the learner's thread that it is there."""
        judging: Future[Future[Group]] = Future()
        if judged:
            known: Future[Group] = Future()
            known.set_result(group)
            judging.set_result(known)
        else:
            judging = self._submitting.submit(self._judge.submit, group)
        with self._changed:
            self._sampled[position] = _Sampled(group, judging)
            self._changed.notify_all()
