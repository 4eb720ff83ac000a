"""One number with a unit in a place where an answer may stand, and its value in another unit (through pint)."""

import math
import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rewards.answers.choices import without_emphasis
from rewards.answers.numbers import from_words

Quantity = tuple[float, str]
"""A number and its unit as it was written."""

_SIGN = r"[-−+]?\s?"
_NUMBER = re.compile(
    rf"(?<![\w.])(?:({_SIGN})(?:(\d{{1,9}})\s+)?(\d{{1,15}}(?:\.\d{{1,15}})?)\s?/\s?(\d{{1,15}}(?:\.\d{{1,15}})?)(?![\d.]*\d)"
    rf"|({_SIGN}(?:\d{{1,3}}(?:(?:,|\s)\d{{3}})+(?!\d)|\d{{1,30}})(?:\.\d{{0,30}})?|[-−+]?\.\d{{1,30}})"
    r"(?:\s*(?:[eE]|(?:\\times|\\cdot|[×x*·])\s*10\s*(?:\^|\*\*))\s*[{(]?\s*([-−+]?\d{1,3})\s*[})]?)?"
    r"(?![\d.]*\d))"
)
_TEN = re.compile(r"([-−+]?)10\s*(?:\^|\*\*)\s*[{(]?\s*([-−+]?\d{1,3})\s*[})]?")
_UNIT = re.compile(r"[A-Za-zµμΩ°Å%·*/^()\-\s\d]{1,40}")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_LEAD = re.compile(
    r"^\s*(?:(?:approximately|about|roughly|around|nearly|exactly|approx\.?|equal to|equals|it is|it's)\b"
    r"|≈|~|\\approx|\\sim|=|:)\s*",
    re.I,
)
_BEHIND = re.compile(
    r"\s*(?:\b(?:because|since|as|which|where|due to|so that)\b.*|\([^()\d]*\)\s*|,\s(?=[^\d]*$).*)$", re.I | re.DOTALL
)
_HEDGE = re.compile(r"\b(?:or|not|nor|maybe|perhaps|between|either|no)\b|n['’]t\b|±|\\pm", re.I)
_SAID = re.compile(
    r"^.*(?:\b(?:is|are|was|be|equals|of|gives|get|have|es|about|approximately)\b|≈|\\approx|:)\s*(?=[^\s])",
    re.I | re.DOTALL,
)


def has_number(place: str) -> bool:
    r"""Are there digits or \pi, or is it a number in words?"""
    return re.search(r"\d|π|\\pi(?![a-zA-Z])", place) is not None or _in_words(place) is not None


def _in_words(place: str) -> int | None:
    """Return the number that is all of a place."""
    counted = from_words(_plain(place).strip(" .,;*_`"))
    return counted[0] if counted and not counted[1].strip() else None


def read_quantity(text: str, *, is_said: bool = False) -> Quantity | None:
    r"""Return (number, unit) where a text, after words such as `F =` and `about`, is one number and at most a unit.

    Where it `is_said`, in a response, it may also be a multiple of \pi; a gold answer is compared as an expression.
    """
    text = without_emphasis(text.strip()[:500]).strip(" *_`$")
    text = _BEHIND.sub("", text)
    plain = _plain(text.rpartition("=")[2] if "=" in text else text)
    for _ in range(3):
        plain = _LEAD.sub("", plain)
    return _number_and_unit(plain.strip(" *_`,;"), is_said)


def quantity_in(sentence: str, *, is_named: bool = False) -> Quantity | None:
    """Return what read_quantity does, else what stands behind the last `is`; nothing where the sentence hedges.

    Where the sentence `is_named` as the answer, it may be a number in words.
    """
    in_words = _in_words(sentence) if is_named else None
    if in_words is not None:
        return float(in_words), ""
    found = read_quantity(sentence, is_said=True)
    if found is not None:
        return found
    plain = without_emphasis(sentence[:500])
    said = None if _HEDGE.search(plain) else _SAID.match(plain)
    return read_quantity(plain[said.end() :], is_said=True) if said else None


_PI = r"(?:\\pi(?![a-zA-Z])|π)"


def _number_and_unit(plain: str, is_said: bool) -> Quantity | None:
    counted = from_words(plain[:80])
    if counted and counted[1].strip():  # a number alone in words may be what was asked for
        plain = f"{counted[0]} {counted[1].strip()}{plain[80:]}"
    plain = re.sub(rf"^([-+]?)\s*(?={_PI})", r"\g<1>1", re.sub(rf"\(([-\d]*)\s?{_PI}\)", r"\1\\pi ", plain))
    value, end = _value(plain)
    times_pi = re.match(rf"\s*\*?\s*{_PI}\s*(?:/\s*\(?(\d+)\)?)?", plain[end:]) if is_said else None
    if value is not None and times_pi:
        value, end = value * math.pi / (int(times_pi[1] or 1) or math.nan), end + times_pi.end()
    if value is None:
        return None
    rest = plain[end:].strip(" .,;*_$")
    word, _, behind = rest.partition(" ")
    if word.lower() in _SCALES:
        value, rest = value * 10.0 ** _SCALES[word.lower()], behind.strip()
    if rest and not _UNIT.fullmatch(rest):
        return None
    return (value, rest) if math.isfinite(value) else None


def _value(plain: str) -> tuple[float | None, int]:
    ten = _TEN.match(plain)
    if ten:
        return (-1.0 if ten[1] in ("-", "−") else 1.0) * float(f"1e{ten[2].replace('−', '-')}"), ten.end()
    found = _NUMBER.match(plain)
    if not found:
        return None, 0
    sign, whole, above, below, number, power = found.groups()
    if above is not None:
        if not float(below):
            return None, 0
        value = float(int(whole or 0) + Fraction(above) / Fraction(below))
        return (-value if sign.strip() in ("-", "−") else value), found.end()
    digits = re.sub(r"[,\s]", "", number.replace("−", "-"))
    return float(f"{digits}e{(power or '0').replace('−', '-')}"), found.end()


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_FRACTIONS = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}


def _plain(text: str) -> str:
    """LaTeX's and Unicode's ways to write numbers and units."""
    text = re.sub("[½⅓⅔¼¾⅕⅛]", lambda match: f" {_FRACTIONS[match[0]]}", unicodedata.normalize("NFC", text[:300]))
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda match: f"^{match[0].translate(_SUPERSCRIPTS)}", text)
    text = text.replace("$", "").replace("**", "^").replace("{,}", ",").replace("−", "-")
    text = re.sub(r"\\[()\[\]]", " ", text)
    text = re.sub(r"\^\{([^{}]*)\}", r"^\1", text)
    text = re.sub(r"\\(?:text|mathrm|rm|textbf|mathbf|operatorname|boldsymbol)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\^\s*\{?\\circ\}?\s*|\\degree\s*|°\s*(?=[CFK])", "deg", text)
    text = re.sub(r"(?<=\d)\\[,!]\s?(?=\d{3})", "", text)
    text = re.sub(r"\\(?:,|;|!|:|quad| |left|right)|~", " ", text)
    text = (
        text.replace(r"\cdot", "*").replace("·", "*").replace(r"\mu", "µ").replace(r"\Omega", "Ω").replace(r"\%", "%")
    )
    text = re.sub(r"\\[dtc]?frac\s*(?:\{\s*(-?[\d.]+)\s*\}|(\d))\s*(?:\{\s*([\d.]+)\s*\}|(\d))", r" \1\2/\3\4", text)
    text = re.sub(r"-\s+(?=\d+/)", "-", text)
    return re.sub(r"\\d?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)", text).strip()


# --- units ---


def is_near(found: Quantity | None, gold: Quantity, tolerance: float, unit_optional: bool) -> bool:
    """Is a number, brought to the gold unit, within the relative tolerance?"""
    if found is None:
        return False
    value = _in_unit(found, gold[1], unit_optional)
    return value is not None and math.isclose(value, gold[0], rel_tol=tolerance, abs_tol=0 if gold[0] else 1e-12)


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
