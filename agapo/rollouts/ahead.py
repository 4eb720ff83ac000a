"""Sampling ahead of the learner: actors go on with the next steps' prompts while the learner learns.

    stream ──► prompts that may be begun ──► Dispatch ──► Judge ──► judged groups, by their place in the stream
                      ▲                        ▲                              │
                   horizon                new weights                   groups(start, count)

A thread of its own is the only one that uses the pool: it deals out prompts, collects groups, hands new weights over
between two slices of the actors' work (`call`), and steps aside while somebody else samples (`paused`). It waits for
slices (half a second at most), or, when it has nothing to do, for the learner to move the horizon.

The learner takes groups **in the order of the stream**, so a step's prompts are what they would be without this: none
is lost, seen twice, or passed over because its responses are long. The horizon is what bounds staleness. While the
learner works on step v, whose last prompt is at e, prompts before e + k · prompts_per_step may be begun. A step takes
prompts_per_step prompts or more, so such a prompt is learned from in step v + k at the latest: no token is ever staler
than k steps, whatever was dropped.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from agapo.rollouts.dispatch import Dispatch
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.sampling import ErrorWatch, Judge
from agapo.schema import Group

T = TypeVar("T")
LOOK_S = 0.5
"""How often who waits looks whether the thread has failed."""


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
    ):
        """`requests(position, count)`: prompts of the stream, rendered; `start`: the first position to sample."""
        self._pool, self._judge, self._requests = pool, judge, requests
        self._dispatch = pool.dispatch_ahead(params, chunk_prompts=chunk_prompts)
        self._watch = ErrorWatch(judge)
        self._start = self._fed = self._horizon = start
        self._judging: dict[int, Future[Future[Group]]] = {}
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

    def groups(self, start: int, count: int, horizon: int) -> list[Group]:
        """Return the judged groups of the prompts from position `start` on, in order, once.

        Prompts before `horizon` may be begun from now on. Waits for the slowest of the `count`; raises what sampling or
        judging raised.
        """
        self.move_horizon(horizon)
        found: list[Group] = []
        for position in range(start, start + count):
            self._wait_for(lambda position=position: position in self._judging)
            found.append(self._result(self._result(self._judging.pop(position))))
        return self._watch.seen(found)

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
        return len(self._judging)

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
            while not condition():
                if self._failure:
                    raise self._failure
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
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            self._dispatch.drop()

    def _feed(self) -> None:
        horizon = self._horizon
        if horizon > self._fed:
            self._dispatch.feed(self._requests(self._fed, horizon - self._fed))
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

    def _take(self, found: Iterable[tuple[int, Group]]) -> None:
        for number, group in found:
            judging = self._submitting.submit(self._judge.submit, group)
            with self._changed:
                self._judging[self._start + number] = judging
                self._changed.notify_all()
