r"""Plain numbers, read exactly: decimals, fractions, mixed numbers, powers of ten, repeating decimals, words; lists.

Left out: numbers whose commas are decimal points, since `1,5` is also a list; but 1.500,00 is none.
"""

import re
from fractions import Fraction
from typing import NamedTuple


class Number(NamedTuple):
    """An exact value, and how it was written."""

    value: Fraction
    is_percentage: bool = False
    is_fraction: bool = False
    """Written as one, so that a decimal may have had to round it."""


Numbers = tuple[str, list[Number]]
"""The brackets around a list of numbers (none around a single one), and the numbers."""

_WHOLE = r"\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d{1,3}(?:_\d{3})+|\d+"
_DECIMAL = rf"(?:{_WHOLE})(?:\.\d*)?|\.\d+"
_POINTS = r"\d{1,3}(?:\.\d{3})+,\d\d|\d{1,3}(?:\.\d{3}){2,}"
_TEN = r"10 ?(?:\^|\*\*) ?(?:\{ ?)?([-+]? ?\d{1,3})(?: ?\})?"
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_FRACTION = (
    rf"(?:(\d+) ?)?\\frac ?\{{ ?(-?{_INTEGER}) ?\}}\{{ ?(-?{_INTEGER}) ?\}}"
    rf"|(?:(\d+) )?({_INTEGER}) ?/ ?({_INTEGER})"
)
_NUMBER = re.compile(
    rf"([-+]?) ?(?:({_POINTS})|({_DECIMAL})(?:[eE]([-+]?\d{{1,3}})| ?(?:\\times|\\cdot|[×x*·]) ?{_TEN})?"
    rf"|{_TEN}|{_FRACTION}) ?(%?)",
    re.ASCII,
)
_REPEATING = re.compile(
    r"([-+]?) ?(\d*) ?\. ?(\d*) ?"
    r"(?:\\(?:overline|bar) ?\{? ?(\d+) ?\}?|\((\d+)\)|((?:\\dot ?\{?\d\}?\d*)+)|(?:\\[lc]?dots|\.\.\.|…))",
    re.ASCII,
)
_MAX_DIGITS = 1000


def read_numbers(text: str) -> Numbers | None:
    """Read a number, or a bracketed list of them such as a point, an interval or a sorted list."""
    if text[:1] not in ("(", "[") or text[-1:] not in (")", "]"):
        number = read_number(text)
        return None if number is None else ("", [number])
    numbers = [read_number(part.strip()) for part in text[1:-1].split(",")]
    known = [number for number in numbers if number is not None]
    return (text[0] + text[-1], known) if len(known) == len(numbers) > 1 else None


def read_number(text: str) -> Number | None:
    """Read one number, None where the text is anything else."""
    if len(text) > _MAX_DIGITS:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        return _repeating(text)
    sign, points, decimal, plain_power, power, lone_power, *fraction, percent = match.groups()
    if points or decimal or lone_power:
        digits = points.replace(".", "").replace(",", ".") if points else re.sub("[, _]", "", decimal or "1")
        value = Fraction(digits) * Fraction(10) ** int((plain_power or power or lone_power or "0").replace(" ", ""))
    else:
        whole, above, below = (int((part or "0").replace(",", "")) for part in _parts(fraction))
        if below == 0:
            return None
        value = whole + Fraction(above, below)
    is_fraction = any(part is not None for part in fraction)
    return Number(-value if sign == "-" else value, bool(percent), is_fraction)


def _parts(fraction: list[str | None]) -> list[str | None]:
    return fraction[:3] if fraction[1] else fraction[3:]


def _repeating(text: str) -> Number | None:
    r"""Read 0.1\overline{6}, 0.1(6), 0.\dot{1}2\dot{3} and 0.1666…"""
    match = _REPEATING.fullmatch(text)
    if match is None:
        return None
    sign, whole, fixed, bar, brackets, dotted = match.groups()
    period = bar or brackets or (re.sub(r"\D", "", dotted) if dotted else None)
    if period is None:
        fixed, period = _seen_period(fixed)
    if period is None or (brackets and not fixed and not whole):
        return None
    nines = 10 ** len(period) - 1
    value = Fraction(int(whole + fixed or "0") * nines + int(period), nines * 10 ** len(fixed))
    return Number(-value if sign == "-" else value, is_fraction=True)


def _seen_period(digits: str) -> tuple[str, str | None]:
    """Part 1666 into 1 and 6, 1212 into nothing and 12: what is written thrice, or twice where it is longer."""
    for length in range(1, 7):
        period, times = digits[-length:], 3 if length == 1 else 2
        if digits.endswith(period * times):
            while digits.endswith(period * 2):
                digits = digits[:-length]
            return digits[:-length], period
    return digits, None


def are_same(gold: Numbers, found: Numbers) -> bool:
    """Are the brackets the same, and the numbers in their order?"""
    if gold[0] != found[0] or len(gold[1]) != len(found[1]):
        return False
    return all(is_same(*pair) for pair in zip(gold[1], found[1], strict=True))


def is_same(gold: Number, found: Number) -> bool:
    """Exact, but where one is a fraction and the other a decimal, which is right at six digits: 0.333333 is 1/3.

    50% is 0.5, and 50 as well: the question may have said "what per cent".
    """
    has_decimals = any(not number.is_fraction and number.value.denominator > 1 for number in (gold, found))
    is_rounded = has_decimals and gold.is_fraction != found.is_fraction
    tolerance = max(abs(gold.value), abs(found.value)) / 10**6 if is_rounded else 0
    scales = [Fraction(1)]
    if gold.is_percentage != found.is_percentage:
        scales.append(Fraction(1, 100) if found.is_percentage else Fraction(100))
    return any(abs(found.value * scale - gold.value) <= tolerance for scale in scales)


# --- ratios and bases ---

_RATIO = re.compile(r"[-\d.,/ ]+(?::[-\d.,/ ]+)+", re.ASCII)
_TIME = re.compile(r"\d{1,2}(?: ?: ?[0-5]\d){1,2}", re.ASCII)


def same_ratio(gold: str, found: str) -> bool | None:
    """Compare 2:3 with 4:6, and 4:51, which may be a time, figure by figure; None where either is no ratio."""
    if not (_RATIO.fullmatch(gold) and _RATIO.fullmatch(found)):
        return None
    pairs = [[read_number(part.strip()) for part in text.split(":")] for text in (gold, found)]
    one, other = ([number.value for number in pair if number is not None] for pair in pairs)
    if len(one) != len(pairs[0]) or len(other) != len(pairs[1]) or len(one) != len(other):
        return False
    if _TIME.fullmatch(gold) and _TIME.fullmatch(found):
        return one == other
    return all(a * other[0] == b * one[0] for a, b in zip(one, other, strict=True)) and any(other)


_BASES = {"binary": 2, "octal": 8, "decimal": 10, "hex": 16, "hexadecimal": 16}
_PREFIXES = {"b": 2, "o": 8, "x": 16}
_IN_BASE = re.compile(
    r"(-?) ?(?:\\overline)?[({]? ?0*([0-9A-Za-z][0-9A-Za-z ]*?) ?[)}]? ?"
    r"(?:_ ?\{? ?\(?(?:base)? ?|[,(]? ?(?:in )?base[ -]?)\{? ?(\d{1,2}|[a-z]+) ?\}? ?\)?\}?"
)


_PREFIXED = re.compile(r"(-?)0([box])(\w+)", re.IGNORECASE)


class InBase(NamedTuple):
    """A number that names its base."""

    sign: str
    digits: str
    base: int


def in_base(text: str) -> InBase | None:
    """Read 2516_8, (2516)_{eight}, 0b1101, 0xFF; None where no base is named."""
    text = _PREFIXED.sub(lambda found: f"{found[1]}{found[3].upper()}_{_PREFIXES[found[2].lower()]}", text)
    match = _IN_BASE.fullmatch(text)
    if match is None:
        return None
    base = int(match[3]) if match[3].isdecimal() else _BASES.get(match[3], _SMALL.get(match[3]))
    digits = match[2].replace(" ", "")
    if base is None or not re.search(r"[\dA-Z]", digits):
        return None
    return InBase(match[1], digits.upper() if re.search(r"\d", digits) else digits, base)


# --- words ---

_SMALL = (
    {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
    | {"ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16}
    | {"seventeen": 17, "eighteen": 18, "nineteen": 19}
)
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9}


_PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7} | {
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
}
_IN_PARTS = re.compile(rf"(an?|{'|'.join(_SMALL)})[ -]({'|'.join(_PARTS)})s?|half(?: a dozen)?", re.IGNORECASE)


def parts_in_words(text: str) -> str | None:
    r"""Write `two thirds` as \frac{2}{3} and `half a dozen` as 6; None where it is no fraction (a third is one)."""
    match = _IN_PARTS.fullmatch(text)
    if match is None:
        return None
    if match[1] is None:
        return "6" if " " in text else r"\frac{1}{2}"
    return rf"\frac{{{_SMALL.get(match[1].lower(), 1)}}}{{{_PARTS[match[2].lower()]}}}"


def from_words(text: str) -> tuple[int, str] | None:
    """Read the number that begins a text in words: `twenty-five apples` is 25 and ` apples`."""
    words = [(match[0], match.end()) for match in re.finditer(r"[a-z]+", text.lower())]
    total = current = end = 0
    for word, position in words:
        if word in _SMALL and (current % 100 == 0 or (current % 10 == 0 and current % 100 > 10 and _SMALL[word] < 10)):
            current += _SMALL[word]
        elif word in _TENS and current % 100 == 0:
            current += _TENS[word]
        elif word == "hundred" and 0 < current < 10:
            current *= 100
        elif word in _LARGE and current:
            total, current = total + current * _LARGE[word], 0
        elif not (word == "and" and current and current % 100 == 0):
            break
        end = position
    between = re.sub(r"[a-z]+", "", text[:end].lower())
    is_number = end and not between.strip(" -") and text[:1].isalpha() and not text[:end].lower().endswith("and")
    return (total + current, text[end:]) if is_number else None
