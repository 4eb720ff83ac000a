"""Does the response keep to the constraints that its prompt sets? IFEval's 25 types (Zhou et al., arXiv 2311.07911).

Rows keep IFEval's columns: `instruction_id_list` and `kwargs`, a dict for each instruction. The ids of its Spanish
relative M-IFEval (`es:…`) and of the Korean KITE (relations in Korean, `Korean:…`) are known too, as far as a rule can
decide them. Only the final answer is judged. The constraints themselves are in `rewards/constraints.py`.

Deliberately left out: constraints that need a parser of Korean (dropped particles, numerals); they are refused by name.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agapo.chat import Completion, final_answer
from agapo.schema import Mode
from rewards.constraints import CONSTRAINTS, Constraint, Refused

Column = Sequence[Any] | None


def score(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    instruction_id_list: Column = None,
    kwargs: Column = None,
    mode: Sequence[Mode | None] | None = None,
    *,
    loose: bool = False,
    **columns: Any,
) -> list[float | None]:
    """Return 1.0 where the answer keeps all constraints of its row, else 0.0; None for rows without any, or refused.

    `loose` also accepts what keeps them without its first line, its last line, or its asterisks (IFEval's loose
    accuracy). `unsupported` says why a row is refused.
    """
    held = _held(completions, instruction_id_list, kwargs, mode, loose)
    return [None if row is None else float(all(row)) for row in held]


def share(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    instruction_id_list: Column = None,
    kwargs: Column = None,
    mode: Sequence[Mode | None] | None = None,
    *,
    loose: bool = False,
    **columns: Any,
) -> list[float | None]:
    """Return the share of the row's constraints that the answer keeps, 0 to 1; otherwise like `score`."""
    held = _held(completions, instruction_id_list, kwargs, mode, loose)
    return [None if row is None else sum(row) / len(row) for row in held]


def unsupported(instruction_id_list: Sequence[str], kwargs: Any) -> str | None:
    """Return why a row cannot be judged, naming the instruction and the argument, or None."""
    try:
        _constraints(instruction_id_list, kwargs)
    except Refused as reason:
        return str(reason)
    return None


def _held(
    completions: Sequence[Completion], ids: Column, kwargs: Column, mode: Sequence[Mode | None] | None, loose: bool
) -> Iterator[list[bool] | None]:
    """Yield which of a row's constraints its answer keeps."""
    nothing = [None] * len(completions)
    for completion, names, arguments, own_mode in zip(
        completions, ids or nothing, kwargs or nothing, mode or nothing, strict=True
    ):
        try:
            constraints = _constraints(names or (), arguments)
        except Refused:
            yield None
            continue
        answer = final_answer(completion, own_mode)
        variants = [] if not answer else _variants(answer) if loose else [answer]
        yield [any(constraint(text) for text in variants) for constraint in constraints]


def _constraints(names: Sequence[str], arguments: Any) -> list[Constraint]:
    """Return a row's constraints. Raises Refused."""
    if not names:
        raise Refused("no instruction")
    given = _parsed(arguments)
    if not isinstance(given, Sequence) or len(given) != len(names):
        raise Refused(f"kwargs: should hold one dict for each of the {len(names)} instructions")
    return [_constraint(name, one) for name, one in zip(names, given, strict=True)]


def _constraint(name: str, arguments: Any) -> Constraint:
    if name not in CONSTRAINTS:
        raise Refused(f"{name}: unknown instruction")
    own = _parsed(arguments) or {}
    if not isinstance(own, Mapping):
        raise Refused(f"{name}: kwargs should be a dict")
    # The hub's version of the set fills the arguments that an instruction lacks with null.
    return CONSTRAINTS[name](name, {key: value for key, value in own.items() if value is not None})


def _parsed(value: Any) -> Any:
    """Some copies of the set hold JSON as text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise Refused("kwargs: not JSON") from None


def _variants(answer: str) -> list[str]:
    lines = answer.split("\n")
    cut = [lines, lines[1:], lines[:-1], lines[1:-1]]
    texts = ["\n".join(part).strip() for part in cut]
    return [text for text in (*texts, *(text.replace("*", "") for text in texts)) if text]
