"""Was the needle found? The final answer holds the expected one as a whole word, and none of its rivals.

Left out: how the answer is worded. Thinking does not count, only what stands after it.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from agapo.chat import Completion, final_answer
from agapo.schema import Mode

_ENDINGS = (
    "입니다|입니까|이었습니다|였습니다|이에요|예요|이다|이라고|라고|으로|로|에서는|에서|에게|에는|에도|에|까지|부터|"
    "은|는|이|가|을|를|의|와|과|도|만|다"
)
"""Korean particles and copulas, which are written on to the word."""


def score(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    answer: Sequence[Any] | None = None,
    mode: Sequence[Mode | None] | None = None,
    candidates: Sequence[Sequence[str] | None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Return 1.0 where the needle was found, 0.0 where not, None where no answer is known.

    `answer` is a text, or a list of which all should be there. `candidates`, where there is such a column, are the
    answers that the context offers: one that is not expected and yet in the response makes it wrong.
    """
    count = len(completions)
    rows = zip(completions, answer or [None] * count, mode or [None] * count, candidates or [None] * count, strict=True)
    return [_score(*row) for row in rows]


def _score(completion: Completion, answer: Any, mode: Mode | None, candidates: Sequence[str] | None) -> float | None:
    wanted = [
        str(item) for item in (answer if isinstance(answer, list | tuple) else [answer]) if item not in (None, "")
    ]
    if not wanted:
        return None
    text = _plain(final_answer(completion, mode) or "")
    found = all(contains(text, item) for item in wanted)
    return float(found and not any(_names(text, str(item), wanted) for item in candidates or ()))


def _names(text: str, rival: str, wanted: Sequence[str]) -> bool:
    """Whether a rival is named; one that is a part of what is wanted ("Kim" of "Kim Minsu") is not named by that."""
    if _plain(rival) in map(_plain, wanted):
        return False
    for item in wanted:
        if contains(item, rival):
            text = re.sub(_pattern(item), " ", text)
    return contains(text, rival)


def contains(text: str, answer: str) -> bool:
    """Return whether `answer` stands in `text` as a whole word, whatever the case.

    `4821` is not in `14821`, `4821.5` or `4,821,000`; `Busan` is in `Busan.` and `부산` in `부산입니다`.
    """
    return re.search(_pattern(answer), _plain(text)) is not None


@lru_cache(maxsize=4096)
def _pattern(answer: str) -> str:
    word = _plain(answer)
    return rf"{_before(word[0])}{re.escape(word)}{_after(word[-1])}"


def _before(first: str) -> str:
    number = r"(?<!\d[.,:])" if first.isdigit() else ""
    return rf"(?<!\w){number}" if re.match(r"\w", first) else ""


def _after(last: str) -> str:
    if not re.match(r"\w", last):
        return ""
    number = r"(?![.,:]\d)" if last.isdigit() else ""
    # Korean endings follow a word of any script: 4821입니다, Kim은, 부산에서.
    return rf"{number}(?=(?:{_ENDINGS})*(?!\w))"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()
