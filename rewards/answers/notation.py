r"""An answer in its parts: the expression, the unit behind it, and a choice's letter before it.

Labels ("The answer is", `\approx`) and remarks behind ("where n is an integer") go; words that change what is said
stay: `a_{\text{max}}` is not `a_{\text{min}}`, 2 dozen is not 2, and 5 below zero is -5.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from rewards.answers.numbers import from_words, parts_in_words, read_number
from rewards.answers.units import Measure, is_silent, is_unit, measure


class Answer(NamedTuple):
    """What is compared. `label` is the letter of a choice that has its text behind, as in (B) 42."""

    body: str
    measure: Measure
    label: str | None = None
    remark: str = ""


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_UNICODE = str.maketrans(
    dict(zip("−–÷∶：，（）％＄￥\u2009\u202f\xa0", "--/::,()%$¥   ", strict=True))
    | {"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "∈": r"\in "}
    | {"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx "}
    | {"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"}
)
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|displaystyle|textstyle|[bB]ig{1,2}[lrm]?)(?![a-zA-Z])", ""),
        (r"(?<=\d)(?:,\s*\\!|\{,\}|\\[,!])\s*(?=\d{3})", ""),  # thousands: 1,\!000 1{,}000 1\,000
        (r"\\(?:mathbin|mathrel)\s*\{([^{}]*)\}|\{(:)\}", r"\1\2"),
        (r"\\colon(?![a-zA-Z])", ":"),
        (r"(?<!\\)\\[!,;: ]|\\q?quad(?![a-zA-Z])|(?<!\\)~", " "),  # but not the \\ between rows
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*\{([^{}]*)\}\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"\s*\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|\\degree(?![a-zA-Z])", "°"),
        (r"(?<!\\)\\[()\[\]]", ""),
        (r"\\([%$])", r"\1"),
        (r"\\(?:pounds|textsterling)(?![a-zA-Z]) ?", "£"),
        (r"\\(?:euro|texteuro)(?![a-zA-Z]) ?", "€"),
        (r"\\(?:text(?:bf|it|rm|normal|sf|tt)?|math(?:rm|bf|it|sf|normal)|mbox|operatorname)\s*\{", r"\\text{"),
        (r"\\text\{\s*([^{}\\]*)\\text\{([^{}]*)\}\s*\}", r"\\text{\1\2}"),
        (r"\\frac\{\\text\{([^{}\d]*)\}\}\{\\text\{([^{}\d]*)\}((?:\^\{?\d\}?)?)\}", r"\\text{\1}/\\text{\2}\3"),
        (r"\\text\{\s*([-\d.,/]*\d|[B-IMO-UX-Za-fijknopqrt-z])\s*\}", r"\1"),
        (r"(?<![\d})])(?<![\d})] )\\text\{\s*([a-zA-Z])\s*\}", r"\1"),  # behind a number it may be a unit
        (r"\\text\{\s*([A-Z](?: ?, ?[A-Z])+)\s*\}", r"\1"),
        (
            r"\\text\{\s*(sin|cos|tan|cot|sec|csc|log|ln|exp|arcsin|arccos|arctan|min|max|gcd)\s*\}(?=[\s({\\\d])",
            r"\\\1 ",
        ),
        (r"\\text\{\s*(?:if|for|when)\s*\}", r"\\text{if}"),
        (r"\(\\text\{([A-Z])\}\)", r"(\1)"),
        (r"(?<=\d) ?\^ ?\{? ?\\text\{ ?(?:st|nd|rd|th) ?\} ?\}?", ""),  # 3rd
        (r"\s+", " "),
    )
]
_TERMS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\+ ?\( ?- ?(\d+(?:\.\d+)?[a-z]?) ?\)(?! ?[\^!])", r"- \1"),
        (r"- ?\( ?- ?(\d+(?:\.\d+)?[a-z]?) ?\)(?! ?[\^!])", r"+ \1"),
        (r"\+ ?-(?! ?-)|- ?\+", "-"),
        (r"- ?- ?(?=[\da-z\\(.])", "+ "),
        (r"^(?:0 ?)?\+ ?|^0 ?(?=-)", ""),
        (r" ?\^ ?(?:1(?!\d)|\{ ?1 ?\})", ""),
        (r"(?<![\d.,])(\d+)\.0+(?![\d.])", r"\1"),
        (r"(?<![\d.,^_\w{}])1 ?(?:\\cdot |\* ?)?(?=[a-z](?![a-z\d]))", ""),
        (r"(?<=[-+( ])1 ?(?:\\cdot |\* ?)?(?=[a-z](?![a-z\d]))(?<!\d 1)", ""),
    )
]

# --- reading ---


@lru_cache(maxsize=4096)
def read_answer(text: str) -> Answer:
    """Part an answer. Takes away what does not change it: spacing, sizes, labels, remarks."""
    text = _trim(_spell(text))
    label, text = _choice(_without_lead(text))
    text, remark = _without_remark(_in_digits(_without_lead(text)))
    text, said = _without_unit(text)
    text = _trim(text)
    for pattern, replacement in _TERMS:
        text = pattern.sub(replacement, text)
    return Answer(text, said, label, remark)


def _spell(text: str) -> str:
    text = re.sub(r"(?<=[\w)}\]])([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", lambda match: f"^{{{match[1].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub(r"√ ?(\d+|[a-zA-Z])|√ ?\(([^()]*)\)", r"\\sqrt{\1\2}", text)
    text = text.translate(_UNICODE)
    stripped = text.strip()
    if len(stripped) > 2 and stripped[0] == stripped[-1] == "$":
        text = stripped.strip("$")
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def _trim(text: str) -> str:
    """Take punctuation off both ends, but not the point of .5, nor the dots of 0.333…"""
    text = text.strip(" *,;:\n")
    text = re.sub(r"^\.(?!\d|\\(?:overline|bar|dot))[ .]*", "", text)
    return text if text.endswith("...") else text.rstrip(" *.,;:")


# --- labels ---

_LEAD = re.compile(
    r"(?:\\(?:therefore|implies|Rightarrow|approx|simeq|sim)(?![a-zA-Z])|[=∴]|"
    r"(?:(?:so|thus|hence|therefore)\b,? ?)?"
    r"(?:(?:the |my |our )?(?:final |correct |right )?(?:answer|result|solution|value|total)"
    r"(?: is| are| was|:| =| equals)+:?"
    r"|(?:approximately|approx\.?|about|roughly|around|nearly|exactly|it is|it's"
    r"|(?:so|thus|hence|therefore)(?=,)|la respuesta es|respuesta:|답:|정답:|答案是|答案[:为])"
    r"(?![a-zA-Z]))),?\s*",
    re.I,
)
_LABELLED = re.compile(r"\(([A-J])\)[.:]? +(?![-+*/=^<>_] )(?=\S)(.+)|([A-J])[.):] +(.+)", re.DOTALL)
_NAMED = re.compile(
    r"(?:the )?(?:option|choice|answer)s?:? *\(?([A-J])\)?(?:[.:)]? +(?=\S)(.+)|[.:)]?)", re.I | re.DOTALL
)


def _without_lead(text: str) -> str:
    for _ in range(4):
        inside = re.match(r"\\text\{\s*", text)
        lead = _LEAD.match(text, inside.end() if inside else 0)
        if not lead:
            break
        rest = text[lead.end() :]
        if inside:
            rest = rest[1:] if rest.startswith("}") else rf"\text{{{rest}"
        if not rest.strip(" {}"):
            break
        text = rest.strip()
    return text


def _choice(text: str) -> tuple[str | None, str]:
    """Part the letter of a choice from what it says: `(B) 42` and `Option B: 42`; a letter alone is no label."""
    plain = re.sub(
        r"^\\text\{\s*(\([A-J]\)[.:]?|[A-J][.):]|(?:[Oo]ption|[Cc]hoice) \(?[A-J]\)?[.:]?)\s*\}", r"\1 ", text
    ).strip()
    plain = _unwrapped(plain)
    found = _NAMED.fullmatch(plain)
    if found:
        letter, rest = found[1].upper(), found[2]
        return (letter, rest) if rest else (None, letter)
    found = _LABELLED.fullmatch(plain)
    return (found[1] or found[3], (found[2] or found[4]).strip()) if found else (None, text)


def _unwrapped(text: str) -> str:
    r"""Take an answer out of a \text{…} that holds all of it."""
    found = re.fullmatch(r"\\text\{ ?([^{}]*?) ?\}", text)
    return found[1] if found else text


def _in_digits(text: str) -> str:
    r"""Write `\text{four}` as 4 and `\text{7 apples}` as 7 apples; other words stay in their \text{…}."""
    plain = _unwrapped(text)
    if re.match(r"-?[\d.]", plain):
        return plain
    if parts := parts_in_words(plain):
        return parts
    counted = from_words(plain) if len(plain) < 80 else None
    rest = counted[1].strip() if counted else ""
    says_unit = rest and (
        is_unit(rest) or (re.fullmatch(r"[a-zA-Z]{3,}(?: [a-zA-Z]{2,}){0,2}", rest) and is_silent(rest))
    )
    return f"{counted[0]} {rest}".strip() if counted and (not rest or says_unit) else text


# --- remarks behind ---

_REMARK = re.compile(
    r"[,;]? ?\(? ?(?:\\text\{[ ,;(]*)?"
    r"(?:\\forall|\b(?:where|such that|with|if|when|whenever|provided|assuming|for))(?![a-zA-Z])"
    r"(?=.*(?:integer|real|natural|number|constant|arbitrary|positive|negative|nonzero|\\mathbb|\\in\b|[<>=≠]|\\[lg]eq?\b|\\neq?\b"
    r"|\b(?:all|any|every|each|some) \}? ?\$?[a-z]\b)).*",
    re.DOTALL,
)
_MEMBER = re.compile(
    r"(?:,|;|\() ?[a-zA-Z](?: ?, ?[a-zA-Z])* ?\\in ?\\?(?:mathbb)? ?\{? ?[ZNRQC] ?\}?(?:\^\{?[+*]\}?)? ?\)?$"
)
_BUILT = re.compile(r"\\\{(.{2,}?)(?:\\mid|\||:)(.*\\in ?\\mathbb ?\{? ?[ZN] ?\}?.*)\\\}")
_LIMITS = (
    "even",
    "odd",
    "prime",
    "composite",
    "positive",
    "negative",
    "nonnegative",
    "non-negative",
    "nonzero",
    "natural",
)


def _without_remark(text: str) -> tuple[str, str]:
    """Part `2k\\pi` from `for integers k`, and return what the remark limits; piecewise answers keep theirs."""
    if r"\begin" in text:
        return text, ""
    built = _BUILT.fullmatch(text)
    if built:
        return built[1].strip(), _limit(built[2])
    for pattern in (_REMARK, _MEMBER):
        found = pattern.search(text)
        body = text[: found.start()].strip(" ,;") if found else ""
        if found and re.search(r"[\w})]$", body) and body.count("{") == body.count("}"):
            return body, _limit(found[0])
    return text, ""


def _limit(remark: str) -> str:
    words = set(re.findall(r"[a-z][a-z-]+", remark.lower()))
    if re.search(r"\\mathbb ?\{? ?N|\\mathbb ?\{? ?Z ?\}?\^\{?\+", remark):
        words.add("natural")
    return " ".join(sorted(words & set(_LIMITS)))


def are_remarks_alike(gold: str, found: str) -> bool:
    """May these limits belong to one answer? Only odd or only prime numbers must be said by both."""
    strict = {"even", "odd", "prime", "composite"}
    if gold and found:
        return gold == found
    return not strict & set(f"{gold} {found}".split())


# --- the unit behind ---

_LETTER = "[^\\W\\d_]"
_PIECE = (
    r"(?:\\text\{[^{}\d]*+\}"
    rf"|(?<![\\a-zA-Z])(?>{_LETTER}++[.'’-]?+)++"
    r"|\^ ?\{? ?-?[1-6] ?\}?|[°%²³$€¥₩₹£¢/]|\\cdot(?![a-zA-Z])|\([^\W\d_][^\W\d_ ]*+s?\))"
)
_BEHIND = re.compile(
    rf"(?:(?<=[\d)}}\]%.])|(?<=\\pi)|(?<=[a-zA-Z])(?= ?\\text))"
    rf"(?! ?(?:[\^²³]|\\cdot|/(?! ?(?:[a-zA-Z]{{3}}|\\text))))(?:\s*+{_PIECE})++$"
)
_BEFORE = re.compile(
    r"(-?) ?(?:(US|A|C|CA|AU|HK|NT) ?)?(USD|EUR|GBP|JPY|CNY|RMB|KRW|INR|MXN|Rs\.?|[$€£¥₩₹]) ?(?=-? ?[\d.\\])"
)
_SUFFIX = re.compile(r"(?<=\d) ?([kKMB]|bn)(?![a-zA-Z])")
_SUFFIXES = {"k": "thousand", "K": "thousand", "M": "million", "B": "billion", "bn": "billion"}
_BELOW_ZERO = re.compile(r"\b(?:(?:degrees? )?below zero|(?:grados )?bajo cero)\b")


def _without_unit(text: str) -> tuple[str, Measure]:
    """Part the expression from the unit before and behind it."""
    text = re.sub(r"\\text\{ ?([-+]?[\d.,/]*\d) ?([^{}\d]+)\}$", r"\1\\text{ \2}", text)
    before = _BEFORE.match(text)
    if before:
        suffix = _SUFFIX.search(text)
        text = before[1] + text[before.end() :]
        text = _SUFFIX.sub(rf" {_SUFFIXES[suffix[1]]}", text, count=1) if suffix else text
    body, phrase = _parted(text)
    is_below = _BELOW_ZERO.search(phrase)
    phrase = re.sub(r"\b(?:above|below) zero\b|\bbajo cero\b", "", phrase)
    body = f"-{body}" if is_below and body[:1] != "-" else body
    said = measure(phrase)
    if before and not said.units:
        money = measure(before[3].rstrip("."))
        said = said._replace(units=money.units)
    return body, said


def _parted(text: str) -> tuple[str, str]:
    found = _BEHIND.search(text)
    if not found or r"\begin" in text:
        return text, ""
    body, behind = text[: found.start()].strip(), found[0]
    phrase = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", behind).strip()
    if not body or not is_silent(phrase) or body.count("{") != body.count("}"):
        return text, ""
    return (body, phrase) if _may_be_unit(body, behind, phrase) else (text, "")


def _may_be_unit(body: str, behind: str, phrase: str) -> bool:
    """Tell a unit from variables: 5 m may be metres, 5m and 2x are products."""
    first = re.match(r"[^\W\d_]+|\S", phrase)
    word = first[0] if first else ""
    if body[-1].isalpha() and not body.endswith(r"\pi"):
        return is_unit(phrase) and r"\text" in behind
    if r"\text" in behind[:7] or not re.match(r"[a-zA-Zµμ]", word) or re.fullmatch(r"[ap]\.?m\.?", phrase, re.I):
        return True
    if word == "rs" and not behind[0].isspace():  # rupees stand apart
        return False
    if len(word) == 1:
        is_number = read_number(body) is not None
        return is_unit(phrase) and is_number and (behind[0].isspace() or "/" in phrase)
    return is_unit(phrase) or (len(word) > 2 and behind[0].isspace())


# --- for comparison ---


def bare(text: str) -> str:
    r"""Return an expression outside of its \text{…}, a choice such as (B) as B, and 2 to 3 as 2:3."""
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip()
    text = re.sub(r"(?<=\d) ?to ?(?=\d)", ":", text)
    return re.sub(r"^\(([A-Z])\)$", r"\1", text)


_WORDS = re.compile(
    r"(?:[a-zA-Z]|\\[a-z]+)? ?_ ?(?:\{ ?)?\\text\{[^{}]*\}(?: ?\})?|[a-zA-Z] ?_ ?\{ ?[a-zA-Z]{2,} ?\}"
    r"|\\text\{([^{}]*)\}|\\angle ?\{? ?[A-Z]{2,} ?\}?"
)
_LETTERS = "jklmnpqrstuvwzbcghJKLMPQRTUVWXYZ"


def with_symbols(*texts: str) -> list[str] | None:
    r"""Write each name in words, such as `T_{\text{hot}}`, as one letter, the same in all texts; None for too many.

    math-verify drops such words, and would call T_{hot} > T_{cold} and T_{cold} > T_{hot} the same.
    """
    free = [letter for letter in _LETTERS if not any(letter in re.sub(r"\\[a-zA-Z]+", "", text) for text in texts)]
    names: dict[str, str] = {}

    def letter(found: re.Match[str]) -> str:
        if (found[1] or "").strip(" ,") in ("or", "and"):
            return found[0]
        name = re.sub(r"\\text|[{} ]", "", found[0])
        return f" {names.setdefault(name, free.pop() if name not in names and free else '?')} "

    changed = [_WORDS.sub(letter, text) for text in texts]
    return None if "?" in names.values() else changed


def with_fractions(text: str) -> str:
    """Write decimals as fractions, so that they are compared exactly."""
    return re.sub(r"(\^ ?)?(?<![\w.])(\d*)\.(\d+)(?![\d.])", _as_fraction, text)


def _as_fraction(decimal: re.Match[str]) -> str:
    power, whole, part = decimal.groups()
    fraction = rf"\frac{{{int(whole + part)}}}{{{10 ** len(part)}}}"
    return f"^{{{fraction}}}" if power else fraction
