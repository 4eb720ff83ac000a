"""MATH: competition problems with LaTeX answers (Hendrycks et al., arXiv 2103.03874), from the hub or local files.

Rows have `problem`, and `answer` or a `solution` that ends in a box; the gold answer becomes the `answer` column.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read, text_of

INSTRUCTION = "Solve the problem and put the final answer within \\boxed{}."


def prompts(
    split: str, *, path: str | Path | None = None, name: str = "DigitalLearningGmbH/MATH-lighteval", levels: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield the problems of a split, of all levels or of some (`levels: "345"`).

    `path` and `name`: see `data.files.read`. Raises UserError naming file and line where rows are malformed.
    """
    rows = read(split, path=path, hub=name, key="problem")
    return (_row(row) for row in rows if not levels or _level(row) in levels)


def _level(row: Row) -> str:
    return str(row.content.get("level", "")).removeprefix("Level ") if isinstance(row.content, dict) else ""


def _row(row: Row) -> dict[str, Any]:
    problem = text_of(row, "problem", ("problem", "answer"))
    answer = row.content.get("answer") or row.content.get("solution")
    if not isinstance(answer, str):
        raise UserError(f"{row.place}: no text in column 'answer' or 'solution'; rows need one of them")
    return {
        "id": f"math/{row.split}/{row.line}",
        "messages": [{"role": "user", "content": f"{problem.strip()}\n\n{INSTRUCTION}"}],
        "domain": "math",
        "language": "en",
        "answer": answer,
        "level": _level(row),
    }
