"""Which choice does a response settle on? By its letter, or by what the choice says.

The place that counts is a box, else what follows "the answer is", else the last line. Letters in the reason behind do
not ("C, since A and B are too small"); what hedges ("C or D") or takes back ("C. Actually, D") settles on nothing.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from rewards.answers.extraction import marked_answer

Choices = Mapping[str, str]

# --- where the answer stands ---

_NAMED = re.compile(
    r"\b(?:answer|option|choice|respuesta|opción|정답|답)\b(?:(?!\b[A-J]\b)[^\n]){0,20}?(?:\bis\b|\bes\b|[:=])\s*"
    r"|(?:정답|답)(?:은|는)\s*",
    re.I,
)
_CHOSEN = re.compile(
    r"\b(?:choose|chose|pick|select|selected|go with|elijo)\s+"
    r"(?:(?:the )?(?:option|choice|answer)\s+)?(?=\(?[A-Ja-j]\b)"
)
_TAIL = 5000


class Places(NamedTuple):
    """Where a final answer may stand: a box, what is named or chosen as the answer (the last first), the last line."""

    box: str | None
    named: list[str]
    chosen: list[str]
    last: str


def places(text: str) -> Places:
    """Find the places; time linear in the length of the text."""
    box = marked_answer(text) if r"\boxed" in text or "####" in text else None
    tail = without_emphasis(text[-_TAIL:])
    lines = [line.strip() for line in tail.splitlines() if re.search(r"\w", line)]
    return Places(box, _behind(_NAMED, tail), _behind(_CHOSEN, tail), lines[-1] if lines else "")


def _behind(pattern: re.Pattern[str], text: str) -> list[str]:
    found = [text[match.end() : match.end() + 500].strip().partition("\n")[0] for match in pattern.finditer(text)]
    return [place for place in reversed(found[-5:]) if place]


def is_formula(place: str) -> bool:
    """Does a box hold mathematics rather than a letter, a name or a number?"""
    return re.search(r"[=<>^_]|\\[a-zA-Z]", _bare(place)) is not None


_EMPHASIS = re.compile(r"(?<![\w*_)\\}])(\*{1,3}|_{1,3}|`)(?=[^\s*_`])([^\n]{1,300}?)(?<=[^\s*_`\\])\1(?![\w*_(])")


def without_emphasis(text: str) -> str:
    """Take Markdown's stars, underscores and back-ticks away, not those of 10 m**2 and 3 * 10^8."""
    for _ in range(3):
        text = _EMPHASIS.sub(r"\2", text)
    return re.sub(r"^\s{0,3}(?:#{1,6}|>)\s+", "", text, flags=re.MULTILINE)


_ARTICLES = re.compile(r"\b(?:the|an?|el|la|los|las|una?)\b")


def normal(text: str) -> str:
    """Case, accents' forms, punctuation, articles and space do not matter; signs and points inside numbers do."""
    text = re.sub(r"(?<=[A-Za-z)\]}])_\s*(?:\{(\d+)\}|(\d+))", r"\1\2", text)  # H_2O is H2O
    plain = unicodedata.normalize("NFKC", re.sub(r"\\(?:text|mathrm|ce)\s*\{([^{}]*)\}", r"\1", text)).casefold()
    plain = re.sub(r"(?<!\d)[.,](?!\d)|[.,](?!\d)|[;:!?\"'“”‘’()\[\]{}*_`$\\]", " ", plain)
    return " ".join(_ARTICLES.sub(" ", plain.replace("-", " ") if not re.search(r"\d", plain) else plain).split())


# --- the choices ---

_LETTER = re.compile(r"[(\[]?([A-Z])[)\].:]?")


def by_letter(options: Any) -> dict[str, str]:
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


def is_letter(gold: str, choices: Choices) -> bool:
    """Is the gold answer a choice's letter?"""
    found = _LETTER.fullmatch(gold.upper())
    return bool(found) and (not choices or found[1] in choices)  # pyright: ignore[reportOptionalSubscript]


def chosen_letter(text: str, choices: Choices) -> str | None:
    """Return the letter that a response settles on, None where it settles on none or on several."""
    found = places(text)
    letters: set[str] | None = None
    if found.box:
        is_mathematics = is_formula(found.box)
        letters = (
            _by_text(found.box, choices) or None if is_mathematics else _letters(found.box, choices, is_named=True)
        )
    for place in [*found.named, *found.chosen]:
        if letters is None and re.match(r"(?:none|neither|no one)\b", place, re.I):
            return None
        letters = _letters(place, choices, is_named=True) if letters is None else letters
    letters = _letters(found.last, choices, is_named=False) if letters is None else letters
    return letters.pop() if letters and len(letters) == 1 else None


# --- letters in a place ---

_NEGATED = (
    r"\b(?i:not|neither|nor|cannot|\w+n['’]t|rather than|instead of|than|except|unlike|exclud\w+|eliminat\w+"
    r"|rul\w+ out)\s+(?i:be\s+)?(?i:(?:option|choice|answer|either)s?\s+)?"
    r"\(?(?:[A-Z]\)?(?:\s*(?:,|or|nor|and)\s*\(?)?)+(?![\w'’])"
)
_WRONG = re.compile(
    r"[)\].]?\s*(?:(?:is|are|was|seems|looks|could)\s*(?:not\b|n['’]t)"
    r"|(?:not|can ?not|can['’]t)\b(?!\s+(?:be\s+)?\(?(?-i:[A-Z])\b)"  # but A in "A. Not B"
    r"|(?:(?:is|are|was|seems|looks)\s*)?(?:wrong|incorrect|false|excluded|too\b))",
    re.I,
)
_JOINED = (
    r"(?:or|and|o|y|u|또는|혹은|및|maybe|perhaps|possibly|probably|alternatively"
    r"|also|either|even|both|could be|might be)"
)
_TAKEN_BACK = r"\b(?:no|wait|actually|rather|instead|sorry|correction|hmm|but maybe|second thought)\b"
_REASON = re.compile(r"\b(?:because|since|as|so|for|which|where|while|whereas|given|due)\b|[–—(;]|\s-\s|\.\s", re.I)
_MOST_WORDS = 12


def _bare(place: str) -> str:
    place = re.sub(r"\\(?:text|mathrm|mathbf|textbf|textit|boldsymbol)\s*\{([^{}]*)\}", r"\1", place)
    return place.strip(" *_$.`\"'")


def _by_text(place: str, choices: Choices) -> set[str]:
    return {name for name, option in choices.items() if normal(option) == normal(_bare(place))}


def _letters(place: str, choices: Choices, is_named: bool) -> set[str] | None:
    """The letters that a place names: by themselves, with their text or a reason behind, or by their text alone.

    An empty set where it takes a letter back, None where it says nothing of choices.
    """
    bare = _bare(place)
    known = "".join(name for name in choices if len(name) == 1) or "A-J"
    found = _by_text(place, choices) or _at_the_head(bare, choices, known, is_named)
    if found is not None:
        return found
    bare = re.sub(_NEGATED, " ", bare)
    statement = re.split(r"\b(?:because|since)\b", bare)[0]
    alone = {match[1] for match in _standing(statement, known) or _standing(bare, known)}
    if alone:
        return alone if len(bare.split()) <= _MOST_WORDS or len(alone) > 1 else None
    return _in_the_sentence(bare, choices) or None


def _standing(text: str, known: str) -> list[re.Match[str]]:
    """Capital letters by themselves, without the pronoun I, the article A and those that are called wrong."""
    letters = re.finditer(rf"(?<![\w'’])\(?([{known}])\)?(?![A-Za-z0-9_'’]|\s*=)", text)
    return [
        match
        for match in letters
        if not _is_word(match[0], text[match.end() :]) and not _WRONG.match(text, match.end())
    ]


def _is_word(letter: str, rest: str) -> bool:
    """Tell the pronoun I and the article A from letters of choices."""
    following = re.match(r"\s+([a-z]+)", rest)
    return letter in ("A", "I") and bool(following) and following[1] not in _AFTER_LETTERS  # pyright: ignore[reportOptionalSubscript]


_AFTER_LETTERS = ("is", "or", "and", "because", "since", "as", "for", "are", "o", "y", "with", "not", "rather", "seems")


def _at_the_head(bare: str, choices: Choices, known: str, is_named: bool) -> set[str] | None:
    """Read `C`, `(C) mercury` and `C, since …`; None where no letter stands at the head."""
    head = re.match(rf"(?:[Oo]ption|[Cc]hoice)?\s*([(\[]?)([{known}])([)\]]*)(?![\w'’]|\s*=)", bare)
    if head is None:
        head = re.match(rf"([(\[]?)([{known}])([)\]]*)(?=$|[.,;:)]|\s*[–—(-])", bare, re.I)
        if head is None or not (is_named or head[3]):
            return None
    letter, rest = head[2].upper(), bare[head.end() :]
    if (
        not head[1]
        and not head[3]
        and (_is_word(head[2], rest) or not (is_named or _stands_alone(rest, choices.get(letter, ""))))
    ):
        return None
    if _WRONG.match(rest):
        return set()
    text = re.sub(r"^[\s.:)\]*–—-]+", "", rest)
    if any(normal(text) == normal(option) for name, option in choices.items() if name != letter):
        return set()
    return {letter, *_hedges(rest, known)}


def _stands_alone(rest: str, option: str) -> bool:
    """Is what follows a letter no sentence of its own, such as `C u later`?"""
    following = re.match(r"\s+([a-z]+)", rest)
    return not following or following[1] in _AFTER_LETTERS or normal(rest) == normal(option)


def _hedges(rest: str, known: str) -> set[str]:
    """The further letters that are offered beside the first, not those in a reason."""
    rest = re.sub(_NEGATED, " ", rest)
    other = rf"\(?([{known}])[)\].:]?(?=$|[\s.,;:/&)])"
    listed = re.match(rf"[\s,;/&(\[–—-]*(?:[,;/&]|\b{_JOINED}\b)[\s,(]*(?:{_JOINED}\b[\s,(]*)*{other}", rest, re.I)
    before_reason = rest[: reason.start()] if (reason := _REASON.search(rest)) else rest
    offered = re.findall(rf"\b(?:or|and|o|y)\s+{other}", before_reason)
    taken_back = re.findall(rf"{_TAKEN_BACK}[^\n]{{0,40}}?(?<![\w'’]){other}", rest, re.I)
    found = {*offered, *(letter.upper() for letter in taken_back if letter.isupper())}
    if listed and listed[1].isupper() and not _is_reason(listed[1], rest[listed.end() :]):
        found.add(listed[1])
    return found


def _is_reason(letter: str, rest: str) -> bool:
    """Is the letter the beginning of a sentence, as in `C, B is too small` or `C, I checked`?"""
    return re.match(r"\s+(?!or\b|and\b|o\b|y\b|either\b|too\b|both\b|are both\b)[a-z]", rest) is not None


def _in_the_sentence(bare: str, choices: Choices) -> set[str]:
    """The choice whose text stands in a sentence, where just one does and nothing is denied."""
    if len(bare.split()) > _MOST_WORDS or re.search(
        r"\b(?:not|never|no|neither|nor|except|unlike|or)\b|n['’]t\b", bare, re.I
    ):
        return set()
    sentence = f" {normal(bare)} "
    found = {name: normal(option) for name, option in choices.items() if f" {normal(option)} " in sentence}
    found = {name: text for name, text in found.items() if re.search(r"[^\W\d]{2}|\d \w", text)}
    longest = max(found.values(), key=len, default="")
    return {name for name, text in found.items() if text == longest or text not in longest}
