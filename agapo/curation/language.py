"""Is a response in the language that its row says?

Only a sure no counts: enough letters, in sentences long enough to tell, most of them surely in another language. Code,
formulas, tables, quotations and short texts have no verdict, and neither have rows whose question is about another
language: one that it names ("in Korean"), or that a good part of it is in (a translation).

A language with a script of its own is known by it. The others are told by py3langid (naive Bayes over byte n-grams, a
fork of langid.py: Lui and Baldwin, ACL 2012), which is deterministic. `rewards.language` judges sampled responses, more
strictly and sentence by sentence; it is no part of the engine, so the engine has this smaller one of its own.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from agapo.curation.report import Finding, shorten
from agapo.curation.text import asked, code_and_prose, response

_SCRIPTS = {
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
    "THAI": "th",
    "HEBREW": "he",
    "GREEK": "el",
}
"""Scripts that tell the language."""
_SHARED = {
    "LATIN": ("en", "es", "fr", "de", "pt", "it", "nl", "pl", "vi", "id", "tr"),
    "CYRILLIC": ("ru", "uk", "bg"),
    "ARABIC": ("ar", "fa", "ur"),
    "DEVANAGARI": ("hi", "mr", "ne"),
}
LANGUAGES = frozenset({*_SCRIPTS.values(), *(code for codes in _SHARED.values() for code in codes)})
"""ISO 639-1 codes that can be told."""

_NAMES = {
    "ko": "korean|hangul|coreano|한국어|한글|국문",
    "en": "english|inglés|inglesa|영어|영문",
    "es": "spanish|español|castellano|스페인어",
    "ja": "japanese|japonés|일본어|일어",
    "zh": "chinese|mandarin|chino|중국어|한문|한자",
    "fr": "french|francés|프랑스어|불어",
    "de": "german|alemán|독일어",
    "it": "italian|italiano|이탈리아어",
    "pt": "portuguese|portugués|포르투갈어",
    "ru": "russian|ruso|러시아어",
    "": "latin|arabic|árabe|hindi|vietnamese|turkish|dutch|polish|greek|hebrew|thai|아랍어|베트남어|라틴어|"
    "translat|traduc|traduz|번역|통역|language|idioma|lengua|외국어|multilingual|loanword|단어",
}
"""How a question names a language, or speaks of one."""
_QUOTED = re.compile(r'"[^"\n]{1,300}"|“[^”\n]{1,300}”|«[^»\n]{1,300}»|「[^」\n]{1,300}」|\*[^*\n]{1,200}\*')
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")
_MOST = 6_000
"""Characters that are looked at, half from the start and half from the end."""
_SURE = 0.95
_TELLING_WORDS, _TELLING_LETTERS = 6, 25
_LEAST_LETTERS = 60
"""Letters in another language's sentences that make a verdict; of scripts with syllables, a third."""
_DENSE = frozenset({"ko", "ja", "zh"})
_OWN_SHARE, _TERMS_SHARE = 0.3, 0.1
"""A sentence with this share of its letters in a language's own script is in that language: terms come in Latin, and
where the language is the expected one, they may come in a sentence that is mostly terms."""


def language_mismatch(row: dict[str, Any], *, tolerated: float, thinking: str) -> Finding | None:
    """Return the language that the last turn is in where that is surely not the row's, or None."""
    wanted = row.get("language")
    if not isinstance(wanted, str) or wanted not in LANGUAGES:
        return None
    thought, answer = response(row)
    for name, text in (("answer", answer), ("thinking", thought if thinking == "same" else "")):
        if (found := foreign_language(text, wanted, tolerated)) and not _is_asked_for(found[0], row):
            return Finding(f"{name} in '{found[0]}', not '{wanted}'", shorten(found[1], 120))
    return None


def foreign_language(text: str, language: str, tolerated: float) -> tuple[str, str] | None:
    """Return (the code of the language that a text is in instead of `language`, a sentence of it), or None.

    None too where no more than the share `tolerated` of its letters is in foreign sentences, or too few are.
    """
    letters: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for sentence in _sentences(text):
        scripts = _script_counts(sentence)
        found = _language_of(sentence, scripts, language)
        letters[found] += sum(scripts.values())
        examples.setdefault(found, sentence)
    foreign = {code: count for code, count in letters.items() if code != language}
    most = max(foreign, key=lambda code: foreign[code], default="")
    least = _LEAST_LETTERS // 3 if most in _DENSE else _LEAST_LETTERS
    if sum(foreign.values()) > tolerated * letters.total() and foreign[most] >= least:
        return most, examples[most]
    return None


def _sentences(text: str) -> list[str]:
    prose = _QUOTED.sub(" ", code_and_prose(text)[1])
    if len(prose) > _MOST:
        prose = f"{prose[: _MOST // 2]}\n{prose[-_MOST // 2 :]}"
    return [match[0].strip() for match in _SENTENCE.finditer(prose)]


def _language_of(sentence: str, scripts: Counter[str], expected: str) -> str:
    """The language of a sentence where it is sure, else the expected one."""
    own = sum(count for name, count in scripts.items() if _SCRIPTS.get(name) == expected)
    script = _main_script(scripts)
    if own >= _TERMS_SHARE * scripts.total() and script in _SHARED:
        return expected  # its terms are in another script
    if script in _SCRIPTS:
        found = _SCRIPTS[script]
        return expected if (found, expected) == ("zh", "ja") else found
    if len(sentence.split()) < _TELLING_WORDS or scripts.total() < _TELLING_LETTERS or script not in _SHARED:
        return expected
    found, probability = _identifier(_SHARED[script]).classify(sentence.lower())
    # Beside a language with a script of its own, a sentence in another script is foreign, in whichever language it is.
    return found if probability >= _SURE or expected in _SCRIPTS.values() else expected


def _main_script(scripts: Counter[str]) -> str:
    """The script that decides: one that is a language's own from a share on, and kana over kanji."""
    if scripts["HIRAGANA"] + scripts["KATAKANA"] >= _OWN_SHARE / 3 * scripts.total() > 0:
        return "HIRAGANA"
    own = [name for name in _SCRIPTS if scripts[name] and scripts[name] >= _OWN_SHARE * scripts.total()]
    return max(own or scripts, key=lambda name: scripts[name], default="")


def _script_counts(text: str) -> Counter[str]:
    return Counter(script for script in map(_script, text) if script)


@lru_cache(maxsize=8192)
def _script(character: str) -> str | None:
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").split(" ")[0]
    return name if name in _SCRIPTS or name in _SHARED else "OTHER"


def _is_asked_for(language: str, row: dict[str, Any]) -> bool:
    """Whether the turns before, the system's too, name a language or are in the found one in good part."""
    before = "\n".join(
        [asked(row), *(str(turn.get("content")) for turn in row["messages"] if turn["role"] == "system")]
    )
    if re.search(f"{_NAMES.get(language) or '$^'}|{_NAMES['']}", before, re.IGNORECASE):
        return True
    return foreign_language(before, str(row["language"]), 0.1) is not None


@lru_cache
def _identifier(among: Sequence[str]) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # takes 0.3 s

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(among)
    return identifier
