"""The verifier pool: reward functions in processes of their own, with a hard deadline a sample.

    submit ──► one queue of samples ──► a thread a worker ──► worker process ──► {term: Score} in order

What the response caused scores 0, so that a policy cannot gain by it, and carries its kind: `timeout` (its worker is
killed), `crash` (its worker died over it, twice), `exception`. What it did not cause has no value: `bad_return` (the
reward breaks its contract), `infrastructure` (no worker could be started, or the sample could not be read there).

Deliberately left out: back-pressure (the caller decides how many samples are in flight), sandboxing (`agapo.sandbox`
runs model-written code), and Ray.
"""

import contextlib
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from agapo.rollouts.verifier_process import VerifierProcess, WorkerDied
from agapo.rollouts.verifier_worker import frame

_START_ATTEMPTS = 3
_SCORE_ATTEMPTS = 2
"""A worker may have been killed by something else than the sample; the second death is the sample's doing."""
_PAUSE_S = 0.2
"""Before a process that could not be started is tried again; doubles."""


@dataclass(frozen=True)
class Sample:
    """One response to judge."""

    prompt: list[dict[str, Any]]
    """The chat that was answered."""
    completion: str
    """The decoded response."""
    columns: Mapping[str, Any]
    """What else the rewards read: `mode`, `domain`, `language` and the data row's own columns."""


@dataclass(frozen=True)
class Score:
    """What one reward term says of one sample."""

    value: float | None
    """None where there is no verdict."""
    error: str | None = None
    """`timeout`, `crash`, `exception`, `bad_return`, `infrastructure`, or None."""
    detail: str = ""
    """One line about the error."""


class VerifierPool:
    """Scores samples in `workers` processes; safe to use from several threads.

    `functions` maps a term's name to 'module:function'. `deadline_s` is the wall-clock limit for all terms of a
    sample, counted from when a worker has it; terms that were finished by then keep their values. Raises UserError
    when a function does not import, and when no worker can be started.
    """

    def __init__(self, functions: Mapping[str, str], *, workers: int, deadline_s: float):
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._failure: UserError | None = None
        lanes = [_Lane(functions, deadline_s, str(Path.cwd()), self._closing) for _ in range(workers)]
        started: list[Future[None]] = [Future() for _ in lanes]
        self._threads = [
            threading.Thread(target=self._run, args=(lane, ready), name="verifier", daemon=True)
            for lane, ready in zip(lanes, started, strict=True)
        ]
        for thread in self._threads:
            thread.start()
        self._wait_for(started)

    def submit(self, samples: Sequence[Sample]) -> "Future[list[dict[str, Score]]]":
        """Start scoring; the result has one `{term: Score}` a sample, in the order of the samples.

        The future raises UserError when a worker died and the rewards no longer import, CancelledError on `close`.
        """
        job = _Job(len(samples))
        frames = [frame((sample.prompt, sample.completion, dict(sample.columns))) for sample in samples]
        with self._lock:
            if self._closing.is_set():
                raise RuntimeError("the verifier pool is closed")
            if self._failure:
                raise self._failure
            for index, content in enumerate(frames):
                self._tasks.put(_Task(job, index, content))
        return job.future

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

    def _wait_for(self, started: "Sequence[Future[None]]") -> None:
        try:
            for ready in started:
                ready.result()
        except BaseException:
            self.close()
            raise

    def _run(self, lane: "_Lane", ready: "Future[None]") -> None:
        """Serve one worker. Its process starts in this thread, since Linux kills it when this thread ends."""
        try:
            lane.start()
            ready.set_result(None)
            while (task := self._tasks.get()) is not None:
                self._finish(task, lane)
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            lane.stop()

    def _finish(self, task: "_Task", lane: "_Lane") -> None:
        try:
            if self._failure:
                raise self._failure
            task.job.put(task.index, lane.score(task.frame))
        except BaseException as error:
            if isinstance(error, UserError):
                self._failure = error
            lane.stop()  # what it still writes must not be read as the next sample's
            task.job.fail(error)


class _Job:
    """The samples of one `submit`."""

    def __init__(self, size: int):
        self.future: Future[list[dict[str, Score]]] = Future()
        self.future.set_running_or_notify_cancel()  # the caller cannot cancel it: its samples are on their way
        self._scores: list[dict[str, Score]] = [{} for _ in range(size)]
        self._left = size
        self._lock = threading.Lock()
        if not size:
            self.future.set_result([])

    def put(self, index: int, scores: dict[str, Score]) -> None:
        with self._lock:
            self._scores[index] = scores
            self._left -= 1
            is_last = not self._left
        if is_last:
            self.future.set_result(self._scores)

    def fail(self, error: BaseException) -> None:
        """A sample that failed never counts as scored, so `put` cannot come last as well."""
        with self._lock:
            if not self.future.done():
                self.future.set_exception(error)


@dataclass(frozen=True)
class _Task:
    job: _Job
    index: int
    frame: bytes = field(repr=False)


class _Lane:
    """One worker process at a time, replaced when it hangs or dies."""

    def __init__(self, functions: Mapping[str, str], deadline_s: float, cwd: str, closing: threading.Event):
        self._functions = dict(functions)
        self._deadline_s = deadline_s
        self._cwd = cwd
        self._closing = closing
        self._process: VerifierProcess | None = None

    def start(self) -> None:
        """Start the first worker. Raises UserError where that fails."""
        try:
            self._ready_process(retry_imports=False)
        except OSError as error:
            raise UserError(f"cannot start a verifier worker: {error}") from error

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._process = None

    def score(self, sample: bytes) -> dict[str, Score]:
        """Return each term's score. Raises UserError when the rewards no longer import."""
        scores: dict[str, Score] = {}
        ended = ""
        for _ in range(_SCORE_ATTEMPTS):
            try:
                process = self._ready_process(retry_imports=True)
            except OSError as failure:
                return self._fill(scores, Score(None, "infrastructure", f"cannot start a worker: {failure}"))
            try:
                for term, value, error, detail in process.score(sample, self._deadline_s):
                    scores[term] = Score(value, error, detail)
                return scores
            except TimeoutError:
                self.stop()
                return self._fill(scores, Score(0.0, "timeout", f"no result within {self._deadline_s:g} s"))
            except WorkerDied as death:
                ended = str(death)
                self.stop()
        return self._fill(scores, Score(0.0, "crash", f"the verifier worker {ended}"))

    def _fill(self, scores: Mapping[str, Score], missing: Score) -> dict[str, Score]:
        return {term: scores.get(term, missing) for term in self._functions}

    def _ready_process(self, *, retry_imports: bool) -> VerifierProcess:
        """Return a worker that waits for a sample. Raises UserError, OSError after some attempts."""
        if self._process is not None and not self._process.has_ended():
            return self._process
        for attempt in range(_START_ATTEMPTS):
            is_last = attempt == _START_ATTEMPTS - 1
            try:
                return self._new_process()
            except UserError:
                if is_last or not retry_imports:
                    raise
            except WorkerDied as error:
                if is_last:
                    raise UserError(str(error)) from None
            except OSError:
                if is_last:
                    raise
            self._closing.wait(_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")

    def _new_process(self) -> VerifierProcess:
        self.stop()
        if self._closing.is_set():
            raise CancelledError
        self._process = VerifierProcess(self._functions, cwd=self._cwd, is_closing=self._closing.is_set)
        try:
            self._process.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self._process
