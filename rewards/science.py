"""Is the answer to a science question right? A rule first; a judge model, where one is named, when the rule says wrong.

The rule follows the gold answer: a choice's letter, a number with a unit (compared through pint, within a tolerance),
or a text (compared in a normal form). Of the response the final answer counts: a box, what follows "the answer is", or
the last line. What hedges ("A or B") is wrong.

Deliberately left out: derivations, several answers in one, and units that only context could tell.
"""

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from agapo.chat import Completion, final_answer
from agapo.schema import Mode
from rewards import judge as judging
from rewards.math_answer import extract_answer
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
        value = _rule(gold, text, _by_letter(options), own_unit, bound, unit_optional)
        if value == 0.0 and judge and text:
            value = judging.Judge(**judge).ask(_with_choices(prompt, options), gold, text)
        values.append(value)
    return values


def check(*, judge: Mapping[str, Any] | None = None) -> None:
    """Raise UserError where a judge is named that cannot be asked."""
    if judge:
        judging.check(**judge)


def _rule(
    gold: Any, text: str | None, choices: Mapping[str, str], unit: Any, tolerance: float, unit_optional: bool
) -> float | None:
    wanted = "" if gold is None else str(gold).strip()
    if not wanted:
        return None
    if not text:
        return 0.0
    if _is_letter(wanted, choices):
        return float(chosen_letter(text, choices) == wanted.strip("().").upper())
    quantity = _quantity(f"{wanted} {unit or ''}")
    candidates = _candidates(text)
    if quantity is not None:
        return float(any(_is_quantity(found, quantity, tolerance, unit_optional) for found in candidates))
    if any(_normal(found) == _normal(wanted) for found in candidates):
        return 1.0
    letter = next((name for name, option in choices.items() if _normal(option) == _normal(wanted)), None)
    if letter is not None:
        return float(chosen_letter(text, choices) == letter)
    return float("\\" in wanted and math_score([""], [text], answer=[wanted]) == [1.0])


def _with_choices(prompt: Any, options: Any) -> str:
    listed = "\n".join(f"{name}. {option}" for name, option in _by_letter(options).items())
    return f"{judging.question_of(prompt)}\n\n{listed}".strip()


# --- choices ---

_LETTER = re.compile(r"[(\[]?([A-Z])[)\].:]?")
_NAMED = re.compile(
    r"\b(?:answer|option|choice|respuesta|opción|정답|답)\b[^\n]{0,20}?(?:\bis\b|\bes\b|[:=])\s*|(?:정답|답)(?:은|는)\s*",
    re.I,
)


def _by_letter(options: Any) -> dict[str, str]:
    """Choices as lists, as dicts by letter, or as the hub's {"text": [...], "label": [...]}."""
    if isinstance(options, str):
        try:
            options = json.loads(options)
        except ValueError:
            return {}
    if isinstance(options, Mapping) and isinstance(options.get("text"), list):
        labels = options.get("label") or [chr(65 + n) for n in range(len(options["text"]))]
        return {str(label).upper(): str(text) for label, text in zip(labels, options["text"], strict=False)}
    if isinstance(options, Mapping):
        return {str(label).upper(): str(text) for label, text in options.items()}
    return {chr(65 + n): str(text) for n, text in enumerate(options or ())}


def _is_letter(gold: str, choices: Mapping[str, str]) -> bool:
    found = _LETTER.fullmatch(gold.upper())
    return bool(found) and (not choices or found[1] in choices)  # pyright: ignore[reportOptionalSubscript]


def chosen_letter(text: str, choices: Mapping[str, str]) -> str | None:
    """Return the letter that a response settles on, None where it settles on none or on several."""
    for place in _candidates(text):
        letters = _letters(place, choices)
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def _letters(place: str, choices: Mapping[str, str]) -> set[str]:
    """The letters that a final answer names: by themselves, with their text behind, or by their text alone."""
    bare = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", place).strip(" *_$.`\"'")
    by_text = {name for name, option in choices.items() if _normal(option) == _normal(bare)}
    if by_text:
        return by_text
    known = "".join(choices) or "A-J"
    alone = re.findall(rf"(?<![\w'’])\(?([{known}])\)?(?![A-Za-z0-9_'’])", bare)
    head = re.match(rf"[(\[]?([{known}])(?:[)\].:]|\s*$|\s+[-–—:])\s*(.*)", bare)
    if head:
        others = {_normal(option) for name, option in choices.items() if name != head[1]}
        return (
            set() if _normal(head[2]) in others else {head[1], *re.findall(rf"(?:or|o|and)\s+([{known}])\b", head[2])}
        )
    return set(alone) if len(bare.split()) <= 8 or len(set(alone)) > 1 else set()


# --- the final answer ---


def _candidates(text: str) -> list[str]:
    """The places where a final answer may stand, the surest first: only the first of them that is there counts."""
    boxed = extract_answer(text) if r"\boxed" in text or "####" in text else None
    if boxed is not None:
        return [boxed]
    tail = text[-5000:]
    named = [match.end() for match in _NAMED.finditer(tail)]
    if named and (rest := tail[named[-1] :].strip().partition("\n")[0].strip()):
        return [rest]
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return [lines[-1]] if lines else []


_ARTICLES = re.compile(r"\b(?:the|an?|el|la|los|las|una?)\b")


def _normal(text: str) -> str:
    """Case, accents' forms, punctuation, articles and space do not matter; signs and points inside numbers do."""
    plain = unicodedata.normalize("NFKC", re.sub(r"\\(?:text|mathrm)\s*\{([^{}]*)\}", r"\1", text)).casefold()
    plain = re.sub(r"(?<!\d)[.,](?!\d)|[.,](?!\d)|[;:!?\"'“”‘’()\[\]{}*_`$\\]", " ", plain)
    return " ".join(_ARTICLES.sub(" ", plain.replace("-", " ") if not re.search(r"\d", plain) else plain).split())


# --- numbers with units ---

Quantity = tuple[float, str]

_NUMBER = re.compile(
    r"(?<![\w.])([-−+]?\s?(?:\d{1,3}(?:,\d{3})+|\d{1,30})(?:\.\d{1,30})?|[-−+]?\.\d{1,30})"
    r"(?:\s*(?:[eE]|(?:\\times|\\cdot|[×x*·])\s*10\s*(?:\^|\*\*))\s*\{?\s*([-−+]?\d{1,3})\s*\}?)?"
)
_UNIT = re.compile(r"[A-Za-zµμΩ°Å%·*/^()\-\s\d]{1,40}")
_ROUGH = re.compile(r"^\s*(?:approximately|about|roughly|approx\.?|≈|~|\\approx|=)\s*", re.I)


def _quantity(text: str) -> Quantity | None:
    """Return (number, unit) where a text is one number and at most a unit."""
    plain = _plain_unit(_ROUGH.sub("", text.strip().rpartition("=")[2] if "=" in text else text))
    found = _NUMBER.match(plain.strip())
    if not found:
        return None
    rest = plain.strip()[found.end() :].strip(" .,;*_$")
    if rest and not _UNIT.fullmatch(rest):
        return None
    number = found[1].replace(",", "").replace("−", "-").replace(" ", "")
    value = float(f"{number}e{(found[2] or '0').replace('−', '-')}")
    return (value, rest) if math.isfinite(value) else None


def _plain_unit(text: str) -> str:
    """LaTeX's ways to write numbers and units."""
    text = unicodedata.normalize("NFC", text[:300]).replace("$", "").replace("**", "^").replace("{,}", ",")
    text = re.sub(r"\^\{([^{}]*)\}", r"^\1", text)
    text = re.sub(r"\\(?:text|mathrm|rm|textbf|mathbf|operatorname)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\^\s*\{?\\circ\}?\s*|\\degree\s*|°\s*(?=[CFK])", "deg", text)
    text = re.sub(r"\\(?:,|;|!|:|quad| |left|right)|~", " ", text)
    text = (
        text.replace(r"\cdot", "*").replace("·", "*").replace(r"\mu", "µ").replace(r"\Omega", "Ω").replace(r"\%", "%")
    )
    text = text.replace("²", "^2").replace("³", "^3").replace("⁻¹", "^-1").replace("⁻²", "^-2")
    return re.sub(r"\\d?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)", text)


def _is_quantity(text: str, gold: Quantity, tolerance: float, unit_optional: bool) -> bool:
    found = _quantity(text)
    if found is None:
        return False
    value = _in_unit(found, gold[1], unit_optional)
    return value is not None and math.isclose(value, gold[0], rel_tol=tolerance, abs_tol=1e-12)


def _in_unit(found: Quantity, unit: str, unit_optional: bool) -> float | None:
    """Return the number in another unit; None where it has another dimension, or lacks a unit."""
    number, own = found
    if own == unit or (not own and unit_optional):
        return number
    if not unit or not own:
        return None
    registry, source, target = _registry(), _parsed_unit(own), _parsed_unit(unit)
    if source is None or target is None:
        return None
    try:
        return float(registry.Quantity(number, source).to(target).magnitude)
    except Exception:  # pint has a dozen kinds
        return None


@lru_cache(maxsize=1024)
def _parsed_unit(text: str) -> Any:
    """Return pint's unit, None where there is none. pint evaluates powers, so they are bounded beforehand."""
    if re.search(r"\d{3}|\^[^\^]*\^|\*\s*\*", text):
        return None
    spaced = re.sub(r"(?<=[\w)])\s+(?=[A-Za-zµΩÅ(])", "*", text.strip())
    spaced = re.sub(r"(?<=[A-Za-z])(-?\d)", r"^\1", spaced).replace("^^", "^").replace("%", "percent")
    try:
        return _registry().parse_units(spaced.replace("^", "**"))
    except Exception:
        return None


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint  # takes 0.3 s

    return pint.UnitRegistry(cache_folder=None, autoconvert_offset_to_baseunit=True)
