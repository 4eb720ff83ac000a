"""What was measured: one record a case, written as soon as it is known, and shown as tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

Figure = float | int | str | None


@dataclass(frozen=True)
class Record:
    """One case of a part: its figures, or the reason why there are none."""

    case: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By name, with the unit in the name; None where this machine cannot tell."""
    note: str = ""


class Recorder:
    """Appends the records of a part to a file, so that what was measured survives a time-out or a crash."""

    def __init__(self, path: Path):
        self._path = path
        path.write_text("")

    def add(self, case: str, figures: Mapping[str, Figure] | None = None, note: str = "") -> None:
        """Write a record down, and show it."""
        record = Record(case, figures or {}, note)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        print(f"  {case}: {_line(record)}", flush=True)


def read_records(path: Path) -> list[Record]:
    """Return the records of a part, in order."""
    return [Record(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def markdown(title: str, records: Sequence[Record]) -> str:
    """Return a part's records as a Markdown table, with a column for each figure."""
    names = list(dict.fromkeys(name for record in records for name in record.figures))
    rows = [("case", *names, "note"), *((r.case, *(_show(r.figures.get(n)) for n in names), r.note) for r in records)]
    head, *body = [_cells(row) for row in rows]
    return "\n".join([f"### {title}", "", head, "|---" * (len(names) + 2) + "|", *body, ""])


def _cells(row: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def _line(record: Record) -> str:
    figures = ", ".join(f"{name} {_show(value)}" for name, value in record.figures.items())
    return " – ".join(filter(None, [figures, record.note]))


def _show(value: Figure) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
