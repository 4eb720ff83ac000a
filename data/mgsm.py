"""MGSM: 250 questions of GSM8K, translated by people into ten languages (Shi et al., arXiv 2210.03057); no Korean.

Rows have `question` and a number in `answer_number` or `answer`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read, text_of
from data.gsm8k import INSTRUCTION

_INSTRUCTIONS = {"es": "Resuelve el problema y pon el número final dentro de \\boxed{}."}


def prompts(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = "juletxara/mgsm",
    language: str = "es",
    whole: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the questions in a language (the hub's subset), each with its number as `answer`.

    What is asked for is said in Spanish or English. `path`, `name` and `whole`: see `data.files.read`. Raises UserError
    naming file and line where rows are malformed.
    """
    rows = read(split, path=path, hub=name, config=language, key="question", whole=whole)
    return (_row(row, language) for row in rows)


def _row(row: Row, language: str) -> dict[str, Any]:
    question = text_of(row, "question", ("question", "answer"))
    answer = row.content.get("answer_number", row.content.get("answer"))
    if answer is None or not str(answer).strip():
        raise UserError(f"{row.place}: no number in column 'answer_number' or 'answer'")
    return {
        "id": f"mgsm/{language}/{row.split}/{row.line}",
        "messages": [{"role": "user", "content": f"{question.strip()}\n\n{_INSTRUCTIONS.get(language, INSTRUCTION)}"}],
        "domain": "math",
        "language": language,
        "answer": str(answer).replace(",", ""),
    }
