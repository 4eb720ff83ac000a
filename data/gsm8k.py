"""GSM8K: grade-school word problems (Cobbe et al., arXiv 2110.14168), from the hub or from local files.

Rows have `question` and `answer`; the worked answer ends with `#### <number>`, which becomes the `answer` column.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read, text_of

INSTRUCTION = "Solve the problem and put the final number within \\boxed{}."


def prompts(split: str, *, path: str | Path | None = None, name: str = "openai/gsm8k") -> Iterator[dict[str, Any]]:
    """Yield the questions of a split, `train` or `test`, each with its final number as `answer`.

    `path` and `name`: see `data.files.read`. Raises UserError naming file and line where rows are missing or malformed.
    """
    return map(_row, read(split, path=path, hub=name, config="main", key="question"))


def _row(row: Row) -> dict[str, Any]:
    question, answer = (text_of(row, column, ("question", "answer")) for column in ("question", "answer"))
    solution, marker, final = answer.rpartition("####")
    if not marker or not final.strip():
        raise UserError(f"{row.place}: column 'answer' has no '#### <number>' at its end")
    return {
        "id": f"gsm8k/{row.split}/{row.line}",
        "messages": [{"role": "user", "content": f"{question.strip()}\n\n{INSTRUCTION}"}],
        "domain": "math",
        "language": "en",
        "answer": final.strip().replace(",", ""),
        "solution": solution.strip(),
    }
