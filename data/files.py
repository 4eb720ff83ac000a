"""Rows from where public data sets lie: JSON lines, gzipped or not, parquet, or the Hugging Face hub.

`prompts` is itself a data source, for files that hold chats already, as `agapo filter` writes them; `dialogues` is one
for SFT, for chats in any of the common layouts (`data.layouts`).
"""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agapo.errors import UserError, first_line
from agapo.hub import missing_way
from data.layouts import CHATS, PAIRS, Unreadable, chat_of, read_columns, thinks, tools_of, with_system

TEST_SHARE = 8
"""One row in so many of a single local file is for testing."""
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")

Key = str | Sequence[str] | Callable[[Any], str | None]
"""What the split of a single file goes by: a column, the first of several that is there, or a function of the row."""


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
    key: Key,
    only_split: str = "",
    splits: Mapping[str, str] | None = None,
    streaming: bool = False,
    whole: bool = False,
    pass_broken: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a split, `train` or `test`.

    Without `path` they come from the hub's data set `hub` (and `config`). A folder holds `<split>.jsonl`, `.jsonl.gz`
    or `.parquet`. A single file, and a set of the hub with `only_split`, serves both splits: a hash of `key` gives one
    row in eight to `test`; with `whole` all of it is for testing, as a benchmark is. `splits` are the hub's names of
    the splits, {ours: theirs}; `streaming` reads its rows as they come, without downloading the set. Lines that are no
    JSON are passed on as `Broken` contents to those who ask for them. Raises UserError naming file and line otherwise,
    and ValueError for another split.
    """
    shared_by = key if callable(key) else _of_columns((key,) if isinstance(key, str) else tuple(key))
    if split not in ("train", "test"):
        raise ValueError(f"split should be 'train' or 'test', is {split!r}")
    if whole and split == "train":
        raise UserError("data.args.whole: all rows are for testing, and none are left to train on; leave it out")
    if path is None:
        name = only_split or (splits or {}).get(split, split)
        rows, where, shared = _from_hub(hub, config, name, streaming), f"{hub}/{name}", bool(only_split)
    else:
        place = Path(path)
        file = _split_file(place, split) if place.is_dir() else place
        needed = "a chat" if callable(key) else f"the column {key if isinstance(key, str) else ' or '.join(key)}"
        rows, where, shared = _from_file(file, needed), str(file), not place.is_dir()
    found = _rows(rows, split, where, shared_by if shared and not whole else None)
    return found if pass_broken else map(_whole, found)


def _whole(row: Row) -> Row:
    if isinstance(row.content, Broken):
        raise UserError(f"{row.place}: {row.content.reason}")
    return row


def text_of(row: Row, column: str, needed: Sequence[str]) -> str:
    """Return a column's text. Raises UserError naming the place where it is missing."""
    if not isinstance(row.content, dict) or not isinstance(row.content.get(column), str):
        names = " and ".join(f"'{name}'" for name in needed)
        raise UserError(f"{row.place}: no text in column '{column}'; rows need {names}")
    return row.content[column]


def prompts(split: str, *, path: str | Path | None = None, name: str = "") -> Iterator[dict[str, Any]]:
    """Yield rows that have a chat in `messages`, as they are: from a folder, a file, or the hub's data set `name`.

    Only the text of a `system` column becomes the first turn, where the chat has none.

    Raises UserError naming file and line.
    """
    if path is None and not name:
        raise UserError("data.path: data.files:prompts needs a file or folder (or args: {name: HUB_NAME})")
    return map(_chat, read(split, path=path, hub=name, key="messages"))


def _chat(row: Row) -> dict[str, Any]:
    if not isinstance(row.content, dict) or not isinstance(row.content.get("messages"), list):
        raise UserError(f"{row.place}: no list in column 'messages'; rows need a chat")
    try:
        return {**row.content, "messages": with_system(row.content["messages"], row.content)}
    except Unreadable as reason:
        raise UserError(f"{row.place}: {reason}") from None


def dialogues(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = "",
    config: str | None = None,
    only_split: str = "",
    mode: str = "non_reasoning",
    domain: str = "world",
    task: str = "chat",
    language: str = "en",
    columns: Mapping[str, str] | None = None,
    hold_out: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield rows for SFT from a folder, a file, or the hub's data set `name`, in any of the layouts of `data.layouts`.

    `mode`, `domain`, `task` and `language` are for rows that have no such column; a turn that thinks makes a row
    `reasoning`. `columns` renames columns, {theirs: ours}. `place` is `file:line`. The other options: see `read`; a
    single file is all for training, unless `hold_out` lets a hash of the first user turn part it. What cannot be read
    is passed on, for the stage to name or drop.
    """
    if path is None and not name:
        raise UserError("data.path: data.files:dialogues needs a file or folder (or args: {name: HUB_NAME})")
    renamed, about = dict(columns or {}), {"mode": mode, "domain": domain, "task": task, "language": language}
    whole = path is not None and Path(path).is_file() and not hold_out

    def part(content: Any) -> str | None:
        return None if whole else first_question(_renamed(content, renamed))

    if whole and split == "test":
        return iter(())
    rows = read(split, path=path, hub=name, config=config, only_split=only_split, key=part, pass_broken=True)
    return (_dialogue_or_row(row, _renamed(row.content, renamed), about) for row in rows)


def _dialogue_or_row(row: Row, content: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(content, Broken):
        return {"malformed": content.reason, "place": row.place}
    try:
        return _dialogue(row, content, about)
    except Unreadable as reason:
        return {"malformed": str(reason), "place": row.place}
    except (UserError, TypeError, ValueError, AttributeError, KeyError):
        # The stage has the better words for what is wrong, and the say whether such a row is dropped.
        return {**(content if isinstance(content, dict) else {}), "place": row.place}


def dialogue(row: Row, content: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return an SFT row of the content of `row`; `about` holds what the content may lack.

    Raises UserError, naming file and line, where the content is in no known layout.
    """
    try:
        return _dialogue(row, content, about)
    except Unreadable as reason:
        raise UserError(f"{row.place}: {reason}") from None


def _dialogue(row: Row, content: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    messages = chat_of(content) if isinstance(content, dict) else None
    if messages is None:
        pairs = ", ".join(f"'{question}' and '{answer}'" for question, answer in PAIRS)
        raise UserError(
            f"{row.place}: no chat; rows need a list in {' or '.join(map(repr, CHATS))}, or texts in {pairs}"
        )
    taken = read_columns(content)
    others = {key: value for key, value in content.items() if key not in taken and value is not None}
    found = {**about, **others, "messages": messages, "place": row.place}
    if "mode" not in content and thinks(messages):
        found["mode"] = "reasoning"
    tools = tools_of(content)
    return found | {"tools": tools} if tools else found


def _renamed(content: Any, names: Mapping[str, str]) -> Any:
    if not names or not isinstance(content, dict):
        return content
    return {names.get(key, key): value for key, value in content.items()}


def first_question(content: Any) -> str | None:
    """The text of the first user turn: other responses to it belong to the same split."""
    try:
        turns = (chat_of(content) if isinstance(content, dict) else None) or ()
    except Unreadable:
        return None
    asked = (turn.get("content") for turn in turns if isinstance(turn, dict) and turn.get("role") == "user")
    return next((text for text in asked if isinstance(text, str) and text), None)


def _rows(
    items: Iterator[tuple[int, Any]], split: str, where: str, shared_by: Callable[[Any], str | None] | None
) -> Iterator[Row]:
    found = False
    for line, content in items:
        if not shared_by or isinstance(content, Broken) or _split_of(shared_by(content)) in (split, None):
            found = True
            yield Row(content, split, line, f"{where}:{line}")
    if not found:
        raise UserError(f"{where}: holds no questions for the split '{split}'; give a file with rows")


def _split_of(value: str | None) -> str | None:
    """The split that a row of a single file belongs to; None (both) for a malformed row, so it is reported."""
    if value is None:
        return None
    return "test" if hashlib.sha256(value.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def _of_columns(keys: Sequence[str]) -> Callable[[Any], str | None]:
    def value(content: Any) -> str | None:
        found = next((content[key] for key in keys if content.get(key)), None) if isinstance(content, dict) else None
        return found if found is None or isinstance(found, str) else json.dumps(found, sort_keys=True)

    return value


def _split_file(folder: Path, split: str) -> Path:
    for suffix in _SUFFIXES:
        if (folder / f"{split}{suffix}").is_file():
            return folder / f"{split}{suffix}"
    raise UserError(f"{folder}: has no {split}.jsonl, {split}.jsonl.gz or {split}.parquet")


def _from_file(path: Path, needed: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, row)."""
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder; give one with rows that have {needed}")
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


@dataclass(frozen=True)
class Broken:
    """What stands in the place of a row that cannot be read."""

    reason: str


def _from_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number, row or `Broken`); a line is decoded by itself, so that one bad byte breaks one row."""
    line = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for line, text in enumerate(lines, start=1):
                if text.strip():
                    yield line, _parsed(text)
    except (OSError, EOFError) as error:
        raise UserError(f"{path}:{line + 1}: cannot be read: {error}") from None


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        return Broken(f"not JSON: {error.msg}")
    except UnicodeDecodeError as error:
        return Broken(f"not UTF-8: {error.reason} at byte {error.start + 1} of the line")
    except RecursionError:
        return Broken("nested too deeply")
    except ValueError as error:
        return Broken(f"cannot be read: {error}")


def _from_hub(name: str, config: str | None, split: str, streaming: bool) -> Iterator[tuple[int, Any]]:
    why = missing_way()
    from datasets import load_dataset  # slow to import, and not needed for local files

    try:
        rows = load_dataset(name, config, split=split, streaming=streaming)
    except Exception as error:
        reason = first_line(error)
        # A folder, or a set in the cache, is read without a way to the hub: then what it lacks is the reason.
        of_split = "split" in reason
        reason = f"{why}, and it is not in the cache" if why and not of_split else reason
        mend = "name its own in data.args.splits" if of_split else "set data.path to a file"
        raise UserError(f"data.source: cannot load '{name}' from the hub ({reason}); {mend}") from error
    yield from enumerate(rows, start=1)
