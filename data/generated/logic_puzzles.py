"""Logic puzzles with one solution: orders, knights and knaves, truth tables; two different derivations each."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from random import Random

from data.generating import Item, Maker, Response

_NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gia", "Hal", "Ida", "Jon")
_BOX = "Put the answer within \\boxed{}."


def _item(task: str, question: str, answer: str, derivations: Sequence[str], key: str = "") -> Item:
    said = f"The answer is \\boxed{{{answer}}}."
    return Item(
        question=f"{question} {_BOX}",
        responses=tuple(Response(said, text, f"{text} {said}") for text in dict.fromkeys(derivations)),
        domain="logic",
        task=task,
        columns={"answer": answer},
        key=key,
    )


# --- orders ---

_RELATIONS = (
    ("is taller than", "tallest", "shortest"),
    ("is older than", "oldest", "youngest"),
    ("finished before", "first", "last"),
)


def _order(draw: Random) -> Item:
    """A chain of comparisons, told in any order, and the place of one of them asked for."""
    people = draw.sample(_NAMES, draw.randint(3, 5))
    relation, first, last = draw.choice(_RELATIONS)
    clues = [f"{one} {relation} {other}." for one, other in pairwise(people)]
    told = draw.sample(clues, len(clues))
    place = draw.choice((0, len(people) - 1))
    answer, asked = people[place], first if place == 0 else last
    order = " > ".join(people)
    below = people[1:] if place == 0 else people[:-1]
    side = "right" if place == 0 else "left"
    return _item(
        "order",
        f"{' '.join(told)} Who is the {asked}?",
        answer,
        (
            f"Put the clues together: {' '.join(clues)} So the order is {order}. The {asked} is {answer}.",
            f"The {asked} never stands on the {side} of a clue. {', '.join(below)} do, {answer} does not. "
            f"So it is {answer}.",
        ),
        key=f"{' '.join(clues)} {asked}",
    )


# --- knights and knaves ---

_Claim = tuple[str, str, str]
"""(speaker, what is claimed: `knave`, `knight`, `same` or `differ`, about whom)."""
_SAYS = {
    "knave": "{0} says: {1} is a knave.",
    "knight": "{0} says: {1} is a knight.",
    "same": "{0} says: {1} and I are of the same kind.",
    "differ": "{0} says: {1} and I are of different kinds.",
}


def _is_so(claim: _Claim, knights: Mapping[str, bool]) -> bool:
    speaker, kind, other = claim
    if kind in ("knave", "knight"):
        return knights[other] == (kind == "knight")
    return (knights[speaker] == knights[other]) == (kind == "same")


def _solutions(people: Sequence[str], claims: Sequence[_Claim]) -> Iterator[dict[str, bool]]:
    """Yield the ways in which knights speak the truth and knaves lie."""
    for kinds in product((True, False), repeat=len(people)):
        knights = dict(zip(people, kinds, strict=True))
        if all(knights[claim[0]] == _is_so(claim, knights) for claim in claims):
            yield knights


def _knights(draw: Random) -> Item:
    """Everybody speaks once; how many knights there are is asked where there is one solution."""
    while True:
        people = draw.sample(_NAMES, draw.randint(2, 4))
        claims = [(one, draw.choice(list(_SAYS)), draw.choice([p for p in people if p != one])) for one in people]
        found = list(_solutions(people, claims))
        if len(found) == 1:
            break
    knights = found[0]
    told = " ".join(_SAYS[kind].format(speaker, other) for speaker, kind, other in claims)
    answer = str(sum(knights.values()))
    kinds = ", ".join(f"{name} a {_kind(knights[name])}" for name in people)
    return _item(
        "knights",
        f"Knights always tell the truth, knaves always lie. {told} How many knights are there?",
        answer,
        (
            f"{_check(claims, knights)} So {kinds}; no other assignment fits. Knights: {answer}.",
            f"{_by_cases(people, claims)} What is left: {kinds}. Knights: {answer}.",
        ),
    )


def _kind(knight: bool) -> str:
    return "knight" if knight else "knave"


def _check(claims: Sequence[_Claim], knights: Mapping[str, bool]) -> str:
    parts = [
        f"{claim[0]}'s claim is {str(_is_so(claim, knights)).lower()} and {claim[0]} is a {_kind(knights[claim[0]])}."
        for claim in claims
    ]
    return " ".join(parts)


def _by_cases(people: Sequence[str], claims: Sequence[_Claim]) -> str:
    """Go through all assignments, and name for each the first claim that breaks it."""
    lines = []
    for kinds in product((True, False), repeat=len(people)):
        knights = dict(zip(people, kinds, strict=True))
        broken = next((claim[0] for claim in claims if knights[claim[0]] != _is_so(claim, knights)), None)
        shown = "/".join("T" if kind else "F" for kind in kinds)
        lines.append(f"{shown}: {f'{broken} contradicts' if broken else 'fits'}.")
    return f"Cases for {'/'.join(people)} (T is a knight): {' '.join(lines)}"


# --- truth tables ---

_Formula = tuple[str, str]
"""(as it is written, as Python says it)."""


def _formula(draw: Random, depth: int) -> _Formula:
    if depth == 0:
        letter = draw.choice("pqr")
        return (f"not {letter}", f"(not {letter})") if draw.random() < 0.4 else (letter, letter)
    (left, one), (right, other) = _formula(draw, depth - 1), _formula(draw, depth - 1)
    word, code = draw.choice((("and", "and"), ("or", "or"), ("implies", "<="), ("xor", "!=")))
    return f"({left} {word} {right})", f"({one} {code} {other})"


def _table(draw: Random) -> Item:
    shown, code = _formula(draw, 2)
    rows = list(product((True, False), repeat=3))
    values = [bool(eval(code, {}, dict(zip("pqr", row, strict=True)))) for row in rows]
    answer = str(sum(values))
    lines = [f"{_bits(row)}: {_bits([value])}" for row, value in zip(rows, values, strict=True)]
    true = [_bits(row) for row, value in zip(rows, values, strict=True) if value]
    false = [_bits(row) for row, value in zip(rows, values, strict=True) if not value]
    return _item(
        "truth_table",
        f"For how many of the 8 assignments of true and false to p, q and r is {shown[1:-1]} true?",
        answer,
        (
            f"Rows pqr: value. {', '.join(lines)}. True in {answer} rows.",
            f"It is false for pqr = {', '.join(false) or 'no row'}, so 8 - {len(false)} = {answer} are left.",
            f"It is true for pqr = {', '.join(true) or 'no row'}, that is {answer} rows.",
        ),
    )


def _bits(values: Sequence[bool]) -> str:
    return "".join("T" if value else "F" for value in values)


MAKERS: Mapping[str, Maker] = {"order": _order, "knights": _knights, "truth_table": _table}
