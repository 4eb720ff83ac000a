"""English, Korean and Spanish: a public set by language, and a generator of culture, translation and numbers in words.

`public` reads `CohereForAI/aya_dataset` (Apache-2.0; `inputs`, `targets`, `language_code` of ISO 639-3), the rows of
the wanted languages. `dialogues` and `prompts` ask about customs, schools and trades where the languages are spoken,
translate sentences between them, and write numbers in words and back. A row's `language` is that of the response;
`rewards.science:score` judges the answers, `rewards.language:score` their language.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from data import files
from data.generated import culture, phrases
from data.generated.korean import with_particles
from data.generated.numerals import in_words
from data.generating import LANGUAGES, Item, Response, UpTo, chosen, dialogue_rows, prompt_rows

PUBLIC = "CohereForAI/aya_dataset"
_CODES = {"eng": "en", "kor": "ko", "spa": "es", "English": "en", "Korean": "ko", "Spanish": "es"}
KINDS = ("culture", "translation", "number_to_words", "words_to_number")


def public(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = PUBLIC,
    only_split: str = "",
    languages: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the public set's rows in some languages as rows for SFT.

    `path`, `name` and `only_split`: see `data.files.dialogues`. Rows that name no language are taken for the first of
    the wanted ones.
    """
    wanted = chosen("languages", languages, LANGUAGES)
    # Aya's column `language` holds names, which are no codes.
    columns = {"language_code": "_code", "language": "_name"}
    rows = files.dialogues(split, path=path, name=name, only_split=only_split, domain="multilingual", columns=columns)
    found = (_in_language(row, wanted[0]) for row in rows)
    return (row for row in found if row["language"] in wanted)


def _in_language(row: dict[str, Any], otherwise: str) -> dict[str, Any]:
    named = row.pop("_name", otherwise)
    code = row.pop("_code", named)
    return row | {"language": _CODES.get(code, code)}


def prompts(
    split: str,
    *,
    size: int = UpTo(400),
    seed: int = 0,
    languages: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield up to `size` different questions with their `answer`. Raises UserError for an unknown kind or language."""
    return prompt_rows("multilingual", _makers(languages, kinds), split, seed, size)


def dialogues(
    split: str,
    *,
    size: int = UpTo(4000),
    seed: int = 0,
    reasoning: float = 0.5,
    languages: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield up to `size` different answered questions; `reasoning` is the share that thinks."""
    return dialogue_rows("multilingual", _makers(languages, kinds), split, seed, size, reasoning)


def _makers(languages: Sequence[str] | None, kinds: Sequence[str] | None) -> dict[str, Callable[[Random], Item]]:
    return {
        f"{kind}/{language}": partial(_MAKERS[kind], language)
        for kind in chosen("kinds", kinds, KINDS)
        for language in chosen("languages", languages, LANGUAGES)
    }


def _item(task: str, language: str, question: str, answer: str, thinking: str, key: str, **columns: Any) -> Item:
    return Item(
        question=question,
        responses=(Response(answer, thinking),),
        domain="multilingual",
        task=task,
        language=language,
        columns={"answer": answer, **columns},
        key=key,
    )


_BRIEF = {"en": "Answer in a word or two.", "ko": "한두 단어로 답하세요.", "es": "Responde con una o dos palabras."}


def _culture(language: str, draw: Random) -> Item:
    about = culture.draw_question(language, draw)
    return _item("culture", language, f"{about.question} {_BRIEF[language]}", about.answer, about.thinking, about.key)


_TRANSLATE = {
    "en": "Translate into English: {}",
    "ko": "다음을 한국어로 번역하세요: {}",
    "es": "Traduce al español: {}",
}


def _translation(language: str, draw: Random) -> Item:
    """Into `language`, from one of the others; a sentence is in one split, whatever the direction."""
    sentence, source = phrases.draw_sentence(draw), draw.choice([code for code in LANGUAGES if code != language])
    question = _TRANSLATE[language].format(getattr(sentence.text, source))
    # In quotation marks, since words of the other language are no change of language.
    words = "; ".join(f"“{getattr(word, source)}”: {getattr(word, language)}" for word in sentence.words)
    return _item("translation", language, question, getattr(sentence.text, language), words, f"{sentence.text.en}")


_IN_WORDS = {
    "en": ("Write {} in English words.", "Write the number {} in figures."),
    "ko": ("{}을(를) 한글로 쓰세요.", "{}을(를) 숫자로 쓰세요."),
    "es": ("Escribe {} con palabras en español.", "Escribe el número {} con cifras."),
}


def _number(to_words: bool, language: str, draw: Random) -> Item:
    number = draw.randint(0, draw.choice((99, 999, 9999)))
    words = in_words(number, language)
    question = with_particles(_IN_WORDS[language][not to_words].format(number if to_words else words))
    parts = [part for part in (number // 1000 * 1000, number % 1000 // 100 * 100, number % 100) if part] or [0]
    split = " + ".join(f"{part} ({in_words(part, language)})" for part in parts)
    columns = {} if to_words else {"tolerance": 0.0}
    task = KINDS[2] if to_words else KINDS[3]
    answer = words if to_words else str(number)
    return _item(task, language, question, answer, f"{number} = {split}", f"{language} {number}", **columns)


_MAKERS: dict[str, Callable[[str, Random], Item]] = {
    "culture": _culture,
    "translation": _translation,
    "number_to_words": partial(_number, True),
    "words_to_number": partial(_number, False),
}
