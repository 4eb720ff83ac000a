"""Is what a program printed or returned what the row expects?

As the published harnesses have it: numbers by Python's `==`, so that 2 is 2.0 at any depth, and with a tolerance where
the row has a fraction, since it was rounded when it was written. Stricter in one thing: true and false are no numbers.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

_TOLERANCE = 1e-6


def same_output(printed: str, expected: str) -> bool:
    """Are two outputs the same, but for space at the ends of lines and the last digits of fractions?"""
    lines = [[line.rstrip() for line in text.rstrip().splitlines()] for text in (printed, expected)]
    if lines[0] == lines[1]:
        return True
    tokens = printed.split(), expected.split()
    return len(tokens[0]) == len(tokens[1]) and all(map(_same_token, *tokens))


def _same_token(printed: str, expected: str) -> bool:
    if printed == expected:
        return True
    if not any(mark in expected for mark in ".eE") or max(len(printed), len(expected)) > 40:
        return False
    try:
        return math.isclose(float(printed), float(expected), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    except ValueError:
        return False


def same_value(found: Any, expected: Any) -> bool:
    """Is `found`, decoded from the wire, the value that a row of JSON expects? JSON has no tuples."""
    if isinstance(expected, list):
        is_alike = isinstance(found, tuple | list) and len(found) == len(expected)
        return is_alike and all(map(same_value, found, expected))
    if isinstance(expected, dict):
        return isinstance(found, dict) and _same_items(found, expected)
    if _is_number(found) and _is_number(expected):
        return _same_number(found, expected)
    return type(found) is type(expected) and found == expected


def _same_items(found: Mapping[Any, Any], expected: Mapping[str, Any]) -> bool:
    """JSON has no keys but texts: 1 is written as "1"."""
    named = {str(key) if type(key) is int else key: value for key, value in found.items()}
    is_alike = len(named) == len(found) and named.keys() == expected.keys()
    return is_alike and all(same_value(named[key], value) for key, value in expected.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex | Decimal | Fraction) and not isinstance(value, bool)


def _same_number(found: Any, expected: Any) -> bool:
    if found == expected:
        return True
    if not isinstance(expected, float) or isinstance(found, complex):
        return False
    try:
        return math.isclose(float(found), expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    except (OverflowError, ValueError):
        return False
