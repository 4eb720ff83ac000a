r"""Is the final answer mathematically the gold one?

The final answer is the last `\boxed{…}`, else GSM8K's `#### …`, else the last formula or number. It is parted into
an expression and its unit (`answers`), and compared as exact numbers, as text, as intervals, and only then, since it
costs milliseconds and can hang, by math-verify. What math-verify gets to see is bounded beforehand (`answers.bounds`):
sympy evaluates 9^{9^9} in one uninterruptible step, which outlives any alarm. What the bounds let through is left to
math-verify's own timeout or to the verifier pool's deadline.

Deliberately left out: judging the working, and several boxes that make one answer together.
"""

import logging
import math
import os
import re
import threading
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException

from agapo.chat import Completion, final_answer
from agapo.schema import Mode
from rewards.answers.bounds import is_tame, precision
from rewards.answers.extraction import extract_answer, marked_answer
from rewards.answers.inequalities import are_joined_alike, ascending, is_same_region, read_region
from rewards.answers.notation import Answer, are_remarks_alike, bare, read_answer, with_fractions, with_symbols
from rewards.answers.numbers import Numbers, are_same, in_base, read_number, read_numbers, same_ratio
from rewards.answers.units import are_opposite, size_ratio

# It warns whenever a timeout passes or is switched off; both are meant, and counted, here.
logging.getLogger("math_verify").setLevel(logging.ERROR)

Gold = str | int | float | None

_TIMEOUT_S = 5
_MAX_LENGTH = 1000
"""Characters of an answer; a longer one is right only when it is the gold one letter for letter."""

# --- the reward ---


def score(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    answer: Sequence[Gold],
    mode: Sequence[Mode | None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Return 1.0 for a correct final answer, 0.0 for a wrong or missing one, None where there is no usable gold.

    `answer` holds the golds: a number, an answer, or a worked solution that ends in `#### …` or holds a `\\boxed{…}`.
    `mode` says how completions part into thinking and answer (see `agapo.chat.split_thinking`).
    """
    modes = [None] * len(completions) if mode is None else mode
    return [_score(*sample) for sample in zip(completions, answer, modes, strict=True)]


def parseable(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    mode: Sequence[Mode | None] | None = None,
    **columns: Any,
) -> list[float]:
    """Return 1.0 where there is a marked final answer (`\\boxed{…}` or `#### …`), right or wrong, else 0.0.

    With weight 0 in a recipe it shows how much of a gain is only the format.
    """
    modes = [None] * len(completions) if mode is None else mode
    texts = (final_answer(*sample) for sample in zip(completions, modes, strict=True))
    return [float(text is not None and marked_answer(text) is not None) for text in texts]


def canonical(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    mode: Sequence[Mode | None] | None = None,
    **columns: Any,
) -> list[str | None]:
    """Return each final answer in a form in which the same one is the same text, None where there is none; for maj@k.

    Numbers and lists of them by their exact value; other answers as they are written, but for spacing and labels, so
    that two forms of one formula have a vote each.
    """
    modes = [None] * len(completions) if mode is None else mode
    texts = (final_answer(*sample) for sample in zip(completions, modes, strict=True))
    found = (None if text is None else extract_answer(text) for text in texts)
    return [None if text is None else _canonical(text) for text in found]


def _canonical(text: str) -> str:
    if len(text) > _MAX_LENGTH:
        return text
    read = read_answer(text)
    numbers = read_numbers(text) or read_numbers(read.body)
    if numbers is None:
        return bare(read.body).replace(" ", "") or text
    brackets, values = numbers
    listed = ", ".join(f"{one.value}{'%' * one.is_percentage}" for one in values)
    return f"{brackets[:1]}{listed}{brackets[1:]}"


def _score(completion: Completion, answer: Gold, mode: Mode | None) -> float | None:
    gold = _gold_answer(answer)
    if gold is None:
        return None
    final = final_answer(completion, mode)
    found = None if final is None else extract_answer(final)
    return float(found is not None and _is_equal(gold, found))


def _gold_answer(answer: Gold) -> str | None:
    if answer is None or (isinstance(answer, float) and not math.isfinite(answer)):
        return None
    text = str(answer).strip()
    found = marked_answer(text)
    gold = text if found is None else found
    return gold if _is_readable(gold) else None


def _is_readable(gold: str) -> bool:
    says_something = bool(gold.strip(" \t\r\n.,;:!?-_*#$\\()[]{}"))
    plain = re.sub(r"\\.", "", gold, flags=re.DOTALL)
    return says_something and plain.count("{") == plain.count("}")


# --- comparing answers ---


def _is_equal(gold: str, found: str) -> bool:
    if gold.strip() == found.strip():
        return True
    if max(len(gold), len(found)) > _MAX_LENGTH:
        return False
    numbers = read_numbers(gold), read_numbers(found)
    if numbers[0] and numbers[1]:  # as in most rows; the rest costs half a millisecond
        return are_same(numbers[0], numbers[1])
    return _same_answer(read_answer(gold), read_answer(found))


def _same_answer(gold: Answer, found: Answer) -> bool:
    """Compare choices by letter where the gold one is a letter, else by what they say, in one unit."""
    letter = gold.label or (bare(gold.body) if _CHOICE.fullmatch(bare(gold.body)) else None)
    if letter and found.label and (gold.label is None or letter != found.label):
        return letter == found.label
    if gold.label and bare(found.body) == gold.label:
        return True
    if are_opposite(gold.measure, found.measure) or not are_remarks_alike(gold.remark, found.remark):
        return False
    angles = _in_radians(gold, found)
    if angles:
        return _verified(*angles)
    ratio = size_ratio(gold.measure, found.measure)
    return ratio is not None and _same_quantity(*_alike(gold, found), ratio)


_CHOICE = re.compile("[A-J]")
_NAME = re.compile(r"(?:\\[a-z]+|\\text\{[^{}=]*\}|[a-zA-Z]+)(?: ?_ ?\{?\w+\}?)?(?: ?\( ?[a-zA-Z] ?\))? ?= ?")


def _alike(gold: Answer, found: Answer) -> tuple[Answer, Answer]:
    """Take `x =` away where only one answer has it."""
    if ("=" in gold.body) == ("=" in found.body):
        return gold, found
    return _unnamed(gold), _unnamed(found)


def _unnamed(answer: Answer) -> Answer:
    left, _, right = answer.body.partition("=")
    if re.fullmatch(" ?[a-zA-Z]", right) and read_number(left.strip()):  # 5 = x
        return answer._replace(body=left.strip())
    name = _NAME.match(answer.body)
    is_list = re.search(r",|\\text|\\(?:lor|vee|land|wedge|pm)|\b(?:or|and)\b", answer.body)
    if name is None or is_list or not answer.body[name.end() :]:
        return answer
    return answer._replace(body=answer.body[name.end() :].rpartition("=")[2].strip())


def _in_radians(gold: Answer, found: Answer) -> tuple[str, str] | None:
    """Return both angles in radians where one is in degrees and the other has \\pi in it or says radians."""
    in_degrees = [("degree", 1) in _dimensions(answer) for answer in (gold, found)]
    in_radians = [
        ("radian", 1) in _dimensions(answer) or (not answer.measure.units and r"\pi" in answer.body)
        for answer in (gold, found)
    ]
    if not ((in_degrees[0] and in_radians[1]) or (in_degrees[1] and in_radians[0])):
        return None
    bodies = [
        rf"\frac{{({answer.body}) \pi}}{{180}}" if is_degree else answer.body
        for answer, is_degree in zip(_alike(gold, found), in_degrees, strict=True)
    ]
    return bodies[0], bodies[1]


def _dimensions(answer: Answer) -> set[tuple[str, int]]:
    return {part for unit in answer.measure.units for part in unit.dimension}


def _same_quantity(gold: Answer, found: Answer, ratio: Fraction) -> bool:
    """Compare as numbers where both are, else as expressions; `ratio` is the size of the found unit in gold ones."""
    factors = gold.measure.scale, found.measure.scale * ratio
    numbers = _scaled(gold, factors[0]), _scaled(found, factors[1])
    if numbers[0] is not None and numbers[1] is not None:
        return are_same(numbers[0], numbers[1])
    return _same_expression(_written(gold, factors[0]), _written(found, factors[1]))


def _scaled(answer: Answer, factor: Fraction) -> Numbers | None:
    numbers = read_numbers(answer.body)
    if numbers is None:
        return None
    is_percentage = answer.measure.is_percentage
    return numbers[0], [
        number._replace(value=number.value * factor, is_percentage=number.is_percentage or is_percentage)
        for number in numbers[1]
    ]


def _written(answer: Answer, factor: Fraction) -> str:
    body = answer.body if factor == 1 else rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot ({answer.body})"
    return rf"{body}\%" if answer.measure.is_percentage else body


def _same_expression(gold: str, found: str) -> bool:
    bases = in_base(bare(gold)), in_base(bare(found))
    if bases[0] and bases[1]:
        return bases[0] == bases[1]
    if bases[1] and bases[1].base != 10 and read_number(bare(gold)):  # a gold number that names no base is decimal
        return False
    ratios = same_ratio(bare(gold), bare(found))
    if ratios is not None:
        return ratios
    if not are_joined_alike(gold, found):
        return False
    regions = read_region(gold), read_region(found)
    if regions[0] and regions[1] and is_same_region(regions[0], regions[1], _is_equal):
        return True
    return _same_text(gold, found) or _same_approximately(gold, found) or _verified(gold, found)


_NO_SOLUTION = re.compile(r"(?:there (?:is|are) )?no solutions?|\\emptyset|\\varnothing|∅|(?:the )?empty set", re.I)


def _same_text(gold: str, found: str) -> bool:
    gold, found = bare(gold), bare(found)
    if _NO_SOLUTION.fullmatch(gold) and _NO_SOLUTION.fullmatch(found):
        return True
    one, other = (re.sub(r"(?<!\d) | (?!\d)", "", text) for text in (gold, found))
    if one == other:
        return True
    # Words, unlike variables, read the same in capitals.
    return re.fullmatch(r"[A-Za-z ,.'-]{3,}", gold) is not None and gold.casefold() == found.casefold()


def _same_approximately(gold: str, found: str) -> bool:
    r"""Accept \sqrt{2} \approx 1.414 for either; what a response calls near must be."""
    golds, founds = (re.split(r" ?\\approx ?", text) for text in (gold, found))
    if len(golds) + len(founds) == 2 or max(len(golds), len(founds)) > 2:
        return False
    if len(founds) == 2 and not _is_near(*founds):
        return False
    return any(_is_equal(one, other) for one in golds for other in founds)


# --- math-verify ---

_PRODUCT = re.compile(r"-?[\d.]+(?:ab|bc|by|cs|ds|gs|hs|ls|lt|mp|mt|os|rs|ss|ts)")
"""What math-verify takes for a unit is two variables: 2ab."""
_LATEX = [LatexExtractionConfig(boxed_match_priority=-1)]


def _verified(gold: str, found: str) -> bool:
    texts = with_symbols(gold, found)
    if texts is None or (any(map(_PRODUCT.fullmatch, texts)) and any(map(read_number, texts))):
        return False
    gold, found = (ascending(with_fractions(text)) for text in texts)
    if not (is_tame(gold) and is_tame(found)) or (re.search(r"= ?0$", found) and "=" not in gold):
        return False
    timeout = _timeout()
    try:
        parsed = _parsed(gold, timeout), _parsed(found, timeout)
        if any(map(read_number, texts)) and (rounded := _is_rounded(texts, parsed)) is not None:
            return rounded
        digits = precision(gold, found)
        return verify(*parsed, numeric_precision=digits, allow_set_relation_comp=True, timeout_seconds=timeout)
    except (Exception, TimeoutException):  # the latter is a BaseException
        return False


def _is_rounded(texts: list[str], parsed: tuple[list[Any], list[Any]]) -> bool | None:
    """Compare a decimal with an irrational number, which it is at six digits; None where there is none."""
    is_decimal = [(number := read_number(text)) is not None and number.value.denominator > 1 for text in texts]
    if sum(is_decimal) != 1 or not all(getattr(side[0], "is_number", False) for side in parsed):
        return None
    values = _values(parsed)
    return abs(values[0] - values[1]) <= 1e-6 * abs(values[0])


def _is_near(one: str, other: str) -> bool:
    if not (is_tame(one) and is_tame(other)):
        return False
    try:
        values = _values((_parsed(one, _timeout()), _parsed(other, _timeout())))
    except (Exception, TimeoutException):
        return False
    return abs(values[0] - values[1]) <= 0.01 * abs(values[0])


def _values(parsed: tuple[list[Any], list[Any]]) -> list[complex]:
    return [complex(side[0].doit().evalf()) for side in parsed]


def _timeout() -> int | None:
    """math-verify's timeouts are alarms, so they work in the main thread only; the pool has a deadline of its own."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return _TIMEOUT_S if in_main_thread and not os.environ.get("AGAPO_VERIFIER") else None


@lru_cache(maxsize=4096)
def _parsed(answer: str, timeout: int | None) -> list[Any]:
    """Parse LaTeX. Raising on errors keeps a timeout out of the cache."""
    latex = answer.replace("**", "^").replace("$", "")
    return parse(f"${latex}$", _LATEX, parsing_timeout=timeout, raise_on_error=True)  # pyright: ignore[reportArgumentType]
