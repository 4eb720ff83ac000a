"""Rows from where public data sets lie: JSON lines, gzipped or not, parquet, or the Hugging Face hub.

`prompts` is itself a data source, for files that hold chats already, as `agapo filter` writes them.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agapo.errors import UserError

TEST_SHARE = 8
"""One row in so many of a single local file is for testing."""
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


@dataclass(frozen=True)
class Row:
    """A row, and where it comes from."""

    content: Any
    """A dict, unless the file is broken."""
    split: str
    line: int
    """Counted from 1."""
    place: str
    """`file:line`, for messages."""


def read(
    split: str,
    *,
    path: str | Path | None,
    hub: str,
    config: str | None = None,
    key: str | Sequence[str],
    only_split: str = "",
) -> Iterator[Row]:
    """Yield the rows of a split, `train` or `test`.

    Without `path` they come from the hub's data set `hub` (and `config`). A folder holds `<split>.jsonl`, `.jsonl.gz`
    or `.parquet`. A single file, and a set of the hub with `only_split`, serves both splits: a hash of the column
    `key` (of several, the first that is there) gives one row in eight to `test`. Raises UserError naming the file, and
    ValueError for another split.
    """
    keys = (key,) if isinstance(key, str) else tuple(key)
    if split not in ("train", "test"):
        raise ValueError(f"split should be 'train' or 'test', is {split!r}")
    if path is None:
        name = only_split or split
        rows, where, shared = _from_hub(hub, config, name), f"{hub}/{name}", bool(only_split)
    else:
        place = Path(path)
        file = _split_file(place, split) if place.is_dir() else place
        rows, where, shared = _from_file(file, " or ".join(keys)), str(file), not place.is_dir()
    return _rows(rows, split, where, keys if shared else ())


def text_of(row: Row, column: str, needed: Sequence[str]) -> str:
    """Return a column's text. Raises UserError naming the place where it is missing."""
    if not isinstance(row.content, dict) or not isinstance(row.content.get(column), str):
        names = " and ".join(f"'{name}'" for name in needed)
        raise UserError(f"{row.place}: no text in column '{column}'; rows need {names}")
    return row.content[column]


def prompts(split: str, *, path: str | Path | None = None, name: str = "") -> Iterator[dict[str, Any]]:
    """Yield rows that have a chat in `messages`, as they are: from a folder, a file, or the hub's data set `name`.

    Raises UserError naming file and line.
    """
    if path is None and not name:
        raise UserError("data.path: data.files:prompts needs a file or folder (or args: {name: HUB_NAME})")
    return map(_chat, read(split, path=path, hub=name, key="messages"))


def _chat(row: Row) -> dict[str, Any]:
    if not isinstance(row.content, dict) or not isinstance(row.content.get("messages"), list):
        raise UserError(f"{row.place}: no list in column 'messages'; rows need a chat")
    return row.content


def _rows(items: Iterator[tuple[int, Any]], split: str, where: str, shared_by: Sequence[str]) -> Iterator[Row]:
    found = False
    for line, content in items:
        if not shared_by or _split_of(content, shared_by) in (split, None):
            found = True
            yield Row(content, split, line, f"{where}:{line}")
    if not found:
        raise UserError(f"{where}: holds no questions for the split '{split}'; give a file with rows")


def _split_of(content: Any, keys: Sequence[str]) -> str | None:
    """The split that a row of a single file belongs to; None (both) for a malformed row, so it is reported."""
    value = next((content[key] for key in keys if content.get(key)), None) if isinstance(content, dict) else None
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return "test" if hashlib.sha256(text.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def _split_file(folder: Path, split: str) -> Path:
    for suffix in _SUFFIXES:
        if (folder / f"{split}{suffix}").is_file():
            return folder / f"{split}{suffix}"
    raise UserError(f"{folder}: has no {split}.jsonl, {split}.jsonl.gz or {split}.parquet")


def _from_file(path: Path, key: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, row)."""
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder; give one with rows that have the column {key}")
    if not path.name.endswith(_SUFFIXES):
        raise UserError(f"{path}: should end with {', '.join(_SUFFIXES)}")
    return _from_parquet(path) if path.suffix == ".parquet" else _from_jsonl(path)


def _from_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    from pyarrow import ArrowException, parquet  # costs 0.2 s; most runs read no parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path}: not a parquet file: {error}") from None
    yield from enumerate(rows, start=1)


def _from_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    line = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for line, text in enumerate(lines, start=1):
                if text.strip():
                    yield line, json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{line}: not JSON: {error.msg}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}:{line + 1}: cannot be read: {error}") from None


def _from_hub(name: str, config: str | None, split: str) -> Iterator[tuple[int, Any]]:
    from datasets import load_dataset  # slow to import, and not needed for local files

    try:
        rows = load_dataset(name, config, split=split)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"data.source: cannot load '{name}' from the hub ({reason}); set data.path to a file"
        ) from error
    yield from enumerate(rows, start=1)
