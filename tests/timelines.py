"""What must be true of every timeline."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

PHASES = ("generate", "score", "learn", "sync", "evaluate")
"""Those of the driver that `metrics.jsonl` has as `time/…` as well."""


def events_of(path: Path) -> list[dict[str, Any]]:
    """The events, read as the format says: an array of which the end may be missing."""
    text = path.read_text().rstrip()
    assert text.startswith("[") and text.endswith(",")
    events = json.loads(text.removesuffix(",") + "]")
    assert all({"name", "ph", "pid", "tid", "args"} <= event.keys() for event in events)
    return events


def rows_of(events: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    rows = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            rows[event["pid"], event["tid"]].append(event)
    return rows


def require_nested(events: list[dict[str, Any]]) -> None:
    """On a row, each event ends before the next begins, or holds it whole."""
    for row in rows_of(events).values():
        open_until: list[int] = []
        for event in sorted(row, key=lambda event: (event["ts"], -event["dur"])):
            assert event["ts"] >= 0 and event["dur"] >= 0
            while open_until and open_until[-1] <= event["ts"]:
                open_until.pop()
            assert not open_until or event["ts"] + event["dur"] <= open_until[-1], event
            open_until.append(event["ts"] + event["dur"])


def require_timeline(run: Path, steps: int) -> list[dict[str, Any]]:
    """A run's timeline is well-formed, and its phases are those of `metrics.jsonl`; return its events."""
    events = events_of(run / "timeline.json")
    require_nested(events)
    spent: dict[tuple[int, str], float] = defaultdict(float)
    for event in events:
        if event["ph"] == "X" and event["pid"] == 1:
            spent[event["args"]["step"], event["name"]] += event["dur"] / 1e6
    rows = list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
    assert {row["step"] for row in rows if "time/step" in row} == set(range(1, steps + 1))
    for row in rows:
        # Step 0 has what is measured before training, too.
        for phase in PHASES if row["step"] else ():
            if (seconds := row.get(f"time/{phase}")) is not None:
                assert abs(spent[row["step"], phase] - seconds) < 1e-4, (row["step"], phase)
    return events
