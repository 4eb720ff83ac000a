"""May sympy evaluate this? It makes 9^{9^9} in one uninterruptible step, which outlives any alarm."""

import math
import re

_MAX_DEPTH = 12
"""Nested brackets; the parser's time grows exponentially in them."""
_MAX_EXPONENT = 10_000
_MAX_EXPANSION = 100
"""Exponent of a bracket where there are variables: sympy multiplies it out."""
_MAX_DIGITS = 100
"""Digits of a number inside an expression (plain numbers may be longer)."""

_HEAVY = re.compile(
    r"\\(?:sum|prod|i{0,3}int|oint|lim|bigcup|bigcap|Gamma)(?![a-zA-Z])"
    r"|[)}\]!]\s*!|\d{4,}\s*!"
    r"|\\[dt]?binom.*\d{4}"
    r"|\d[eE][+-]?\d{4,}"
    rf"|\d{{{_MAX_DIGITS},}}"
)
_POWER = re.compile(r"\*\*|\^")
_INTEGER = re.compile(r"\d+", re.ASCII)


def is_tame(expression: str) -> bool:
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


_LITERAL_POWER = re.compile(r"\^\s*\{?\s*-?(\d+)", re.ASCII)
_MAX_PRECISION = 20_000


def precision(*expressions: str) -> int:
    """How many digits two expressions must be evaluated to, for unlike ones to differ: 1/2^98 and 1/4^98 need 118."""
    digits = max((len(number) for text in expressions for number in _INTEGER.findall(text)), default=1)
    exponents = sum(int(power) for text in expressions for power in _LITERAL_POWER.findall(text))
    return min(50 + 4 * digits + 2 * exponents * (digits + 1), _MAX_PRECISION)
