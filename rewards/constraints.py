"""The constraints of `rewards/instructions.py`: each a function from a text to whether it keeps to it.

The verdict is IFEval's reference checker's, so that results compare, also where the prompt would have it otherwise:
postscripts count anywhere, `---` is a bullet point, `don't` is two words. Where that would call a wrong answer right,
or a right one wrong for no reason that it could know, the prompt decides:

    language          a text too short to tell keeps to any language that it may be in
    highlights        only what Markdown emphasises: no products (2*3*4), and the star of a list item opens none
    constrained       one option; an answer that names several has not chosen
    json              the fence may have a space before `json`
    no comma          、 and ， are commas too
"""

import json
import operator
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from rewards.language import LANGUAGES, may_be_in
from rewards.sentences import count_sentences, punkt_sentences

Constraint = Callable[[str], bool]
Compare = Callable[[int, int], bool]
Check = Callable[..., bool]


class Refused(Exception):
    """A row that cannot be judged; the message names the instruction and the argument."""


_RELATIONS: dict[str, Compare] = {
    "at least": operator.ge,
    "less than": operator.lt,
    "at most": operator.le,
    "exactly": operator.eq,
    "al menos": operator.ge,
    "como máximo": operator.le,
    "최소": operator.ge,
    "최소한": operator.ge,
    "적어도": operator.ge,
    "이상": operator.ge,
    "미만": operator.lt,
    "이하": operator.le,
    "최대": operator.le,
}


def _number(name: str, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise Refused(f"{name}: {key} should be a whole number, is {value!r}")
    return int(value)


def _relation(name: str, key: str, value: Any) -> Compare:
    if value not in _RELATIONS:
        raise Refused(f"{name}: {key} is {value!r}; known are {', '.join(_RELATIONS)}")
    return _RELATIONS[value]


def _text(name: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Refused(f"{name}: {key} should be a text, is {value!r}")
    return _plain(value)


def _texts(name: str, key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise Refused(f"{name}: {key} should be a list of texts, is {value!r}")
    return [_text(name, key, item) for item in value]


def _language(name: str, key: str, value: Any) -> str:
    code = _text(name, key, value).split("-")[0].lower()
    if code not in LANGUAGES:
        raise Refused(f"{name}: {key}: the language {value!r} cannot be told from others here")
    return code


_NUMBERS = """
    frequency let_frequency capital_frequency num_words num_sentences num_paragraphs nth_paragraph num_placeholders
    num_bullets num_highlights num_sections
"""
_READERS: dict[str, Callable[[str, str, Any], Any]] = {
    "relation": _relation,
    "let_relation": _relation,
    "capital_relation": _relation,
    "keywords": _texts,
    "forbidden_words": _texts,
    "language": _language,
    **dict.fromkeys(_NUMBERS.split(), _number),
}
"""How an argument is read; the others are texts."""


def _taking(check: Check, *keys: str, **defaults: str) -> Callable[[str, Mapping[str, Any]], Constraint]:
    """Return a maker of constraints that reads the named arguments and hands them to `check(text, …)` in order."""

    def make(name: str, given: Mapping[str, Any]) -> Constraint:
        values = []
        for key in keys:
            if key not in given and key not in defaults:
                raise Refused(f"{name}: {key} is missing")
            values.append(_READERS.get(key, _text)(name, key, given.get(key, defaults.get(key))))
        return lambda text: check(_plain(text), *values)

    return make


def _refusing(reason: str) -> Callable[[str, Mapping[str, Any]], Constraint]:
    def make(name: str, given: Mapping[str, Any]) -> Constraint:
        raise Refused(f"{name}: {reason}")

    return make


def _plain(text: str) -> str:
    """One form for accents, so that é is é however it was typed."""
    return unicodedata.normalize("NFC", text)


# --- counting ---

_WORD = re.compile(r"\w+")


def count_words(text: str) -> int:
    """Return the number of words: runs of letters, digits and underscores (Korean ones are eojeol)."""
    return len(_WORD.findall(text))


_SPLIT = re.compile(r"\s+|[;@#$%&?!()\[\]{}<>\"“”‘’«»…]|--+|\.{2,}|[:,](?=\D|$)|\.(?=[\"')\]]*(?:\s|$))")
_CONTRACTION = re.compile(r"(?<=.)(?=N'T$)|(?<=[^'])(?='(?:S|M|D|LL|RE|VE)$)", re.IGNORECASE)
_TWO_WORDS = re.compile(
    r"\b(can(?=not)|d(?='ye)|gim(?=me)|gon(?=na)|got(?=ta)|lem(?=me)|more(?='n)|wan(?=na(?:\W|$)))"
    r"(not|'ye|me|na|ta|'n)\b",
    re.IGNORECASE,
)


def _capital_words(text: str) -> int:
    """The words in capitals as NLTK parts them: one with a hyphen is one, DON'T is two (DO and N'T), CANNOT as well."""
    text = _TWO_WORDS.sub(r" \1 \2 ", text)
    parts = [part for word in _SPLIT.split(text) if word for part in _CONTRACTION.split(word)]
    return sum(part.isupper() for part in parts)


def _paragraphs(text: str, divider: str) -> list[str] | None:
    """Return the parts between dividers; None where one in the middle is empty."""
    parts = [part.strip() for part in re.split(divider, text)]
    if any(not part for part in parts[1:-1]):
        return None
    return [part for part in parts if part]


# --- the checks ---


def _times(text: str, keyword: str) -> int:
    return len(re.findall(re.escape(keyword), text, re.IGNORECASE))


def _existence(text: str, keywords: list[str]) -> bool:
    return all(_times(text, keyword) for keyword in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: Compare) -> bool:
    return relation(_times(text, keyword), frequency)


def _no_forbidden(text: str, forbidden: list[str]) -> bool:
    return not any(_has_word(text, word) for word in forbidden)


def _has_word(text: str, word: str) -> bool:
    if re.search("[가-힣]", word):  # Korean particles are written onto the word
        return word in text
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _letter_frequency(text: str, letter: str, frequency: int, relation: Compare) -> bool:
    return relation(text.lower().count(letter.lower()), frequency)


def _sentences(text: str, relation: Compare, number: int) -> bool:
    if re.search("[가-힣]", text):
        return _as_read(text, relation, number)
    return relation(punkt_sentences(text), number)


def _as_read(text: str, relation: Compare, number: int) -> bool:
    return relation(count_sentences(text), number)


def _words(text: str, relation: Compare, number: int) -> bool:
    return relation(count_words(text), number)


def _number_of_paragraphs(text: str, number: int) -> bool:
    parts = _paragraphs(text, r"\s?\*\*\*\s?")
    return parts is not None and len(parts) == number


def _nth_paragraph(text: str, number: int, nth: int, first: str) -> bool:
    """The paragraphs are as many, and the first word of the nth, up to a punctuation mark, is this one."""
    parts = text.split("\n\n")
    if sum(bool(part.strip()) for part in parts) != number or not 0 < nth <= number:
        return False
    words = parts[nth - 1].split()
    bare = words[0].lstrip("'").lstrip('"') if words else ""
    return bool(bare) and re.split("[.,?!'\"]", bare)[0].lower() == first.lower()


def _placeholders(text: str, number: int) -> bool:
    # Not a regular expression, which would look for the end of the line from each bracket.
    closed = (part for line in text.split("\n") for part in line.split("]")[:-1])
    return sum("[" in part for part in closed) >= number


_POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s", "P.D.": r"p\.\s?d\."}
"""Markers that may be written with spaces; the last is Spanish."""


def _postscript(text: str, marker: str) -> bool:
    """The marker stands anywhere, in any case."""
    wanted = _POSTSCRIPTS.get(marker.strip(), re.escape(marker.strip()))
    return re.search(wanted, text, re.IGNORECASE) is not None


def _bullets(text: str, number: int) -> bool:
    stars = re.findall(r"^[^\S\n]*\*[^*].*$", text, re.MULTILINE)
    dashes = re.findall(r"^[^\S\n]*-.*$", text, re.MULTILINE)
    return len(stars) + len(dashes) == number


_OPTIONS = (
    ("My answer is yes.", "내 대답은 예입니다."),
    ("My answer is no.", "내 대답은 아니요입니다.", "내 대답은 아니오입니다."),
    ("My answer is maybe.", "내 대답은 아마도입니다."),
)
_SPANISH_OPTIONS = ("Sí.", "No.", "Quizás.")


def _one_option(text: str) -> bool:
    return sum(any(wording in text for wording in option) for option in _OPTIONS) == 1


def _one_spanish_option(text: str) -> bool:
    return text.strip(" \n\"'“”*") in _SPANISH_OPTIONS


_ITEM = re.compile(r"^[^\S\n]*[*+-][^\S\n]+", re.MULTILINE)
_DOUBLE = re.compile(r"\*\*(?=[^\s*])[^\n*]*(?<=[^\s*])\*\*")
_SINGLE = re.compile(r"(?<![*\\])\*(?=[^\s*])[^\n*]*(?<=[^\s*])\*(?=\*\*(?!\*)|[^*]|\Z)")


def _highlights(text: str, number: int) -> bool:
    text = _ITEM.sub("", text)
    single = [found for found in _SINGLE.finditer(text) if not _is_product(text, *found.span())]
    return len(_DOUBLE.findall(text)) + len(single) >= number


def _is_product(text: str, start: int, end: int) -> bool:
    """Are the stars signs between factors, as in 2*3*4 and f(x)*y*(z)? A particle after a highlight is Korean."""
    before, after = text[max(start - 1, 0) : start], text[end : end + 1]
    return bool(re.match(r"[A-Za-z0-9)\]}^_]", before) and re.match(r"[A-Za-z0-9(\[{\\]", after))


def _multiple_sections(text: str, splitter: str, number: int) -> bool:
    return len(re.findall(rf"{re.escape(splitter.strip())}\s?\d+", text)) >= number


def _json(text: str) -> bool:
    inner = re.sub(r"^```\s*(?:json\b)?\s*|\s*```$", "", text.strip(), flags=re.IGNORECASE)
    try:
        json.loads(inner)
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    titles = (line[line.find("<<") : line.rfind(">>") + 2] for line in text.split("\n") if "<<" in line)
    return any(title.lstrip("<").rstrip(">").strip() for title in titles if title.endswith(">>"))


def _two_responses(text: str) -> bool:
    parts = _paragraphs(text, r"\*{6}")
    return parts is not None and len(parts) == 2 and parts[0] != parts[1]


def _repeats(text: str, prompt: str) -> bool:
    return text.strip().lower().startswith(prompt.strip().lower())


def _ends_with(text: str, phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(phrase.strip().lower())


def _capital_frequency(text: str, frequency: int, relation: Compare) -> bool:
    return relation(_capital_words(text), frequency)


def _capitals_in(language: str) -> Check:
    return lambda text: text.isupper() and may_be_in(text, language)


def _lowercase_in(language: str) -> Check:
    return lambda text: text.islower() and may_be_in(text, language)


def _no_comma(text: str) -> bool:
    return not re.search("[,，、]", text)


def _quoted(text: str) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def _words_with(letters: str) -> Callable[[str], int]:
    return lambda text: sum(any(letter in letters for letter in word.lower()) for word in _WORD.findall(text))


def _accented(text: str, relation: Compare, number: int) -> bool:
    return relation(_words_with("áéíóú")(text), number)


def _exactly_with(letter: str) -> Check:
    return lambda text, number: _words_with(letter)(text) == number


def _acrostic(text: str, word: str) -> bool:
    """Lines, in this order, begin with the word's syllables (`자: …` or `자연은 …`)."""
    starts = [line.lstrip(" \t*_#-'\"“‘([<")[:1] for line in text.split("\n")]
    waiting = list(word)
    for start in starts:
        if waiting and start == waiting[0]:
            waiting.pop(0)
    return not waiting


_POLITE = re.compile(r"(?:요|니다|니까|시오|죠|세요)$")


def _honorifics(text: str, direction: str) -> bool:
    """All sentences end politely (`honorific`), or none does."""
    ends = [re.sub(r"[^가-힣]+$", "", part) for part in re.split(r"[.!?\n]+", text)]
    polite = [bool(_POLITE.search(end)) for end in ends if end]
    return bool(polite) and (all(polite) if direction == "honorific" else not any(polite))


_SHARED = {
    "keywords:existence": _taking(_existence, "keywords"),
    "keywords:frequency": _taking(_frequency, "keyword", "frequency", "relation"),
    "keywords:forbidden_words": _taking(_no_forbidden, "forbidden_words"),
    "keywords:letter_frequency": _taking(_letter_frequency, "letter", "let_frequency", "let_relation"),
    "language:response_language": _taking(may_be_in, "language"),
    "length_constraints:number_sentences": _taking(_sentences, "relation", "num_sentences"),
    "length_constraints:number_paragraphs": _taking(_number_of_paragraphs, "num_paragraphs"),
    "length_constraints:number_words": _taking(_words, "relation", "num_words"),
    "length_constraints:nth_paragraph_first_word": _taking(
        _nth_paragraph, "num_paragraphs", "nth_paragraph", "first_word"
    ),
    "detectable_content:number_placeholders": _taking(_placeholders, "num_placeholders"),
    "detectable_content:postscript": _taking(_postscript, "postscript_marker"),
    "detectable_format:number_bullet_lists": _taking(_bullets, "num_bullets"),
    "detectable_format:number_highlighted_sections": _taking(_highlights, "num_highlights"),
    "detectable_format:multiple_sections": _taking(_multiple_sections, "section_spliter", "num_sections"),
    "detectable_format:json_format": _taking(_json),
    "detectable_format:title": _taking(_title),
    "combination:two_responses": _taking(_two_responses),
    "combination:repeat_prompt": _taking(_repeats, "prompt_to_repeat"),
    "startend:end_checker": _taking(_ends_with, "end_phrase"),
    "startend:quotation": _taking(_quoted),
    "change_case:capital_word_frequency": _taking(_capital_frequency, "capital_frequency", "capital_relation"),
    "punctuation:no_comma": _taking(_no_comma),
}

CONSTRAINTS: dict[str, Callable[[str, Mapping[str, Any]], Constraint]] = {
    **_SHARED,
    "detectable_format:constrained_response": _taking(_one_option),
    "change_case:english_capital": _taking(_capitals_in("en")),
    "change_case:english_lowercase": _taking(_lowercase_in("en")),
    **{f"es:{name}": maker for name, maker in _SHARED.items()},
    "es:length_constraints:number_sentences": _taking(_as_read, "relation", "num_sentences"),
    "es:detectable_format:constrained_response": _taking(_one_spanish_option),
    "es:change_case:spanish_capital": _taking(_capitals_in("es")),
    "es:change_case:spanish_lowercase": _taking(_lowercase_in("es")),
    "es:punctuation:question_marks": _taking(lambda text: "?" in text),
    "es:punctuation:exclamation_marks": _taking(lambda text: "!" in text),
    "es:special_character:tildes": _taking(_accented, "relation", "num_words"),
    "es:special_character:enie": _taking(_exactly_with("ñ"), "let_frequency"),
    "es:special_character:dieresis": _taking(_exactly_with("ü"), "let_frequency"),
    "Korean:acrostic_poem": _taking(_acrostic, "target_word"),
    "Korean:honorifics": _taking(_honorifics, "direction_to"),
    "Korean:numbers": _refusing("telling native from Sino-Korean numerals needs a parser of Korean"),
    "Korean:postposition_drop": _refusing("finding particles needs a parser of Korean"),
}
"""From an instruction's id to what makes its constraint from its arguments."""
