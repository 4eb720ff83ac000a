"""Does the response keep to the language of the prompt?

Thinking and answer are judged apart, sentence by sentence, so that a change of language in mid-text is noticed. Left
out of the judgement: code, formulas, links, quotations, and sentences too short to tell, since names and terms are no
change of language. Languages with a script of their own are known by it; the others by py3langid (naive Bayes over byte
n-grams, a fork of langid.py: Lui and Baldwin, ACL 2012), which is deterministic.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agapo.chat import Completion, completion_text, split_thinking
from agapo.schema import Mode

_SCRIPTS = {
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
    "THAI": "th",
    "HEBREW": "he",
    "GREEK": "el",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "MALAYALAM": "ml",
}
"""Scripts that tell the language; Latin, Cyrillic, Arabic and Devanagari do not."""
_SHARED = {
    "LATIN": ("en", "es", "fr", "de", "pt", "it", "nl", "fi", "pl", "vi", "sw"),
    "CYRILLIC": ("ru", "uk", "bg"),
    "ARABIC": ("ar", "fa", "ur"),
    "DEVANAGARI": ("hi", "mr", "ne"),
}
LANGUAGES = frozenset({*_SCRIPTS.values(), *(code for codes in _SHARED.values() for code in codes)})
"""ISO 639-1 codes that can be told."""

_NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)"
    r"|`[^`\n]*`"
    r"|\$\$.*?\$\$|\$[^$\n]{1,500}\$|\\\[.*?\\\]|\\\(.*?\\\)"
    r"|\\[a-zA-Z]+(?:\{[^{}\n]*\})?"
    r"|https?://\S+|\S{1,64}@\S+"
    r"|<[^<>\n]{1,200}>"
    r'|"[^"\n]{1,300}"|“[^”\n]{1,300}”|«[^»\n]{1,300}»|\'\'[^\'\n]{1,300}\'\'',
    re.DOTALL,
)
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")
_MOST = 20_000
"""Characters that are looked at, half from the start and half from the end."""
_SURE = 0.9
_OWN_SHARE = 0.3
"""A sentence with this share of its letters in a language's own script is in that language: terms come in Latin."""


@dataclass(frozen=True)
class Telling:
    """What it takes to tell a sentence's language."""

    words: int = 5
    letters: int = 20
    among: tuple[str, ...] = ()
    """The languages there are; empty means all in `LANGUAGES`. Among few, shorter sentences can be told."""


def score(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    language: Sequence[str | None] | None = None,
    mode: Sequence[Mode | None] | None = None,
    *,
    thinking: str = "same",
    tolerated: float = 0.1,
    among: Sequence[str] = (),
    telling_words: int = 5,
    telling_letters: int = 20,
    **columns: Any,
) -> list[float | None]:
    """Return 1.0 where the response is in the prompt's language, 0.0 where not, None where that language is not known.

    The prompt's language is the column `language`, else that of its last user turn. `thinking` is `same`, `any`, or the
    code of the language to think in. `tolerated` is the share of letters, from 0 to 1, that may be in another one. A
    response without prose (a number, a formula, code) breaks nothing.

    Sentences in a script that several languages share count from `telling_words` and `telling_letters` on; where the
    languages are few and named in `among`, fewer will do.
    """
    telling = Telling(telling_words, telling_letters, tuple(among))
    languages = language or [None] * len(completions)
    modes = mode or [None] * len(completions)
    samples = zip(prompts, completions, languages, modes, strict=True)
    return [_score(*sample, thinking=thinking, tolerated=tolerated, telling=telling) for sample in samples]


def _score(
    prompt: Any,
    completion: Completion,
    language: str | None,
    mode: Mode | None,
    *,
    thinking: str,
    tolerated: float,
    telling: Telling,
) -> float | None:
    wanted = language or detect(_question(prompt))
    if wanted not in LANGUAGES:
        return None
    thought, answer = split_thinking(completion_text(completion), mode)
    assert wanted
    pairs = [(answer, wanted), (None if thinking == "any" else thought, wanted if thinking == "same" else thinking)]
    return float(all(foreign_share(text, code, telling) <= tolerated for text, code in pairs if text))


def _question(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    turns = [turn.get("content") for turn in prompt or () if turn.get("role") == "user"]
    return str(turns[-1] or "") if turns else ""


def foreign_share(text: str, language: str, telling: Telling = Telling()) -> float:
    """Return the share of a text's letters, 0 to 1, in sentences that are surely in another language."""
    foreign = own = 0
    for sentence in _sentences(_prose(text)):
        letters = sum(character.isalpha() for character in sentence)
        if _is_foreign(sentence, language, telling):
            foreign += letters
        else:
            own += letters
    return foreign / (foreign + own) if foreign else 0.0


def detect(text: str) -> str | None:
    """Return the ISO 639-1 code of the language that most of a text is in; None where there is too little to tell."""
    prose = _prose(text)
    scripts = _script_counts(prose)
    if not scripts:
        return None
    script = _main_script(scripts)
    if script in _SCRIPTS:
        return _SCRIPTS[script]
    return _classify(prose, _SHARED[script])[0] if script in _SHARED else None


_ENGLISH = "the and is are were of to for with that this it you my they from have has be your our what"
_NOT_ENGLISH = """
    el los las una unos y que por para con del su como pero muy soy estoy yo te tu si en bien muchas gracias le les des
    et est une dans pour qui avec sur je vous nous au du der das und ist ein eine nicht ich sie mit auf wir il lo gli
    che della sono os um uma em eu het een van ik niet voor och det som jag ja nie jest la de se
"""
"""Words that name nothing: they tell the language of a short text better than its letters do."""
_LATIN = """
    en es fr de pt it nl fi pl vi sw af br bs ca cs cy da eo et eu ga gl hr ht hu id is la lb lt lv mg ms mt nn no oc ro
    sk sl sq sv tl tr wa xh zu
"""
_LINK = re.compile(r"https?://\S+|\S{1,64}@\S+")
_SHORT = 8
"""Words below which a language is hardly ever sure."""


def may_be_in(text: str, language: str) -> bool:
    """Return whether a text can be taken for one in `language`, quotations and all.

    It is where that language is the likeliest, or the text too short to tell: names and loanwords make an English line
    look Italian. A text without letters is in none.
    """
    plain = _LINK.sub(" ", text[:_MOST])
    scripts = _script_counts(plain)
    script = _main_script(scripts) if scripts else ""
    if script in _SCRIPTS:
        few = sum(scripts.values()) <= _SHORT
        return _SCRIPTS[script] == language or (language == "ja" and _SCRIPTS[script] == "zh" and few)
    if language not in _SHARED.get(script, ()):
        return False
    among = tuple(_LATIN.split()) if language == "en" else _SHARED[script]
    ranked = dict(_identifier(among).rank(plain.lower()))
    likeliest = max(ranked, key=lambda code: ranked[code])
    return likeliest == language or _may_seem(plain, language, ranked[language] / ranked[likeliest])


def _may_seem(text: str, language: str, likelihood: float) -> bool:
    """`likelihood` is the language's, as a share of the likeliest one's."""
    words = re.findall(r"\w+", text.lower())
    few, own, others = len(words) < _SHORT, *(_count(words, known) for known in (_ENGLISH, _NOT_ENGLISH))
    if language != "en":
        return few and likelihood >= 0.3 and (others > 0 or own == 0)
    marked = any(letter.isalpha() and not letter.isascii() for letter in text)
    return likelihood >= (0.015 if few and not marked else 0.1) and others <= own and not re.search("[¿¡]", text)


def _count(words: Sequence[str], known: str) -> int:
    return sum(word in known.split() for word in words)


def _is_foreign(sentence: str, language: str, telling: Telling) -> bool:
    scripts = _script_counts(sentence)
    letters = sum(scripts.values())
    if letters < telling.letters // 4:
        return False
    script = _main_script(scripts)
    if script in _SCRIPTS:  # a few characters of such a script are a telling sentence
        return _SCRIPTS[script] != language and not (language == "ja" and _SCRIPTS[script] == "zh")
    if len(sentence.split()) < telling.words or letters < telling.letters:
        return False
    candidates = [code for code in _SHARED.get(script, ()) if not telling.among or code in telling.among]
    found, probability = _classify(sentence, candidates)
    return found is not None and found != language and probability >= _SURE


def _prose(text: str) -> str:
    if len(text) > _MOST:
        text = f"{text[: _MOST // 2]}\n{text[-_MOST // 2 :]}"
    return _NOT_PROSE.sub(" ", text)


def _sentences(text: str) -> list[str]:
    return [match[0].strip() for match in _SENTENCE.finditer(text)]


def _script_counts(text: str) -> Counter[str]:
    return Counter(script for script in map(_script, text) if script)


def _main_script(scripts: Counter[str]) -> str:
    """The script that decides: one that is a language's own wins from a share on, kana over kanji."""
    letters = sum(scripts.values())
    for script in ("HIRAGANA", "KATAKANA", *_SCRIPTS):
        share = sum(scripts[name] for name in _SCRIPTS if _SCRIPTS[name] == _SCRIPTS[script])
        if scripts[script] and (share >= _OWN_SHARE * letters or (_SCRIPTS[script] == "ja" and scripts["CJK"])):
            return script
    return scripts.most_common(1)[0][0]


@lru_cache(maxsize=8192)
def _script(character: str) -> str | None:
    # The vowels of many scripts are marks on letters.
    is_mark = unicodedata.category(character).startswith("M")
    if not (character.isalpha() or is_mark):
        return None
    name = unicodedata.name(character, "").split(" ")[0]
    return name if name in _SCRIPTS or name in _SHARED else None if is_mark else "OTHER"


def _classify(text: str, among: Sequence[str]) -> tuple[str | None, float]:
    """Return (code, probability) among some languages of one script."""
    if not among:
        return None, 0.0
    return _identifier(tuple(among)).classify(text.lower())


@lru_cache
def _identifier(among: tuple[str, ...]) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # takes 0.3 s

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(among)
    return identifier
