"""MATH: competition problems with LaTeX answers (Hendrycks et al., arXiv 2103.03874), from the hub or local files.

Rows have `problem`, and `answer` or a `solution` that ends in a box; the gold answer becomes the `answer` column. Other
sets have the same columns: MATH-500 (`HuggingFaceH4/MATH-500`), AIME (`MathArena/aime_2025`), HMMT
(`MathArena/hmmt_feb_2025`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read, text_of

INSTRUCTION = "Solve the problem and put the final answer within \\boxed{}."


def prompts(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = "DigitalLearningGmbH/MATH-lighteval",
    levels: str = "",
    only_split: str = "",
    whole: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the problems of a split, of all levels or of some (`levels: "345"`).

    `path`, `name`, `only_split` and `whole`: see `data.files.read`. Raises UserError naming file and line where
    rows are malformed.
    """
    rows = read(split, path=path, hub=name, key="problem", only_split=only_split, whole=whole)
    return (_row(row) for row in rows if not levels or _level(row) in levels)


def _level(row: Row) -> str:
    return str(row.content.get("level", "")).removeprefix("Level ") if isinstance(row.content, dict) else ""


def _row(row: Row) -> dict[str, Any]:
    problem = text_of(row, "problem", ("problem", "answer"))
    answer = row.content.get("answer")
    answer = row.content.get("solution") if answer in (None, "") else answer
    if not isinstance(answer, str | int | float) or isinstance(answer, bool):
        raise UserError(f"{row.place}: no answer in column 'answer' or 'solution'; rows need one of them")
    return {
        "id": f"math/{row.split}/{row.line}",
        "messages": [{"role": "user", "content": f"{problem.strip()}\n\n{INSTRUCTION}"}],
        "domain": "math",
        "language": "en",
        "answer": str(answer),
        "level": _level(row),
    }
