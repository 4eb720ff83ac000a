"""The verifier pool: reward functions in processes of their own, with a hard deadline for each term on each sample.

    submit ──► one queue of samples ──► a thread a worker ──► worker process ──► {term: Score} in order

What the response caused scores 0, so that a policy cannot gain by it, and carries its kind: `timeout` (its worker is
killed), `crash` (its worker died over it, again and again), `exception`. What it did not cause has no value:
`bad_return` (the reward breaks its contract) and `infrastructure` (no worker could be started, or the reward raised
ConnectionError; tried again first). A UserError that a reward raises ends the run.

Deliberately left out: sandboxing (`agapo.sandbox` runs model-written code), and Ray (`verifier_cluster`).
"""

import contextlib
import queue
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from agapo.errors import UserError
from agapo.rewarding.lane import Lane, Term
from agapo.rewarding.worker import Outcome, frame

__all__ = ["GroupSample", "Job", "Pool", "Sample", "Score", "Term", "VerifierPool"]

PENDING_A_WORKER = 64
"""Samples that may wait for each worker before `submit` blocks."""
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Sample:
    """One response to judge."""

    prompt: list[dict[str, Any]]
    """The chat that was answered."""
    completion: str
    """The decoded response."""
    columns: Mapping[str, Any]
    """What else the rewards read: `mode`, `domain`, `language`, the data row's own columns, and `completion_ids`, the
    response's token ids, for those that name it."""
    terms: tuple[str, ...] | None = None
    """The terms that are asked; None asks all that judge single responses."""


@dataclass(frozen=True)
class GroupSample:
    """A prompt's responses, to judge together."""

    prompt: list[dict[str, Any]]
    completions: list[str]
    """[G] decoded responses."""
    scores: list[float | None]
    """[G] values of the verdict's term."""
    columns: Mapping[str, Any]
    terms: tuple[str, ...] | None = None
    """The terms that are asked; None asks all that judge groups."""


@dataclass(frozen=True)
class Score:
    """What one reward term says of one sample."""

    value: float | None
    """None where there is no verdict."""
    error: str | None = None
    """`timeout`, `crash`, `exception`, `bad_return`, `infrastructure`, or None."""
    detail: str = ""
    """One line about the error."""


R = TypeVar("R")


class Pool(Protocol):
    """What scores: a `VerifierPool` in this process, or one spread over a cluster."""

    @property
    def group_terms(self) -> frozenset[str]:
        """The terms that judge groups."""
        ...

    def submit(self, samples: Sequence[Sample]) -> "Future[list[dict[str, Score]]]":
        """Start scoring; the result has one `{term: Score}` a sample, in the order of the samples."""
        ...

    def submit_groups(self, groups: Sequence[GroupSample]) -> "Future[list[dict[str, list[Score]]]]":
        """Start judging groups; the result has one `{term: [G] Scores}` a group, in order."""
        ...

    def close(self) -> None:
        """End it; what is not yet scored is cancelled."""
        ...


class VerifierPool:
    """Scores samples in `workers` processes of this host; safe to use from several threads.

    `terms` maps names to reward terms ('module:function' alone stands for a Term of it). `deadline_s` is the
    wall-clock limit for a term on a sample, counted from when a worker has begun with it. Raises UserError when a
    function does not import or does not take its arguments, and when no worker can be started.
    """

    def __init__(
        self, terms: Mapping[str, Term | str], *, workers: int, deadline_s: float, max_pending: int | None = None
    ):
        known = {name: term if isinstance(term, Term) else Term(term) for name, term in terms.items()}
        self._terms = tuple(known)
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(max_pending or PENDING_A_WORKER * workers)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._failure: UserError | None = None
        self._lanes = [Lane(known, deadline_s, str(Path.cwd()), self._closing) for _ in range(workers)]
        started: list[Future[None]] = [Future() for _ in self._lanes]
        self._threads = [
            threading.Thread(target=self._run, args=(lane, ready), name="verifier", daemon=True)
            for lane, ready in zip(self._lanes, started, strict=True)
        ]
        for thread in self._threads:
            thread.start()
        self._wait_for(started)

    @property
    def group_terms(self) -> frozenset[str]:
        """The terms that judge groups."""
        return self._lanes[0].group_terms

    def submit(self, samples: Sequence[Sample]) -> "Future[list[dict[str, Score]]]":
        """Start scoring; the result has one `{term: Score}` a sample, in the order of the samples.

        Blocks while too many samples wait. The future raises UserError when a reward does, or when a worker died and
        the rewards no longer import, and CancelledError on `close`.
        """
        single = tuple(term for term in self._terms if term not in self.group_terms)
        tasks = (
            (
                sample.terms if sample.terms is not None else single,
                (sample.prompt, sample.completion, dict(sample.columns)),
            )
            for sample in samples
        )
        return self._submit(Job(len(samples), _scores), tasks)

    def submit_groups(self, groups: Sequence[GroupSample]) -> "Future[list[dict[str, list[Score]]]]":
        """Start judging groups; the result has one `{term: [G] Scores}` a group, in order. Otherwise like `submit`."""
        every = tuple(term for term in self._terms if term in self.group_terms)
        tasks = (
            (
                group.terms if group.terms is not None else every,
                (group.prompt, group.completions, group.scores, dict(group.columns)),
            )
            for group in groups
        )
        sizes = [len(group.completions) for group in groups]
        return self._submit(Job(len(groups), lambda outcomes, index: _group_scores(outcomes, sizes[index])), tasks)

    def score(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        """Score and wait."""
        return self.submit(samples).result()

    def close(self) -> None:
        """Kill the workers. What is not yet scored is cancelled."""
        with self._lock:
            self._closing.set()
            with contextlib.suppress(queue.Empty):
                while task := self._tasks.get_nowait():
                    task.job.fail(CancelledError())
            for _ in self._threads:
                self._tasks.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, job: "Job[R]", tasks: Iterable[tuple[tuple[str, ...], Any]]) -> "Future[list[R]]":
        for index, (terms, content) in enumerate(tasks):
            sample = frame(content)
            while not self._room.acquire(timeout=_LOOK_EVERY_S) and not self._closing.is_set():
                pass
            with self._lock:
                if self._closing.is_set():
                    raise RuntimeError("the verifier pool is closed")
                if self._failure:
                    raise self._failure
                self._tasks.put(_Task(job, index, terms, sample))
        return job.future

    def _wait_for(self, started: "Sequence[Future[None]]") -> None:
        try:
            for ready in started:
                ready.result()
        except BaseException:
            self.close()
            raise

    def _run(self, lane: Lane, ready: "Future[None]") -> None:
        """Serve one worker. Its process starts in this thread, since Linux kills it when this thread ends."""
        try:
            lane.start()
            ready.set_result(None)
            while (task := self._tasks.get()) is not None:
                self._finish(task, lane)
                self._room.release()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            lane.stop()

    def _finish(self, task: "_Task", lane: Lane) -> None:
        try:
            if self._failure:
                raise self._failure
            task.job.put(task.index, lane.score(task.sample, task.terms))
        except BaseException as error:
            if isinstance(error, UserError):
                self._failure = error
            lane.stop()  # what it still writes must not be read as the next sample's
            task.job.fail(error)


class Job(Generic[R]):
    """The results of one `submit`, as they come in; `read` makes a result of what came for an index."""

    def __init__(self, size: int, read: Any):
        self.future: Future[list[R]] = Future()
        self.future.set_running_or_notify_cancel()  # the caller cannot cancel it: its samples are on their way
        self._results: list[Any] = [None] * size
        self._read = read
        self._left = size
        self._lock = threading.Lock()
        if not size:
            self.future.set_result([])

    def put(self, index: int, found: Any) -> None:
        """Add the result of a sample."""
        with self._lock:
            self._results[index] = self._read(found, index)
            self._left -= 1
            is_last = not self._left
        if is_last:
            self.future.set_result(self._results)

    def fail(self, error: BaseException) -> None:
        """A sample that failed never counts as scored, so `put` cannot come last as well."""
        with self._lock:
            if not self.future.done():
                self.future.set_exception(error)


@dataclass(frozen=True)
class _Task:
    job: Job[Any]
    index: int
    terms: tuple[str, ...]
    sample: bytes = field(repr=False)


def _scores(outcomes: Mapping[str, Outcome], index: int) -> dict[str, Score]:
    return {term: Score(_single(value), error, detail) for term, (_, value, error, detail) in outcomes.items()}


def _single(value: Any) -> float | None:
    assert value is None or isinstance(value, float)
    return value


def _group_scores(outcomes: Mapping[str, Outcome], size: int) -> dict[str, list[Score]]:
    return {
        term: [Score(item, error, detail) for item in (value if isinstance(value, list) else [None] * size)]
        for term, (_, value, error, detail) in outcomes.items()
    }
