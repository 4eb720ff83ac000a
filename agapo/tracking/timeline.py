"""What each process of a run did when, in Chrome's trace-event format: Perfetto and chrome://tracing open the file.

    driver            generate ──── score ─ learn [reference │ update] ─ sync ─ (evaluate) ─ (checkpoint)
    rollout actor i   slices of work, as the driver dealt them out
    learner rank r    forward and backward, optimizer
    verifiers         whether any group is being judged

The format is that of an array whose closing bracket may be missing, with an event a line: so the file of a run that
goes on, or was killed, opens as well. An event takes about 100 bytes. Slices of an actor that follow each other closely
are one event, and a step writes at most MOST_A_STEP: a step of the tiny recipe is 2.4 kB, and none is above 0.5 MB.

Looking on does no harm: what cannot be written costs one warning and the timeline, never the run.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (the format)
"""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from agapo.tracking.files import write_text_atomic

Row = tuple[int, int]
"""Process and thread, as the format calls them: a kind of process, and which of that kind."""
Interval = tuple[float, float]

DRIVER, ACTORS, RANKS, VERIFIERS = 1, 2, 3, 4
KINDS = {DRIVER: "driver", ACTORS: "rollout actors", RANKS: "learner ranks", VERIFIERS: "verifiers"}
SINGULAR = {DRIVER: "phases", ACTORS: "actor", RANKS: "rank", VERIFIERS: "judging"}

MOST_A_STEP = 4096
"""Events that a step may write; further ones are counted only."""
JOIN_S = 0.05
"""A pause of an actor that is no pause: an answer is on its way to the driver, and new work on its way back."""

log = logging.getLogger("agapo")


def row_name(row: Row) -> str:
    """Return what to call a row where its process has no heading."""
    kind, number = row
    return KINDS[kind] if kind in (DRIVER, VERIFIERS) else f"{KINDS[kind].removesuffix('s')} {number}"


class Timeline:
    """The timeline of one run. Methods take `time.monotonic()` seconds, and may be called from any thread."""

    def __init__(self, path: Path, began: float):
        """Go on with the file, or begin it. `began`: when the run began, less what it was not running."""
        self.step = 0
        """The step that what is added belongs to."""
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._written = self._left_out = 0
        self._working: dict[int, Interval] = {}
        """Of each actor, the interval that may still grow."""
        known = read_timeline(path)
        self._rows = {(event["pid"], event["tid"]) for event in known if event.get("name") == "thread_name"}
        end_s = max((event["ts"] + event["dur"] for event in known if "dur" in event), default=0) / 1e6
        # What a checkpoint took is not in the seconds that it holds: the new events come after it all the same.
        self._origin = min(began, time.monotonic() - end_s)
        try:
            self._file = path.open("a", encoding="utf-8")
            if not known:
                self._file.truncate(0)
                self._file.write("[\n")
        except OSError as error:
            self._give_up(error)

    def begin_step(self, step: int) -> None:
        """Write what the step before did; what is added from now on belongs to this one."""
        self.flush()
        self.step, self._written = step, 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note the time spent inside as a phase of the driver."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add((DRIVER, 0), name, started, time.monotonic())

    def add(self, row: Row, name: str, start: float, end: float) -> None:
        """Note an interval of a row. On one row intervals may be one in another, and else do not overlap."""
        with self._lock:
            self._add(row, name, start, end)

    def add_slice(self, actor: int, start: float, end: float) -> None:
        """Note a slice of a rollout actor's work."""
        with self._lock:
            before = self._working.get(actor)
            if before and start - before[1] < JOIN_S:
                self._working[actor] = (before[0], end)
                return
            self._working[actor] = (start, end)
            if before:
                self._add((ACTORS, actor), "sample", *before)

    def flush(self) -> None:
        """Write everything down."""
        with self._lock:
            for actor, interval in self._working.items():
                self._add((ACTORS, actor), "sample", *interval)
            self._working.clear()
            if self._left_out:
                event = {"name": f"{self._left_out} more intervals left out", "ph": "i", "s": "g", "pid": DRIVER}
                self._write({**event, "tid": 0, "ts": self._us(time.monotonic()), "args": {"step": self.step}})
                self._left_out = 0
            self._guarded(lambda file: file.flush())

    def close(self) -> None:
        """Write everything down; what is added later is passed over."""
        self.flush()
        with self._lock:
            self._guarded(lambda file: file.close())
            self._file = None

    def _add(self, row: Row, name: str, start: float, end: float) -> None:
        if self._written >= MOST_A_STEP:
            self._left_out += 1
            return
        self._written += 1
        self._name(row)
        pid, tid = row
        # Both ends are rounded, not the difference: what follows without a gap does not overlap.
        ts = self._us(start)
        event = {"name": name, "ph": "X", "pid": pid, "tid": tid, "ts": ts, "dur": self._us(end) - ts}
        self._write({**event, "args": {"step": self.step}})

    def _name(self, row: Row) -> None:
        if row in self._rows:
            return
        pid, tid = row
        self._rows.add(row)
        label = SINGULAR[pid] if pid in (DRIVER, VERIFIERS) else f"{SINGULAR[pid]} {tid}"
        for kind, name in (("process_name", KINDS[pid]), ("thread_name", label)):
            self._write({"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}})

    def _us(self, moment: float) -> int:
        return round((moment - self._origin) * 1e6)

    def _write(self, event: dict[str, Any]) -> None:
        self._guarded(lambda file: file.write(json.dumps(event) + ",\n"))

    def _guarded(self, action: Any) -> None:
        try:
            if self._file:
                action(self._file)
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._file = None
        log.warning("the timeline could not be written (%s); the run goes on without it", error)


def read_timeline(path: Path) -> list[dict[str, Any]]:
    """Return the events of a timeline that may be unfinished; torn lines are passed over, and no file has none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [event for event in map(_parse, lines) if event]


def keep_timeline_up_to(path: Path, step: int) -> None:
    """Drop the events of later steps, and torn lines; atomically."""
    if not path.exists():
        return
    kept = [event for event in read_timeline(path) if event["args"].get("step", step) <= step]
    write_text_atomic(path, "[\n" + "".join(json.dumps(event) + ",\n" for event in kept))


def _parse(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line.rstrip().removesuffix(","))
    except ValueError:
        return None
    return event if isinstance(event, dict) and "args" in event else None
