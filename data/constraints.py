"""Generated prompts with verifiable constraints, in the manner of IFEval: a writing task and one to three constraints.

In English, Korean and Spanish, from a few dozen subjects and ten kinds of constraint; no subject of `test` is in
`train`. Enough to teach keeping to constraints, not to teach writing.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agapo.errors import UserError
from data.generating import UpTo, check_enough, checked, chosen, sized

Made = tuple[str, str, dict[str, Any]]
"""(the sentence that asks for it, the instruction's id, its arguments)."""

_SUBJECTS = {
    "en": [
        "the sea",
        "a train journey",
        "coffee",
        "winter",
        "a lost key",
        "music",
        "the moon",
        "bread",
        "bicycles",
        "rain",
        "books",
        "a garden",
    ],
    "ko": ["바다", "기차 여행", "커피", "겨울", "잃어버린 열쇠", "음악", "달", "빵", "자전거", "비", "책", "정원"],
    "es": [
        "el mar",
        "un viaje en tren",
        "el café",
        "el invierno",
        "una llave perdida",
        "la música",
        "la luna",
        "el pan",
        "las bicicletas",
        "la lluvia",
        "los libros",
        "un jardín",
    ],
}
_TASKS = {
    "en": ("Write a short text about {}.", "Tell me about {}.", "Describe {} to a child."),
    "ko": ("{}에 대한 짧은 글을 쓰세요.", "{}에 대해 알려 주세요.", "{}을(를) 아이에게 설명해 주세요."),
    "es": ("Escribe un texto breve sobre {}.", "Háblame de {}.", "Describe {} a un niño."),
}
_TEST_SUBJECTS = 3
"""The last so many subjects of each language are for testing."""
_MOST_DRAWS = 20_000
"""Draws without a new prompt before a language is taken for exhausted: few enough, and the number found is exact."""
_WORDS = {
    "en": ("light", "morning", "friend", "quiet"),
    "ko": ("아침", "친구", "마음", "하루"),
    "es": ("luz", "mañana", "amigo", "silencio"),
}
_SENTENCES = {
    "en": {
        "no_comma": "Use no commas.",
        "title": "Give it a title in double angle brackets, such as <<title>>.",
        "words": "Write at least {} words.",
        "few_words": "Write fewer than {} words.",
        "sentences": "Write at least {} sentences.",
        "bullets": "Include exactly {} bullet points, like this: * a point",
        "keyword": 'Include the word "{}".',
        "forbidden": 'Do not use the word "{}".',
        "end": 'End with exactly this phrase: "{}"',
        "quotation": "Put the whole answer in double quotation marks.",
        "phrase": "That is all.",
    },
    "ko": {
        "no_comma": "쉼표를 쓰지 마세요.",
        "title": "<<제목>>처럼 이중 꺾쇠 괄호로 묶은 제목을 붙이세요.",
        "words": "최소 {}단어로 쓰세요.",
        "few_words": "{}단어 미만으로 쓰세요.",
        "sentences": "최소 {}문장으로 쓰세요.",
        "bullets": "글머리 기호를 정확히 {}개 넣으세요. 예: * 항목",
        "keyword": "'{}'라는 단어를 넣으세요.",
        "forbidden": "'{}'라는 단어를 쓰지 마세요.",
        "end": "'{}'로 끝내세요.",
        "quotation": "답변 전체를 큰따옴표로 묶으세요.",
        "phrase": "이상입니다.",
    },
    "es": {
        "no_comma": "No uses comas.",
        "title": "Ponle un título entre dobles corchetes angulares, como <<título>>.",
        "words": "Escribe al menos {} palabras.",
        "few_words": "Escribe menos de {} palabras.",
        "sentences": "Escribe al menos {} frases.",
        "bullets": "Incluye exactamente {} puntos de lista, así: * un punto",
        "keyword": 'Incluye la palabra "{}".',
        "forbidden": 'No uses la palabra "{}".',
        "end": 'Termina con esta frase exacta: "{}"',
        "quotation": "Escribe toda la respuesta entre comillas dobles.",
        "phrase": "Eso es todo.",
    },
}


def prompts(
    split: str, *, size: int = UpTo(2000), seed: int = 0, languages: Sequence[str] = ("en", "ko", "es"), most: int = 3
) -> Iterator[dict[str, Any]]:
    """Yield prompts, each another, in turn in each of `languages`, with one to `most` constraints.

    Where a language runs out of new ones, the others take its place. Raises UserError where all did before a size that
    was asked for, and for an unknown language, and ValueError for an unknown split.
    """
    if not 1 <= most <= len(_MAKERS):
        raise UserError(f"data.args.most: is {most}; should be from 1 to {len(_MAKERS)}")
    return _rows(checked(split), sized(size), seed, chosen("languages", languages, tuple(_TASKS)), most)


def _rows(split: str, size: int, seed: int, languages: Sequence[str], most: int) -> Iterator[dict[str, Any]]:
    draw, seen, left = random.Random(f"constraints/{split}/{seed}"), set[str](), list(languages)
    while left and len(seen) < size:
        language = left[len(seen) % len(left)]
        drawn = (_row(draw, split, language, most) for _ in range(_MOST_DRAWS))
        row = next((row for row in drawn if row["messages"][0]["content"] not in seen), None)
        if row is None:
            left.remove(language)
            continue
        seen.add(row["messages"][0]["content"])
        yield row
    check_enough(len(seen), size, split, "raise data.args.most, or give more languages")


def _row(draw: random.Random, split: str, language: str, most: int) -> dict[str, Any]:
    subjects = _SUBJECTS[language]
    subject = draw.choice(subjects[-_TEST_SUBJECTS:] if split == "test" else subjects[:-_TEST_SUBJECTS])
    makers = draw.sample(_MAKERS, draw.randint(1, most))
    made = [make(draw, language) for make in makers]
    task = draw.choice(_TASKS[language]).format(subject)
    return {
        "messages": [{"role": "user", "content": " ".join([task, *(sentence for sentence, _, _ in made)])}],
        "domain": "instructions",
        "language": language,
        "instruction_id_list": [name for _, name, _ in made],
        "kwargs": [arguments for _, _, arguments in made],
    }


def _plain(key: str, name: str) -> Callable[[random.Random, str], Made]:
    return lambda draw, language: (_SENTENCES[language][key], name, {})


def _counted(
    key: str, name: str, argument: str, numbers: Sequence[int], **rest: Any
) -> Callable[[random.Random, str], Made]:
    def make(draw: random.Random, language: str) -> Made:
        number = draw.choice(numbers)
        return _SENTENCES[language][key].format(number), name, {argument: number, **rest}

    return make


def _word(key: str, name: str, argument: str) -> Callable[[random.Random, str], Made]:
    def make(draw: random.Random, language: str) -> Made:
        word = draw.choice(_WORDS[language])
        return _SENTENCES[language][key].format(word), name, {argument: [word]}

    return make


def _length(draw: random.Random, language: str) -> Made:
    """Many words or few: one maker, so that no prompt asks for both."""
    key, relation, numbers = draw.choice([("words", "at least", (20, 40, 60)), ("few_words", "less than", (30, 60))])
    number = draw.choice(numbers)
    arguments = {"relation": relation, "num_words": number}
    return _SENTENCES[language][key].format(number), "length_constraints:number_words", arguments


def _word_or_none(draw: random.Random, language: str) -> Made:
    key, name, argument = draw.choice(
        [("keyword", "keywords:existence", "keywords"), ("forbidden", "keywords:forbidden_words", "forbidden_words")]
    )
    return _word(key, name, argument)(draw, language)


def _ending(draw: random.Random, language: str) -> Made:
    phrase = _SENTENCES[language]["phrase"]
    return _SENTENCES[language]["end"].format(phrase), "startend:end_checker", {"end_phrase": phrase}


_MAKERS: Sequence[Callable[[random.Random, str], Made]] = (
    _plain("no_comma", "punctuation:no_comma"),
    _plain("title", "detectable_format:title"),
    _plain("quotation", "startend:quotation"),
    _length,
    _counted("sentences", "length_constraints:number_sentences", "num_sentences", (2, 3, 4), relation="at least"),
    _counted("bullets", "detectable_format:number_bullet_lists", "num_bullets", (2, 3, 4)),
    _word_or_none,
    _ending,
)
