"""The timeline of a run: its format, its bounds, and that it goes on."""

import itertools
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agapo.schema import Group, Prompt
from agapo.stages.rl.metrics import Clock
from agapo.stages.rl.watching import WatchedJudge
from agapo.tracking import timeline as module
from agapo.tracking.timeline import ACTORS, DRIVER, RANKS, VERIFIERS, Timeline, keep_timeline_up_to, read_timeline
from tests.timelines import events_of, require_nested, rows_of


def test_events_have_the_format_and_say_whose_they_are(tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    made = Timeline(path, began=100.0)
    made.begin_step(1)
    made.add((DRIVER, 0), "generate", 100.5, 102.0)
    made.add((RANKS, 1), "optimizer", 102.0, 102.25)
    made.flush()
    # The run goes on, or was killed here.
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in events_of(path) if e["name"] == "thread_name"}
    assert named == {(DRIVER, 0): "phases", (RANKS, 1): "rank 1"}
    (generate,), (optimizer,) = rows_of(events_of(path)).values()
    assert (generate["ts"], generate["dur"], generate["args"]) == (500_000, 1_500_000, {"step": 1})
    assert (optimizer["ts"], optimizer["dur"]) == (2_000_000, 250_000)


def test_the_slices_of_an_actor_that_follow_each_other_are_one(tmp_path: Path) -> None:
    made = Timeline(tmp_path / "t", began=0.0)
    for actor, start, end in [(0, 1.0, 1.5), (1, 1.0, 1.2), (0, 1.51, 2.0), (0, 3.0, 3.5), (1, 1.21, 1.6)]:
        made.add_slice(actor, start, end)
    made.close()
    found = {row: [(e["ts"], e["dur"]) for e in events] for row, events in rows_of(events_of(tmp_path / "t")).items()}
    assert found == {
        (ACTORS, 0): [(1_000_000, 1_000_000), (3_000_000, 500_000)],
        (ACTORS, 1): [(1_000_000, 600_000)],
    }


def test_a_step_writes_a_bounded_number_of_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_A_STEP", 10)
    made = Timeline(tmp_path / "t", began=0.0)
    for step in (1, 2):
        made.begin_step(step)
        for number in range(13):
            made.add_slice(number, number, number + 0.5)
    made.close()
    events = events_of(tmp_path / "t")
    assert sum(event["ph"] == "X" for event in events) == 20
    assert [(e["name"], e["args"]["step"]) for e in events if e["ph"] == "i"] == [
        ("3 more intervals left out", 1),
        ("3 more intervals left out", 2),
    ]
    assert (tmp_path / "t").stat().st_size < 200 * len(events), "about 100 bytes an event"


def test_a_run_that_goes_on_has_each_step_once_and_time_goes_on(tmp_path: Path) -> None:
    path, now = tmp_path / "t", time.monotonic()
    made = Timeline(path, began=now)
    for step in (1, 2, 3):
        made.begin_step(step)
        made.add((DRIVER, 0), "generate", now + step, now + step + 1)
    made.close()
    path.write_text(path.read_text() + '{"name": "torn')
    keep_timeline_up_to(path, 2)
    # Its checkpoint says that it had run for a second.
    again = Timeline(path, began=time.monotonic() - 1)
    again.begin_step(3)
    again.add((DRIVER, 0), "generate", time.monotonic(), time.monotonic() + 1)
    again.close()
    events = events_of(path)
    require_nested(events)
    assert [event["args"]["step"] for event in events if event["ph"] == "X"] == [1, 2, 3]
    assert len({event["ts"] for event in events if event["ph"] == "X"}) == 3
    assert sum(event["name"] == "thread_name" for event in events) == 1


def test_what_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Timeline(tmp_path, began=0.0)  # a folder
    made.add((DRIVER, 0), "generate", 0.0, 1.0)
    made.close()
    full = Timeline(tmp_path / "t", began=0.0)
    full._file = open("/dev/full", "w")  # noqa: PTH123, SIM115
    full.add((DRIVER, 0), "generate", 0.0, 1.0)
    full.flush()
    full.add((DRIVER, 0), "generate", 1.0, 2.0)
    full.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "goes on without it" in caplog.text
    assert read_timeline(tmp_path / "none") == []


def test_the_clock_tells_of_what_it_adds_up() -> None:
    told: list[tuple[str, float, float]] = []
    clock = Clock(lambda *interval: told.append(interval))
    for _ in range(2):
        with clock.phase("learn"):
            pass
    lap = clock.laps()
    lap("generate")
    lap("score")
    assert [name for name, _, _ in told] == ["learn", "learn", "generate", "score"]
    for name in ("learn", "generate", "score"):
        assert clock.seconds[name] == pytest.approx(sum(end - start for own, start, end in told if own == name))


class Judge:
    def __init__(self) -> None:
        self.given: list[Future[Group]] = []

    def submit(self, group: Group) -> "Future[Group]":
        self.given.append(Future())
        return self.given[-1]

    def check(self, groups: object) -> None:
        pass


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_verifiers_are_at_work_while_any_group_is_judged(moves: list[bool]) -> None:
    """True submits a group, False judges one."""
    group, judge, added = Group(Prompt("p", ()), (1,), ()), Judge(), list[tuple[float, float]]()

    class Noted:
        def add(self, row: object, name: str, start: float, end: float) -> None:
            assert row == (VERIFIERS, 0)
            added.append((start, end))

    watched = WatchedJudge(judge, Noted())  # type: ignore[arg-type]
    under_way = idle = 0
    for submits in moves:
        if submits:
            watched.submit(group)
            under_way += 1
        elif under_way:
            judge.given.pop().set_result(group)
            under_way -= 1
            idle += not under_way
    assert len(added) == idle
    assert all(start <= end for start, end in added)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(added))
