"""Runs one job after another in a pair of containers: the program in one, the tests in the other."""

import os
import re
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from agapo.sandbox import cgroup
from agapo.sandbox.container import Container, Limits, problem
from agapo.sandbox.inside import wire

__all__ = ["Job", "LocalExecutor", "Outcome", "Result", "SandboxUnavailable", "problem"]

_START_S = 30.0
_ATTEMPTS = 3
_MAX_PROGRAM = 1 << 20
_MAX_RESULTS = 100_000
_PROCESSES = 256


class SandboxUnavailable(ConnectionError):
    """No container could be made, or the remote executor did not answer: nothing is known about the program."""


@dataclass(frozen=True)
class Job:
    """A program and its tests.

    `asserts`: each of `tests` is a statement (MBPP). `check`: `test` defines `check(candidate)` (HumanEval).
    `stdio`: the program is a script; `inputs` are texts for standard input, `outputs` what it should print.
    `calls`: `inputs` are lists of arguments for `entry_point`, `outputs` the values it should return.
    """

    kind: Literal["asserts", "check", "stdio", "calls"]
    program: str
    setup: str = ""
    """Python that runs before the tests, and before the program."""
    tests: Sequence[str] = ()
    names: Sequence[str] = ()
    """Names of Python's own that the tests mean as the program's (an exercise to write `sum`)."""
    test: str = ""
    entry_point: str = ""
    inputs: Sequence[Any] = ()
    outputs: Sequence[Any] = ()


@dataclass(frozen=True)
class Result:
    """What one test found."""

    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a job found."""

    results: list[Result] = field(default_factory=list)
    """In the order of the tests; those that were not reached are missing."""
    ended: Literal["finished", "timeout", "crash", "broken"] = "finished"
    """`timeout`: stopped at the limits; `crash`: the judge's container ended early; `broken`: the tests cannot be run,
    whatever the program is."""
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Every test passed, there was one, and they came to their end."""
        return self.ended == "finished" and bool(self.results) and all(result.passed for result in self.results)


class LocalExecutor:
    """Runs jobs on this machine, one at a time; to be used by the thread that made it.

    It keeps two containers, one for programs and one for tests, which die with that thread.
    """

    def __init__(self, limits: Limits | None = None):
        self.limits = limits or Limits()
        self._groups: list[Path] | None = None
        self._containers: dict[str, Container] = {}
        self._owner = os.getpid(), threading.get_ident()

    def run(self, job: Job) -> Outcome:
        """Run a job. Raises SandboxUnavailable where no containers can be made."""
        if len(job.program) > _MAX_PROGRAM:
            return Outcome([], "finished", f"the program has more than {_MAX_PROGRAM} characters")
        if self._owner != (os.getpid(), threading.get_ident()):
            raise RuntimeError("a LocalExecutor belongs to the thread that made it")
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                return self._run(job)
            except (OSError, EOFError, wire.WireError) as error:
                reason = str(error) or "a container ended while it started"
                self.close()
        raise SandboxUnavailable(f"sandbox: {problem() or reason}")

    def close(self) -> None:
        """End the containers; the next job makes new ones."""
        for container in self._containers.values():
            container.kill()
        self._containers.clear()

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, job: Job) -> Outcome:
        with _Pipes() as pipes:
            asked, asks = pipes.new()
            answers, answered = pipes.new()
            control, orders = pipes.new()
            results, reports = pipes.new()
            try:
                self._container("candidate").give([asked, answered])
                self._container("judge").give([control, reports, asks, answers])
                pipes.close(asked, answered, control, reports)
                for descriptor in (answers, results):
                    _require_ready(wire.receive(descriptor, _until(time.monotonic() + _START_S)))
                deadline = time.monotonic() + self.limits.wall_s
                wire.send(asks, _program_of(job))
                pipes.close(asks, answers)  # from now on the judge alone holds the link
                wire.send(orders, _tests_of(job))
                return _outcome(results, deadline)
            finally:
                self._end_job()

    def _container(self, role: str) -> Container:
        if self._groups is None:
            self._groups = cgroup.make_group(2 * (self.limits.memory_mb << 20), _PROCESSES)
        if role not in self._containers:
            self._containers[role] = Container(role, self.limits, self._groups)
        return self._containers[role]

    def _end_job(self) -> None:
        """Kill the job's processes, and the containers in which they left something."""
        for role, container in list(self._containers.items()):
            if not container.end(_START_S):
                container.kill()
                del self._containers[role]


def _require_ready(reply: Any) -> None:
    if "ready" not in reply:
        raise OSError(f"a container could not be confined ({reply.get('refused')})")


def _program_of(job: Job) -> dict[str, Any]:
    """LeetCode's names are there for what is written as LeetCode asks for it, which has them imported."""
    leetcode = job.kind == "calls" or bool(re.search(r"^class Solution\b", job.program, re.MULTILINE))
    return {"program": job.program, "setup": job.setup, "leetcode": leetcode}


def _tests_of(job: Job) -> dict[str, Any]:
    return {name: value for name, value in asdict(job).items() if name != "program"}


def _outcome(descriptor: int, deadline: float) -> Outcome:
    results: list[Result] = []
    while len(results) < _MAX_RESULTS:
        try:
            reply = wire.receive(descriptor, _until(deadline))
        except TimeoutError:
            return Outcome(results, "timeout", "no end within the limit of time")
        except (EOFError, wire.WireError):
            return Outcome(results, "crash", "the tests ended early: out of processor time or memory")
        if "finished" in reply:
            return Outcome(results)
        if "broken" in reply:
            return Outcome(results, "broken", str(reply["broken"]))
        results.append(Result(reply["passed"], reply["detail"]))
    return Outcome(results, "broken", f"more than {_MAX_RESULTS} tests")


class _Pipes:
    """The pipes of one job; all are closed in the end."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def new(self) -> tuple[int, int]:
        pipe = os.pipe()
        self._open.update(pipe)
        return pipe

    def close(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            self._open.discard(descriptor)
            os.close(descriptor)

    def __enter__(self) -> "_Pipes":
        return self

    def __exit__(self, *_: object) -> None:
        self.close(*self._open)


def _until(deadline: float) -> Callable[[int], None]:
    """Return a wait for something to read, which raises TimeoutError."""

    def wait(descriptor: int) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
            raise TimeoutError("a container did not answer in time")

    return wait
