r"""Inequalities in one variable, and the intervals that they are: 3 > x > 1, {x | 1 < x < 3} and (1, 3) are one set."""

import re
from collections.abc import Callable
from typing import NamedTuple

from rewards.answers.numbers import read_number

Same = Callable[[str, str], bool]


class Interval(NamedTuple):
    """Two bounds as they were written, None for no bound; `is_closed` for each."""

    bounds: tuple[str | None, str | None]
    is_closed: tuple[bool, bool]


class Region(NamedTuple):
    """A union of intervals, and the variable where one was named."""

    variable: str | None
    intervals: list[Interval]


_SPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:leqslant|leqq|leq|le|ngtr)(?![a-zA-Z])|<=|\\not ?(?:>|\\gt(?![a-zA-Z]))", "≤"),
        (r"\\(?:geqslant|geqq|geq|ge|nless)(?![a-zA-Z])|>=|=>|\\not ?(?:<|\\lt(?![a-zA-Z]))", "≥"),
        (r"\\(?:neq|ne)(?![a-zA-Z])|!=|\\not ?=", "≠"),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\text\{ ?(or|and) ?\}|(?<![a-zA-Z\\])(or|and)(?![a-zA-Z])", r" \1\2 "),
        (r"\\(?:lor|vee|cup)(?![a-zA-Z])|∪", " or "),
        (r"\\(?:land|wedge)(?![a-zA-Z])|\\&", " and "),
        (r" +", " "),
    )
]
_RELATION = re.compile(r" ?([<>≤≥]) ?")
_VARIABLE = re.compile(r"[a-zA-Z]|\\(?:alpha|beta|gamma|theta|lambda|mu|phi)")
_BRACKETS = re.compile(r"([\[(])([^,]+),([^,]+)([\])])")
_BUILDER = re.compile(
    r"\\\{ ?([a-zA-Z])(?: ?(?:\\in|∈) ?\\mathbb ?\{? ?R ?\}?)? ?(?:\\mid|\\vert|\||:|\\colon) ?(.*?) ?\\\}"
)
_INFINITE = re.compile(r"([-+]?) ?(?:\\infty|∞|infinity|inf)")
_REALS = re.compile(r"\\mathbb ?\{? ?R ?\}?|ℝ|\\R")
_MOST = 8


def read_region(text: str) -> Region | None:
    """Read inequalities or intervals, None where the text is neither."""
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = text.strip(" ,")
    builder = _BUILDER.fullmatch(text)
    text = builder[2] if builder else text
    member = re.match(r"([a-zA-Z]) ?(?:\\in(?![a-zA-Z])|∈) ?", text)
    named = {builder[1]} if builder else {member[1]} if member else set()
    parts = (text[member.end() :] if member else text).split(" or ")
    if len(parts) > _MOST:
        return None
    regions = [_read_part(part.strip(" ,")) for part in parts]
    known = [region for region in regions if region is not None]
    variables = named | {region.variable for region in known if region.variable}
    if len(known) != len(regions) or len(variables) > 1:
        return None
    return Region(next(iter(variables), None), [interval for region in known for interval in region.intervals])


def _read_part(text: str) -> Region | None:
    brackets = _BRACKETS.fullmatch(text)
    if brackets:
        closed = (brackets[1] == "[", brackets[4] == "]")
        return Region(None, [_interval(brackets[2].strip(), brackets[3].strip(), closed)])
    if _REALS.fullmatch(text):
        return Region(None, [Interval((None, None), (False, False))])
    if "≠" in text:
        return _without_a_point(text)
    chains = [_read_chain(part.strip(" ,")) for part in re.split(r" and |,", text)]
    known = [chain for chain in chains if chain is not None]
    if len(known) != len(chains) or len({chain.variable for chain in known}) > 1 or len(known) > 2:
        return None
    if len(known) == 1:
        return known[0]
    joined = _both(*known)
    if joined and " and " not in text and _is_empty(joined.intervals[0]):  # x < -1, x > 4
        return Region(joined.variable, [*known[0].intervals, *known[1].intervals])
    return joined


def _is_empty(interval: Interval) -> bool:
    low, high = (read_number(bound or "") for bound in interval.bounds)
    return low is not None and high is not None and low.value > high.value


def _without_a_point(text: str) -> Region | None:
    left, _, right = (side.strip() for side in text.partition("≠"))
    left, right = (right, left) if _VARIABLE.fullmatch(right) else (left, right)
    if not _VARIABLE.fullmatch(left) or "≠" in right:
        return None
    closed = (False, False)
    return Region(left, [Interval((None, right), closed), Interval((right, None), closed)])


def _read_chain(text: str) -> Region | None:
    """Read x < 3, 3 > x or 1 < x ≤ 3; a relation of two bare variables says nothing about either's bounds."""
    pieces = _RELATION.split(text)
    terms, signs = pieces[::2], pieces[1::2]
    if len(terms) not in (2, 3) or len({sign in "<≤" for sign in signs}) > 1 or not all(terms):
        return None
    if signs[0] in ">≥":
        terms, signs = terms[::-1], signs[::-1]
    places = [place for place, term in enumerate(terms) if _VARIABLE.fullmatch(term) and term not in ("e", "i")]
    if len(places) != 1 or (len(terms) == 3 and places != [1]):
        return None
    place = places[0]
    closed = [sign in "≤≥" for sign in signs]
    if len(terms) == 3:
        return Region(terms[1], [_interval(terms[0], terms[2], (closed[0], closed[1]))])
    if place == 0:
        return Region(terms[0], [Interval((None, terms[1]), (False, closed[0]))])
    return Region(terms[1], [Interval((terms[0], None), (closed[0], False))])


def _both(one: Region, other: Region) -> Region | None:
    """Join x > 1 and x < 3; two bounds on the same side are left to others."""
    (a,), (b,) = one.intervals, other.intervals
    if a.bounds[0] is None and b.bounds[1] is None:
        a, b = b, a
    if a.bounds[1] is not None or b.bounds[0] is not None:
        return None
    return Region(one.variable, [Interval((a.bounds[0], b.bounds[1]), (a.is_closed[0], b.is_closed[1]))])


def _interval(low: str, high: str, closed: tuple[bool, bool]) -> Interval:
    left, right = _INFINITE.fullmatch(low), _INFINITE.fullmatch(high)
    no_left, no_right = bool(left and left[1] == "-"), bool(right and right[1] != "-")
    bounds = (None if no_left else low, None if no_right else high)
    return Interval(bounds, (closed[0] and not no_left, closed[1] and not no_right))


def are_joined_alike(gold: str, found: str) -> bool:
    """Does neither join by `and` what the other joins by `or`? x ≤ 2 and x ≥ 5 is nothing, x ≤ 2 or x ≥ 5 is not."""
    joints = []
    for text in (gold, found):
        for pattern, replacement in _SPELLINGS:
            text = pattern.sub(replacement, text)
        joints.append({*re.findall(" (and|or) ", text)} if _RELATION.search(text) else set())
    return not (joints[0] and joints[1] and joints[0].isdisjoint(joints[1]))


def ascending(text: str) -> str:
    """Write c > b > a as a < b < c."""
    spelt = text
    for pattern, replacement in _SPELLINGS[1:5]:
        spelt = pattern.sub(replacement, spelt)
    if re.fullmatch("[^<>]+(?:<[^<>]+)+", text):  # as what is turned is spaced
        return " < ".join(term.strip() for term in text.split("<"))
    pieces = re.split(r" ?([>≥]) ?", spelt)
    if len(pieces) < 3 or re.search("[<≤≠=,]", spelt) or " or " in spelt or r"\text" in spelt:
        return text
    turned = {">": "<", "≥": r"\le "}
    return " ".join(turned.get(piece, piece) for piece in reversed(pieces))


def is_same_region(gold: Region, found: Region, same: Same) -> bool:
    """Are these the same intervals, in any order? `same` compares two bounds."""
    if (gold.variable and found.variable and gold.variable != found.variable) or len(gold.intervals) != len(
        found.intervals
    ):
        return False
    left = list(found.intervals)
    for interval in gold.intervals:
        match = next((other for other in left if _is_same_interval(interval, other, same)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _is_same_interval(gold: Interval, found: Interval, same: Same) -> bool:
    if gold.is_closed != found.is_closed:
        return False
    pairs = list(zip(gold.bounds, found.bounds, strict=True))
    return all(
        (one is None) == (other is None) and (one is None or other is None or same(one, other)) for one, other in pairs
    )
