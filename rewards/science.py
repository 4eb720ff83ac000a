"""Is the answer to a science question right? A rule first; a judge model, where one is named, when the rule says wrong.

The rule follows the gold answer: a choice's letter, a number with a unit (compared through pint, within a tolerance),
or a text (compared in a normal form). Of the response the final answer counts: a box, what follows "the answer is", or
the last line. What hedges ("A or B") is wrong.

Deliberately left out: derivations, several answers in one, and units that only context could tell.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agapo.chat import Completion, final_answer
from agapo.schema import Mode
from rewards import judge as judging
from rewards.answers.choices import by_letter, chosen_letter, is_formula, is_letter, normal, places
from rewards.answers.quantities import Quantity, has_number, is_near, quantity_in, read_quantity
from rewards.math_answer import score as math_score

Column = Sequence[Any] | None


def score(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    answer: Column = None,
    choices: Column = None,
    unit: Column = None,
    tolerance: Column = None,
    mode: Sequence[Mode | None] | None = None,
    *,
    relative_tolerance: float = 0.01,
    unit_optional: bool = False,
    judge: Mapping[str, Any] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Return 1.0 for a right final answer, 0.0 for a wrong or missing one, None where there is no gold answer.

    `answer` is a letter, a number (its unit behind it, or in `unit`) or a text; `choices` a list, or a dict by letter.
    `tolerance`, a column, is a row's own relative tolerance. `unit_optional` accepts a bare number where the gold one
    has a unit. `judge` holds the options of `rewards.judge`. Raises ConnectionError when the judge fails.
    """
    nothing = [None] * len(completions)
    samples = zip(
        prompts,
        completions,
        answer or nothing,
        choices or nothing,
        unit or nothing,
        tolerance or nothing,
        mode or nothing,
        strict=True,
    )
    values = []
    for prompt, completion, gold, options, own_unit, own_tolerance, own_mode in samples:
        text = final_answer(completion, own_mode)
        bound = relative_tolerance if own_tolerance is None else float(own_tolerance)
        value = _rule(gold, text, by_letter(options), own_unit, bound, unit_optional)
        if value == 0.0 and judge and text:
            value = judging.Judge(**judge).ask(_with_choices(prompt, options), gold, text)
        values.append(value)
    return values


def check(*, judge: Mapping[str, Any] | None = None) -> None:
    """Raise UserError where a judge is named that cannot be asked."""
    if judge:
        judging.check(**judge)


def canonical(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    choices: Column = None,
    mode: Sequence[Mode | None] | None = None,
    **columns: Any,
) -> list[str | None]:
    """Return the letter that each response settles on, without choices its answer in a normal form; for maj@k.

    None where it settles on none.
    """
    nothing = [None] * len(completions)
    samples = zip(completions, choices or nothing, mode or nothing, strict=True)
    return [_canonical(final_answer(completion, own_mode), by_letter(own)) for completion, own, own_mode in samples]


def _canonical(text: str | None, choices: Mapping[str, str]) -> str | None:
    if not text:
        return None
    if choices:
        return chosen_letter(text, choices)
    found = places(text)
    return normal(next(place for place in [found.box, *found.named, found.last] if place is not None)) or None


def _rule(
    gold: Any, text: str | None, choices: Mapping[str, str], unit: Any, tolerance: float, unit_optional: bool
) -> float | None:
    wanted = "" if gold is None else str(gold).strip()
    if not wanted:
        return None
    if not text:
        return 0.0
    if is_letter(wanted, choices):
        return float(chosen_letter(text, choices) == wanted.strip("().").upper())
    quantity = read_quantity(f"{wanted} {unit or ''}")
    if quantity is not None:
        return float(is_near(_quantity(text), quantity, tolerance, unit_optional))
    if _says(text, wanted):
        return 1.0
    letter = next((name for name, option in choices.items() if normal(option) == normal(wanted)), None)
    if letter is not None:
        return float(chosen_letter(text, choices) == letter)
    return float("\\" in wanted and math_score([""], [text], answer=[wanted]) == [1.0])


def _quantity(text: str) -> Quantity | None:
    """Return the quantity in the surest place that has a number at all: a boxed F = ma has none."""
    found = places(text)
    with_numbers = [place for place in [found.box, *found.named] if place and has_number(place)]
    return quantity_in(with_numbers[0], is_named=True) if with_numbers else quantity_in(found.last)


_REASON = re.compile(r",?\s*(?:\b(?:because|since|as|which|due to)\b|,\s*not\b).*$|\s*\([^()]*\)\s*\.?$", re.I)


def _says(text: str, wanted: str) -> bool:
    """Is the final answer this text, with at most "it is" before and a reason behind?"""
    found = places(text)
    is_text = found.box and (not is_formula(found.box) or normal(found.box) == normal(wanted))
    box = [found.box] if found.box and (is_text or is_formula(wanted)) else []
    place = [*box, *found.named, found.last][0]
    short = re.sub(r"^\s*(?:it is|it's|this is|they are|called)\s+", "", _REASON.sub("", place), flags=re.I)
    return normal(wanted) in (normal(place), normal(short))


def _with_choices(prompt: Any, options: Any) -> str:
    listed = "\n".join(f"{name}. {option}" for name, option in by_letter(options).items())
    return f"{judging.question_of(prompt)}\n\n{listed}".strip()
