"""One lane of the verifier pool: a worker process at a time, replaced when it hangs, dies or grows."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

from agapo.errors import UserError
from agapo.rewarding.forms import Form
from agapo.rewarding.process import VerifierProcess, WorkerDied
from agapo.rewarding.worker import Outcome, Value

_START_ATTEMPTS = 3
_DEATHS = 4
"""A worker may have been killed by something else; that it happens so often over one sample is the sample's doing."""
_CALLS = 3
"""Calls of a term that says its infrastructure failed."""
_PAUSE_S = 0.2
"""Before what failed for want of infrastructure is tried again; doubles."""
_MOST_MEMORY = 2 << 30
_LOOK_AT_MEMORY_EVERY = 64


@dataclass(frozen=True)
class Term:
    """A reward function, as the pool calls it."""

    function: str
    """'package.module:function'."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Its fixed keyword arguments."""
    deadline_s: float | None = None
    """Its own limit instead of the pool's."""
    form: Form = "auto"
    """How it reads chats."""


class Lane:
    """Scores one sample at a time; to be used by one thread."""

    def __init__(self, terms: Mapping[str, Term], deadline_s: float, cwd: str, closing: threading.Event):
        self._functions: dict[str, tuple[str, Mapping[str, Any], Form]] = {
            name: (term.function, term.args, term.form) for name, term in terms.items()
        }
        self._deadlines = {name: term.deadline_s or deadline_s for name, term in terms.items()}
        self._cwd = cwd
        self._closing = closing
        self._process: VerifierProcess | None = None
        self._scored = 0
        self.group_terms: frozenset[str] = frozenset()
        """Known once it has started."""

    def start(self) -> None:
        """Start the first worker. Raises UserError where that fails."""
        try:
            self._ready_process(retry_imports=False)
        except OSError as error:
            raise UserError(f"cannot start a verifier worker: {error}") from error

    def stop(self) -> None:
        """Kill the worker."""
        if self._process is not None:
            self._process.kill()
        self._process = None

    def score(self, sample: bytes, terms: Sequence[str]) -> dict[str, Outcome]:
        """Return each term's outcome. Raises UserError when the rewards no longer import, or a reward raises one."""
        found: dict[str, Outcome] = {}
        deaths: dict[str, int] = {}
        calls: dict[str, int] = {}
        while left := [term for term in terms if term not in found]:
            try:
                self._ask(sample, left, found)
            except TimeoutError:
                term = next(term for term in left if term not in found)
                found[term] = self._blame(term, "timeout", f"no result within {self._deadlines[term]:g} s")
                self.stop()
            except WorkerDied as death:
                term = next(term for term in left if term not in found)
                deaths[term] = deaths.get(term, 0) + 1
                if deaths[term] == _DEATHS:
                    found[term] = self._blame(term, "crash", f"the verifier worker {death}")
                self.stop()
            except OSError as failure:
                reason = f"cannot start a worker: {failure}"
                return found | {term: (term, None, "infrastructure", reason) for term in left if term not in found}
            self._set_aside_failures(found, calls)
        self._look_at_memory()
        return found

    def _ask(self, sample: bytes, terms: Sequence[str], found: dict[str, Outcome]) -> None:
        process = self._ready_process(retry_imports=True)
        for outcome in process.score(sample, {term: self._deadlines[term] for term in terms}):
            if outcome[2] == "user_error":
                raise UserError(outcome[3])
            found[outcome[0]] = outcome

    def _set_aside_failures(self, found: dict[str, Outcome], calls: dict[str, int]) -> None:
        """Take out what failed for want of infrastructure, to be asked again, some times."""
        failed = [term for term, outcome in found.items() if outcome[2] == "infrastructure"]
        again = [term for term in failed if calls.setdefault(term, 1) < _CALLS]
        for term in again:
            self._closing.wait(_PAUSE_S * 2 ** calls[term])
            calls[term] += 1
            del found[term]

    def _blame(self, term: str, kind: str, detail: str) -> Outcome:
        """What a response caused is wrong; a group's hang is no single response's doing."""
        value: Value = None if term in self.group_terms else 0.0
        return term, value, kind, detail

    def _look_at_memory(self) -> None:
        """Replace a worker that a reward has made large, before it takes the machine's memory."""
        self._scored += 1
        if (
            self._scored % _LOOK_AT_MEMORY_EVERY == 0
            and self._process
            and self._process.resident_bytes() > _MOST_MEMORY
        ):
            self.stop()

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
            self.group_terms = frozenset(self._process.wait_until_ready())
        except BaseException:
            self.stop()
            raise
        return self._process
