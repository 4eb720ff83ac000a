r"""Is the final answer mathematically the gold one?

The final answer is the last `\boxed{…}`, else GSM8K's `#### …`, else the last formula or number. It is compared as
text, as exact numbers, and only then, since it costs milliseconds and can hang, by math-verify. What math-verify
gets to see is bounded beforehand (`_is_tame`): sympy evaluates 9^{9^9} in one uninterruptible step, which outlives
any alarm. What the bounds let through is left to math-verify's own timeout or to the verifier pool's deadline.

Deliberately left out: judging the working, and several boxes that make one answer together.
"""

import logging
import math
import os
import re
import threading
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from math_verify import LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException

from agapo.chat import Completion, final_answer
from agapo.schema import Mode

# It warns whenever a timeout passes or is switched off; both are meant, and counted, here.
logging.getLogger("math_verify").setLevel(logging.ERROR)

Gold = str | int | float | None

_TIMEOUT_S = 5
_MAX_LENGTH = 1000
"""Characters of an answer; a longer one is right only when it is the gold one letter for letter."""
_MAX_DEPTH = 12
"""Nested brackets; the parser's time grows exponentially in them."""
_MAX_EXPONENT = 10_000
_MAX_EXPANSION = 100
"""Exponent of a bracket where there are variables: sympy multiplies it out."""
_MAX_DIGITS = 100
"""Digits of a number inside an expression (plain numbers may be longer)."""

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
    return [float(text is not None and _marked_answer(text) is not None) for text in texts]


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
    found = _marked_answer(text)
    gold = text if found is None else found
    return gold if _is_readable(gold) else None


def _is_readable(gold: str) -> bool:
    says_something = bool(gold.strip(" \t\r\n.,;:!?-_*#$\\()[]{}"))
    plain = re.sub(r"\\.", "", gold, flags=re.DOTALL)
    return says_something and plain.count("{") == plain.count("}")


# --- finding the answer ---

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed\s*([^\s{}$\\]+)")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_ANSWER_LINE = re.compile(r"(?=[^\d]*\d)[^A-Za-z]*")
_MATH = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}.])[-−])?"  # a sign, not the minus of 5-3
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)(?:[eE][+-]?\d{1,3}(?!\d))?"
    r"(?:\s?/\s?\d+(?!\.?\d))?"
    r"(?:\s?\\?%)?",
    re.ASCII,
)


def extract_answer(text: str) -> str | None:
    r"""Return the final answer in `text`: the last `\boxed{…}`, else `#### …`, else the last formula or number.

    None where there is nothing of the kind. Takes time linear in the length of the text.
    """
    marked = _marked_answer(text)
    return _last_expression(text) if marked is None else marked or None


def _marked_answer(text: str) -> str | None:
    """Return the answer that stands in a box or behind `####`; an empty string when that place is empty."""
    boxed = _last_boxed(text)
    return _behind_hashes(text) if boxed is None else boxed


def _last_boxed(text: str) -> str | None:
    if r"\boxed" not in text and r"\fbox" not in text:
        return None
    found, opened = (-1, -1), []
    for brace in _BRACES.finditer(text):
        if brace[0] == "}" and opened:
            start, is_box = opened.pop()
            found = max(found, (start, brace.start())) if is_box else found
        elif brace[0].endswith("{") and brace[0] != r"\{":
            opened.append((brace.end(), brace[0] != "{"))
    if found[0] >= 0:
        return text[slice(*found)].strip()
    bare = _BARE_BOX.findall(text)
    return bare[-1] if bare else None


def _behind_hashes(text: str) -> str | None:
    """Return the last line, or else the last number, behind `####`; a Markdown heading is neither."""
    found = list(_HASHES.finditer(text))
    if found and not text[found[-1].end() :].strip():
        return found[-1][1].strip()
    numbers = (match[1].strip() for match in reversed(found) if _ANSWER_LINE.fullmatch(match[1]))
    return next(numbers, None)


def _last_expression(text: str) -> str | None:
    """Return whichever ends last: a formula between math delimiters or a number."""
    candidates = [found for left, right in _MATH if (found := _last_between(text, left, right))]
    candidates += [(number.end(), number[0]) for number in deque(_NUMBER.finditer(text), maxlen=1)]
    return max(candidates)[1].strip() if candidates else None


def _last_between(text: str, left: str, right: str) -> tuple[int, str] | None:
    end = text.rfind(right)
    start = text.rfind(left, 0, max(end, 0))
    content = text[start + len(left) : end]
    return (end + len(right), content) if start >= 0 and content.strip(" $") else None


# --- comparing answers ---


def _is_equal(gold: str, found: str) -> bool:
    if gold.strip() == found.strip():
        return True
    if max(len(gold), len(found)) > _MAX_LENGTH:
        return False
    gold, found = _normalise(gold), _normalise(found)
    numbers = _numbers(gold), _numbers(found)
    if numbers[0] is not None and numbers[1] is not None:
        return _same_numbers(numbers[0], numbers[1])
    subscripts = _SUBSCRIPTED.fullmatch(_bare_text(gold)), _SUBSCRIPTED.fullmatch(_bare_text(found))
    if subscripts[0] and subscripts[1]:
        return subscripts[0].groups() == subscripts[1].groups()
    return _same_text(gold, found) or _verified(gold, found)


_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[−–]", "-"),
        (r"\\(?:left|right|displaystyle|[bB]ig{1,2}[lrm]?)(?![a-zA-Z])", ""),
        (r"(?<=\d)(?:,\s*\\!|\{,\}|\\[,!])\s*(?=\d{3})", ""),  # thousands: 1,\!000 1{,}000 1\,000
        (r"(?<!\\)\\[!,;: ]|\\q?quad(?![a-zA-Z])|~|\xa0", " "),  # but not the \\ between rows
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*\{([^{}]*)\}\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})|°", ""),
        (r"\\?[$€£]|(?<!\\)\\[()\[\]]", ""),
        (r"\\%", "%"),
        (r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mathbf|mbox|operatorname)\s*\{", r"\\text{"),
        (r"\s+", " "),
    )
]
_WORD = r"(?:[a-zA-Z]{3,}|[ckm]m|ft|in|[km]g|lbs?|oz|hrs?|mi)\.?"
_UNIT = re.compile(
    r"(?<=[\d})%])\s*"
    rf"(?:\\text\{{[^{{}}\d]*\}}|(?<=\s){_WORD}(?: {_WORD}){{0,3}})"
    r"(?:\s?\^\s?\{?[23]\}?)?$"
)
_TEXT = re.compile(r"\\text\{([^{}]*)\}")


def _normalise(answer: str) -> str:
    """Take away what does not change an answer: spacing, sizes, currency, degrees, a trailing unit."""
    for pattern, replacement in _REWRITES:
        answer = pattern.sub(replacement, answer)
    answer = answer.strip(" *.,;:")
    unit = _UNIT.search(answer)
    # 8:34 p.m. is not 8:34 a.m.
    return answer[: unit.start()].strip() if unit and ":" not in answer else answer


class _Number(NamedTuple):
    value: Fraction
    is_percentage: bool
    is_fraction: bool
    """Written as one, so that a decimal may have had to round it."""


_Numbers = tuple[str, list[_Number]]
"""The brackets around a list of numbers (none around a single one), and the numbers."""

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?(?:[eE][+-]?\d{1,3})?|\.\d+"
_FRACTION = r"(?:(\d+) ?)?\\frac\{ ?(-?\d+) ?\}\{ ?(-?\d+) ?\}|(?:(\d+) )?(\d+) ?/ ?(\d+)"
_SIGNED = re.compile(rf"([-+]?) ?(?:({_DECIMAL})|{_FRACTION}) ?(%?)", re.ASCII)


def _numbers(text: str) -> _Numbers | None:
    """Read a number, or a bracketed list of them such as a point, an interval or a sorted list."""
    if text[:1] not in ("(", "[") or text[-1:] not in (")", "]"):
        number = _number(text)
        return None if number is None else ("", [number])
    numbers = [_number(part.strip()) for part in text[1:-1].split(",")]
    known = [number for number in numbers if number is not None]
    return (text[0] + text[-1], known) if len(known) == len(numbers) > 1 else None


def _number(text: str) -> _Number | None:
    """Read a decimal, a fraction or a mixed number."""
    match = _SIGNED.fullmatch(text)
    if match is None:
        return None
    sign, decimal, *fraction, percent = match.groups()
    if decimal is not None:
        value = Fraction(re.sub("[, ]", "", decimal))
    else:
        whole, above, below = (int(part or 0) for part in (fraction[:3] if fraction[1] else fraction[3:]))
        if below == 0:
            return None
        value = whole + Fraction(above, below)
    return _Number(-value if sign == "-" else value, bool(percent), is_fraction=decimal is None)


def _same_numbers(gold: _Numbers, found: _Numbers) -> bool:
    if gold[0] != found[0] or len(gold[1]) != len(found[1]):
        return False
    return all(_same_number(*pair) for pair in zip(gold[1], found[1], strict=True))


def _same_number(gold: _Number, found: _Number) -> bool:
    """Exact, but where one is a fraction and the other a decimal, which is right at six digits: 0.333333 is 1/3.

    50% is 0.5, and 50 as well: the question may have said "what per cent".
    """
    has_decimals = any(not number.is_fraction and number.value.denominator > 1 for number in (gold, found))
    is_rounded = has_decimals and gold.is_fraction != found.is_fraction
    tolerance = abs(gold.value) / 10**6 if is_rounded else 0
    scales = [Fraction(1)]
    if gold.is_percentage != found.is_percentage:
        scales.append(Fraction(1, 100) if found.is_percentage else Fraction(100))
    return any(abs(found.value * scale - gold.value) <= tolerance for scale in scales)


_SUBSCRIPTED = re.compile(r"(-?)0*([0-9A-Za-z]+) ?_ ?\{? ?(\d+) ?\}?", re.ASCII)
"""A number in another base, whose base math-verify ignores."""


def _same_text(gold: str, found: str) -> bool:
    gold, found = _bare_text(gold), _bare_text(found)
    if gold.replace(" ", "") == found.replace(" ", ""):
        return True
    # Words, unlike variables, read the same in capitals.
    return re.fullmatch(r"[A-Za-z ,.'-]{3,}", gold) is not None and gold.casefold() == found.casefold()


def _bare_text(answer: str) -> str:
    """Return the answer outside of `\\text{…}`, and a choice such as (B) as B."""
    text = _TEXT.sub(r"\1", answer).strip()
    return re.sub(r"^\(([A-Z])\)$", r"\1", text)


# --- math-verify ---

_LATEX = [LatexExtractionConfig(boxed_match_priority=-1)]


def _verified(gold: str, found: str) -> bool:
    if not (_is_tame(gold) and _is_tame(found)):
        return False
    timeout = _timeout()
    try:
        parsed = _parsed(gold, timeout), _parsed(found, timeout)
        same = verify(*parsed, allow_set_relation_comp=True, timeout_seconds=timeout)
        return same and not _are_tiny_and_unlike(*parsed)
    except (Exception, TimeoutException):  # the latter is a BaseException
        return False


def _are_tiny_and_unlike(gold: list[Any], found: list[Any]) -> bool:
    """Catch 1/2^98 and 1/4^98, whose difference math-verify rounds to zero."""
    if not all(getattr(parsed[0], "is_number", False) for parsed in (gold, found)):
        return False
    values = [complex(parsed[0].doit().evalf()) for parsed in (gold, found)]
    size = max(map(abs, values))
    return size < 1e-9 and abs(values[0] - values[1]) > 1e-6 * size


def _timeout() -> int | None:
    """math-verify's timeouts are alarms, so they work in the main thread only; the pool has a deadline of its own."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return _TIMEOUT_S if in_main_thread and not os.environ.get("AGAPO_VERIFIER") else None


@lru_cache(maxsize=4096)
def _parsed(answer: str, timeout: int | None) -> list[Any]:
    """Parse LaTeX. Raising on errors keeps a timeout out of the cache."""
    latex = answer.replace("**", "^").replace("$", "")
    return parse(f"${latex}$", _LATEX, parsing_timeout=timeout, raise_on_error=True)  # pyright: ignore[reportArgumentType]


# --- bounds on what sympy is given ---

_HEAVY = re.compile(
    r"\\(?:sum|prod|i{0,3}int|oint|lim|bigcup|bigcap|Gamma)(?![a-zA-Z])"
    r"|[)}\]!]\s*!|\d{4,}\s*!"
    r"|\\[dt]?binom.*\d{4}"
    r"|\d[eE][+-]?\d{4,}"
    rf"|\d{{{_MAX_DIGITS},}}"
)
_POWER = re.compile(r"\*\*|\^")
_INTEGER = re.compile(r"\d+", re.ASCII)


def _is_tame(expression: str) -> bool:
    """Can sympy evaluate this without making a number too large for memory or for the deadline?"""
    return not _HEAVY.search(expression) and _depth(expression) <= _MAX_DEPTH and _are_powers_small(expression)


def _depth(expression: str) -> int:
    depth = deepest = 0
    for character in expression:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _are_powers_small(expression: str) -> bool:
    """Bound the largest exponent times those of bracketed bases, since ((9^99)^99)^99 multiplies them."""
    has_variables = re.search(r"(?<![\\a-zA-Z])[a-zA-Z]", expression) is not None
    largest, of_brackets = 1, 1
    for power in _POWER.finditer(expression):
        exponent, after = _exponent(expression, power.end())
        is_tower = _POWER.match(after) or _POWER.search(re.sub(r"[a-df-zA-Z]\s*\^", "", exponent))
        if is_tower or len(exponent) > 200:
            return False
        size = math.prod(int(digits) or 1 for digits in _INTEGER.findall(exponent)[:50])
        if expression[: power.start()].rstrip().endswith((")", "}", "]")):
            of_brackets *= size
        else:
            largest = max(largest, size)
        if largest * of_brackets > _MAX_EXPONENT or (has_variables and of_brackets > _MAX_EXPANSION):
            return False
    return True


def _exponent(expression: str, start: int) -> tuple[str, str]:
    """Return the exponent that begins at `start`, and what follows it."""
    rest = expression[start:].lstrip()
    depth = 0
    for index, character in enumerate(rest):
        depth += (character in "([{") - (character in ")]}")
        if depth <= 0 and not (rest[index + 1 : index + 2].isdigit() and character.isdigit()) and character not in "-+":
            return rest[: index + 1], rest[index + 1 :].lstrip()
    return rest, ""
