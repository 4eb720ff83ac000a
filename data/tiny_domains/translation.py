"""Multilinguality: phrases and sentences to translate between English, Korean and Spanish.

Word order differs (red house, casa roja; the object before the verb in Korean), adjectives agree, particles follow the
last sound, so it takes more than a dictionary. Words are all in training; the split goes by their combination.
"""

import random

from data.tiny_domains.tasks import LANGUAGES, Task, ask, boxed, gold_text, particle

_ADJECTIVES = (
    ("red", "빨간", "rojo"),
    ("white", "하얀", "blanco"),
    ("black", "검은", "negro"),
    ("small", "작은", "pequeño"),
    ("old", "오래된", "viejo"),
    ("new", "새로운", "nuevo"),
    ("pretty", "예쁜", "bonito"),
    ("clean", "깨끗한", "limpio"),
)
_NOUNS = (
    ("house", "집", "casa f"),
    ("book", "책", "libro m"),
    ("table", "탁자", "mesa f"),
    ("car", "자동차", "coche m"),
    ("shirt", "셔츠", "camisa f"),
    ("boat", "배", "barco m"),
    ("door", "문", "puerta f"),
    ("hat", "모자", "sombrero m"),
    ("box", "상자", "caja f"),
    ("train", "기차", "tren m"),
    ("flower", "꽃", "flor f"),
    ("phone", "전화", "teléfono m"),
)
_SUBJECTS = (
    ("the boy", "소년", "el niño"),
    ("the girl", "소녀", "la niña"),
    ("the dog", "개", "el perro"),
    ("the cat", "고양이", "el gato"),
    ("my friend", "내 친구", "mi amigo"),
    ("the teacher", "선생님", "la maestra"),
)
_VERBS = (
    ("wants", "원합니다", "quiere"),
    ("sees", "봅니다", "ve"),
    ("buys", "삽니다", "compra"),
    ("eats", "먹습니다", "come"),
    ("likes", "좋아합니다", "prefiere"),
)
_OBJECTS = (
    ("bread", "빵", "pan"),
    ("fish", "생선", "pescado"),
    ("fruit", "과일", "fruta"),
    ("meat", "고기", "carne"),
    ("cheese", "치즈", "queso"),
    ("rice", "밥", "arroz"),
)
_TO = {
    "en": {"ko": "Korean", "es": "Spanish"},
    "ko": {"en": "영어", "es": "스페인어"},
    "es": {"en": "inglés", "ko": "coreano"},
}
_ASKED = {
    "en": ("Translate into {to}: {text}", "How do you say this in {to}: {text}"),
    "ko": ("{to}로 번역하세요: {text}", "{to}로 어떻게 말합니까: {text}"),
    "es": ("Traduce al {to}: {text}", "Cómo se dice en {to}: {text}"),
}
_WORKED = {
    "en": "I translate word by word: {words}. In the right order: {answer}.",
    "ko": "단어마다 번역합니다: {words}. 올바른 순서: {answer}.",
    "es": "Traduzco palabra por palabra: {words}. En el orden correcto: {answer}.",
}
_ANSWER = {"en": "In {to}: {}", "ko": "{to}: {}", "es": "En {to}: {}"}


def draw_task(draw: random.Random, language: str) -> Task:
    """Draw a phrase or a sentence in a language and translate it into one of the others."""
    target = draw.choice([other for other in LANGUAGES if other != language])
    is_phrase = draw.random() < 0.5
    tables = (_ADJECTIVES, _NOUNS) if is_phrase else (_SUBJECTS, _VERBS, _OBJECTS)
    words = [draw.choice(table) for table in tables]
    compose = _phrase if is_phrase else _sentence
    text, answer = compose(words, language), compose(words, target)
    source_at, target_at = LANGUAGES.index(language), LANGUAGES.index(target)
    pairs = ", ".join(f"{_bare(word[source_at])} = {_bare(word[target_at])}" for word in words)
    to = _TO[language][target]
    return Task(
        task="phrase" if is_phrase else "sentence",
        language=language,
        messages=ask(draw.choice(_ASKED[language]).format(to=to, text=text)),
        worked=_WORKED[language].format(words=pairs, answer=answer),
        terse=pairs,
        content=_ANSWER[language].format(boxed(answer), to=to),
        columns=gold_text(answer),
        key="/".join([language, target, *(word[0] for word in words)]),
    )


def _bare(word: str) -> str:
    """Spanish nouns carry their gender in the table."""
    return word.removesuffix(" f").removesuffix(" m")


def _phrase(words: list[tuple[str, str, str]], language: str) -> str:
    adjective, noun = (word[LANGUAGES.index(language)] for word in words)
    if language != "es":
        return f"{adjective} {noun}"
    noun, gender = noun.split(" ")
    return f"{noun} {adjective[:-1] + 'a' if gender == 'f' else adjective}"


def _sentence(words: list[tuple[str, str, str]], language: str) -> str:
    subject, verb, thing = (word[LANGUAGES.index(language)] for word in words)
    if language != "ko":
        return f"{subject} {verb} {thing}"
    return f"{particle(subject, '이', '가')} {particle(thing, '을', '를')} {verb}"
