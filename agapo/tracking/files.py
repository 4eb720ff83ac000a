"""Small files that are complete or absent: atomic JSON and text, and JSON lines that survive a torn last line."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def write_text_atomic(path: Path, text: str) -> None:
    """Write `path` so that a reader, or a crash, sees the old content or the new, never a part."""
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Like `write_text_atomic`, for bytes."""
    with _replacing(path) as file:
        file.write(content)


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinities become null, paths become text."""
    write_text_atomic(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in `path`, or None where there is no file or it holds no object."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def json_line(value: Mapping[str, Any]) -> str:
    """Return `value` as one line of JSON with its newline; NaN and infinities become null."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False) + "\n"


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file; nothing where there is no file, and torn lines are passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (value for value in map(_parse, file) if value is not None)


def keep_steps_up_to(path: Path, step: int) -> None:
    """Drop the lines of a JSON lines file whose `step` is above `step`, and torn lines; atomically."""
    if not path.exists():
        return
    with path.open("rb") as old, _replacing(path) as new:
        new.writelines(line for line in old if _belongs(line, step))


def last_step(path: Path) -> int:
    """Return the highest `step` in a JSON lines file; -1 where there is none."""
    with path.open("rb") as file:
        steps = [(_parse(line) or {}).get("step") for line in file]
    return max((step for step in steps if isinstance(step, int)), default=-1)


def plain(value: Any) -> Any:
    """Return `value` with non-finite floats as None and everything JSON has no word for as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        # float() also turns numpy's float64, which is a float, into the plain one.
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        # Half a surrogate pair is a text to Python, and to no file.
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    return value if value is None or isinstance(value, int | bool) else _scalar_or_text(value)


def _scalar_or_text(value: Any) -> Any:
    """Numbers of numpy and torch have `.item()`; a path, a date or a set of answers becomes text."""
    try:
        return plain(value.item())
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return str(value)


def _parse(line: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _belongs(line: bytes, step: int) -> bool:
    # A line without its newline is the last one of a process that was killed while it wrote.
    value = _parse(line) if line.endswith(b"\n") else None
    if value is None:
        return False
    own = value.get("step")
    return not isinstance(own, int) or own <= step


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a file beside `path` that takes its place when the block ends well, and vanishes when it does not."""
    # The name starts with a dot: a leftover of a crash is no content of a run directory.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
