"""GSM8K: grade-school word problems (Cobbe et al., arXiv 2110.14168), from the hub or from local files.

Rows have `question` and `answer`; the worked answer ends with `#### <number>`, which becomes the `answer` column.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agapo.errors import UserError

INSTRUCTION = "Solve the problem and put the final number within \\boxed{}."
TEST_SHARE = 8
"""One question in so many of a single local file is for testing."""
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def prompts(split: str, *, path: str | Path | None = None, name: str = "openai/gsm8k") -> Iterator[dict[str, Any]]:
    """Yield the questions of a split, `train` or `test`, each with its final number as `answer`.

    Without `path` they come from the hub's data set `name`. A folder holds `<split>.jsonl`, `.jsonl.gz` or
    `.parquet`. A single file serves both splits: a hash of the question gives one in eight to `test`.
    Raises UserError naming file and line where rows are missing or malformed.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split should be 'train' or 'test', is {split!r}")
    if path is None:
        return _rows(_from_hub(name, split), where=f"{name}/{split}", split=split)
    path = Path(path)
    if path.is_dir():
        file = _split_file(path, split)
        return _rows(_from_file(file), where=str(file), split=split)
    shared = (item for item in _from_file(path) if _split_of(item[1]) in (split, None))
    return _rows(shared, where=str(path), split=split)


def _rows(items: Iterator[tuple[int, Any]], *, where: str, split: str) -> Iterator[dict[str, Any]]:
    found = False
    for line, row in items:
        found = True
        yield _row(row, f"{where}:{line}", f"gsm8k/{split}/{line}")
    if not found:
        raise UserError(f"{where}: holds no questions for the split '{split}'; give a file with rows")


def _row(row: Any, place: str, name: str) -> dict[str, Any]:
    for column in ("question", "answer"):
        if not isinstance(row, dict) or not isinstance(row.get(column), str):
            raise UserError(f"{place}: no text in column '{column}'; rows need 'question' and 'answer'")
    solution, marker, final = row["answer"].rpartition("####")
    if not marker or not final.strip():
        raise UserError(f"{place}: column 'answer' has no '#### <number>' at its end")
    return {
        "id": name,
        "messages": [{"role": "user", "content": f"{row['question'].strip()}\n\n{INSTRUCTION}"}],
        "domain": "math",
        "language": "en",
        "answer": final.strip().replace(",", ""),
        "solution": solution.strip(),
    }


def _split_of(row: Any) -> str | None:
    """The split that a question of a single file belongs to; None (both) for a malformed row, so it is reported."""
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        return None
    return "test" if hashlib.sha256(row["question"].encode()).digest()[0] % TEST_SHARE == 0 else "train"


def _split_file(folder: Path, split: str) -> Path:
    for suffix in _SUFFIXES:
        if (folder / f"{split}{suffix}").is_file():
            return folder / f"{split}{suffix}"
    raise UserError(f"{folder}: has no {split}.jsonl, {split}.jsonl.gz or {split}.parquet")


def _from_file(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number, row)."""
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder; give one with the columns question and answer")
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


def _from_hub(name: str, split: str) -> Iterator[tuple[int, Any]]:
    from datasets import load_dataset  # slow to import, and not needed for local files

    try:
        rows = load_dataset(name, "main", split=split)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"data.source: cannot load '{name}' from the hub ({reason}); set data.path to a file"
        ) from error
    yield from enumerate(rows, start=1)
