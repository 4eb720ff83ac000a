"""Science questions with choices, from the hub or local files: ARC, OpenBookQA, SciQ, and what looks like them.

By default ARC-Challenge (Clark et al., arXiv 1803.05457). Rows have `question` or `question_stem`, with `choices` and
`answerKey` (ARC, OpenBookQA), or with `correct_answer` and `distractor1` to `distractor3` (SciQ). Choices are dealt
anew, repeatably, so that no letter is likelier than another.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read

INSTRUCTION = "Choose one, and put its letter within \\boxed{}."
LETTERS = "ABCDEFGHIJ"


def prompts(
    split: str, *, path: str | Path | None = None, name: str = "allenai/ai2_arc", config: str | None = "ARC-Challenge"
) -> Iterator[dict[str, Any]]:
    """Yield the questions of a split: `answer` is the right letter, `choices` maps letters to texts.

    `path` and `name`: see `data.files.read`. Raises UserError naming file and line where rows are malformed.
    """
    return map(_row, read(split, path=path, hub=name, config=config, key="question"))


def _row(row: Row) -> dict[str, Any]:
    content = row.content if isinstance(row.content, dict) else {}
    question = content.get("question") or content.get("question_stem")
    try:
        right, wrong = _options(content)
    except (KeyError, ValueError, TypeError):
        raise UserError(
            f"{row.place}: rows need 'choices' and 'answerKey', or 'correct_answer' and 'distractor1' to 'distractor3'"
        ) from None
    if not isinstance(question, str) or not wrong:
        raise UserError(f"{row.place}: no text in column 'question' or 'question_stem', or no choices")
    options = [right, *wrong]
    random.Random(f"science/{question}").shuffle(options)
    choices = dict(zip(LETTERS, options, strict=False))
    listed = "\n".join(f"{letter}. {option}" for letter, option in choices.items())
    return {
        "id": f"science/{row.split}/{content.get('id') or row.line}",
        "messages": [{"role": "user", "content": f"{question.strip()}\n\n{listed}\n\n{INSTRUCTION}"}],
        "domain": "science",
        "language": "en",
        "answer": LETTERS[options.index(right)],
        "choices": choices,
    }


def _options(content: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the right option and the wrong ones."""
    if "correct_answer" in content:
        return content["correct_answer"], [content[f"distractor{number}"] for number in (1, 2, 3)]
    texts, labels = list(content["choices"]["text"]), list(content["choices"]["label"])
    right = texts.pop(labels.index(content["answerKey"]))
    return right, texts
