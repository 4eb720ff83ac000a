"""HumanEval: functions to complete (Chen et al., arXiv 2107.03374), from the hub or a local file.

All of the set is test data: by default a hash gives one row in eight to `test`, for small experiments. Train on
something else where HumanEval is to measure a model, and ask all of it then (`whole: true`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.files import Row, read, text_of

INSTRUCTION = "Complete the function. Give the whole program in one ```python block."
_NEEDED = ("task_id", "prompt", "entry_point", "test")


def prompts(
    split: str, *, path: str | Path | None = None, name: str = "openai/openai_humaneval", whole: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the problems, the columns under their own names (`prompt`, `test`, `entry_point`).

    `path`, `name` and `whole`: see `data.files.read`. Raises UserError naming file and line where rows are malformed.
    """
    return map(_row, read(split, path=path, hub=name, key="task_id", only_split="test", whole=whole))


def _row(row: Row) -> dict[str, Any]:
    task, prompt, entry_point, test = (text_of(row, column, _NEEDED) for column in _NEEDED)
    return {
        "id": f"humaneval/{row.split}/{task}",
        "messages": [{"role": "user", "content": f"{INSTRUCTION}\n\n```python\n{prompt.rstrip()}\n```"}],
        "domain": "code",
        "language": "en",
        "prompt": prompt,
        "entry_point": entry_point,
        "test": test,
    }
