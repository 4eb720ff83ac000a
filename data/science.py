"""Questions with choices, from the hub or local files: ARC, OpenBookQA, SciQ, GPQA, MMLU-Pro, and what looks like them.

By default ARC-Challenge (Clark et al., arXiv 1803.05457). Rows have a question, with `choices` and `answerKey` (ARC,
OpenBookQA), with `correct_answer` and `distractor1` to `distractor3` (SciQ), with `Correct Answer` and `Incorrect
Answer 1` to `3` (GPQA), with `options` and `answer_index` (MMLU-Pro), or with `A` to `D` and `Answer`, a letter (MMMLU)
or, from 1, a number (KMMLU). Choices are dealt
anew, repeatably, so that no letter is likelier than another.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read

INSTRUCTION = "Choose one, and put its letter within \\boxed{}."
_QUESTIONS = ("question", "question_stem", "Question")
LETTERS = "ABCDEFGHIJ"


def prompts(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = "allenai/ai2_arc",
    config: str | None = "ARC-Challenge",
    only_split: str = "",
    whole: bool = False,
    language: str = "en",
) -> Iterator[dict[str, Any]]:
    """Yield the questions of a split: `answer` is the right letter, `choices` maps letters to texts.

    `path`, `name`, `only_split` and `whole`: see `data.files.read`. Raises UserError naming file and line where rows
    are malformed.
    """
    rows = read(split, path=path, hub=name, config=config, key=_QUESTIONS, only_split=only_split, whole=whole)
    return (_row(row) | {"language": language} for row in rows)


def _row(row: Row) -> dict[str, Any]:
    content = row.content if isinstance(row.content, dict) else {}
    question = next((content[name] for name in _QUESTIONS if content.get(name)), None)
    try:
        right, wrong = _options(content)
    except (KeyError, ValueError, TypeError, IndexError):
        raise UserError(
            f"{row.place}: rows need 'choices' and 'answerKey', 'correct_answer' and 'distractor1' to 'distractor3', "
            "'Correct Answer' and 'Incorrect Answer 1' to '3', 'options' and 'answer_index', or 'A' to 'D' and 'Answer'"
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
    if "Correct Answer" in content:
        return content["Correct Answer"], [content[f"Incorrect Answer {number}"] for number in (1, 2, 3)]
    if "options" in content:
        texts, place = list(content["options"]), int(content["answer_index"])
    elif "A" in content:
        texts, answer = [str(content[letter]) for letter in "ABCD"], content.get("Answer", content.get("answer"))
        place = "ABCD".index(answer) if isinstance(answer, str) else int(answer) - 1
    else:
        texts, labels = list(content["choices"]["text"]), list(content["choices"]["label"])
        place = labels.index(content["answerKey"])
    if place < 0:
        raise IndexError
    right = texts.pop(place)
    return right, texts
