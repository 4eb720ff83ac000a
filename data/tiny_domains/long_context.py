"""Long context: the password of a thing, somewhere among sentences about others, and, if wished, rival passwords.

Length and place of the needle vary systematically; the answer is in no other place, so a model whose attention ends
at a sliding window cannot know it when the needle lies further back.
"""

import random
from collections.abc import Iterator, Sequence

from agapo.errors import UserError
from data.generating import MOST_DRAWS
from data.tiny_domains.tasks import Task, ask, boxed

_THINGS = {
    "en": ["lamp", "door", "boat", "tree", "clock", "chair", "tower", "garden"],
    "ko": ["램프", "문", "배", "나무", "시계", "의자", "탑", "정원"],
    "es": ["lámpara", "puerta", "barco", "árbol", "reloj", "silla", "torre", "jardín"],
}
_SECRETS = {
    "en": ["river", "stone", "apple", "tiger", "cloud", "silver", "winter", "music"],
    "ko": ["강", "돌", "사과", "호랑이", "구름", "은", "겨울", "음악"],
    "es": ["río", "piedra", "manzana", "tigre", "nube", "plata", "invierno", "música"],
}
_FILLER = {
    "en": (
        ("The farmer", "The student", "The doctor", "The king"),
        ("sold", "saw", "found", "kept"),
        ("a letter today.", "the old map.", "some bread at home.", "two coins."),
    ),
    "ko": (
        ("농부는", "학생은", "의사는", "왕은"),
        ("오늘", "어제", "집에서", "혼자"),
        ("편지를 봤습니다.", "지도를 찾았습니다.", "빵을 팔았습니다.", "동전을 받았습니다."),
    ),
    "es": (
        ("El granjero", "El alumno", "El médico", "El rey"),
        ("vendió", "vio", "encontró", "guardó"),
        ("una carta hoy.", "el mapa viejo.", "pan en casa.", "dos monedas."),
    ),
}
_NEEDLE = {"en": "Password of {thing}: {secret}.", "ko": "{thing} 암호: {secret}.", "es": "Clave de {thing}: {secret}."}
_ASKED = {
    "en": "What is the password of {thing}?",
    "ko": "{thing} 암호는 무엇입니까?",
    "es": "¿Cuál es la clave de {thing}?",
}
_WORKED = {
    "en": "I look for {thing} in the text. It says: {needle} So it is {secret}.",
    "ko": "글에서 찾습니다: {thing}. 이렇게 나옵니다: {needle} 그래서 답은 {secret}.",
    "es": "Busco {thing} en el texto. Dice: {needle} Entonces es {secret}.",
}
_ANSWER = {
    "en": "The password of {thing} is {}.",
    "ko": "{thing} 암호는 {}입니다.",
    "es": "La clave de {thing} es {}.",
}


def draw_task(
    draw: random.Random, language: str, lengths: Sequence[int] = (64, 128, 256, 512), rivals: int = 0
) -> Task:
    """Draw a text about as long as one of `lengths` (words), the needle and `rivals` others anywhere in it."""
    return needle_task(draw, language, draw.choice(lengths), draw.random(), rivals)


def needle_task(draw: random.Random, language: str, length: int, position: float, rivals: int = 0) -> Task:
    """Draw a text of `length` words whose needle lies at `position`, 0 (start) to 1 (end)."""
    things = draw.sample(_THINGS[language], 1 + rivals)
    secrets = draw.sample(_SECRETS[language], 1 + rivals)
    needle, *others = (_NEEDLE[language].format(thing=t, secret=s) for t, s in zip(things, secrets, strict=True))
    sentences = _filler(draw, language, length - sum(len(text.split()) for text in (needle, *others)))
    for other in others:
        sentences.insert(draw.randint(0, len(sentences)), other)
    sentences.insert(round(position * len(sentences)), needle)
    text = " ".join(sentences)
    asked = _ASKED[language].format(thing=things[0])
    return Task(
        task="needle",
        language=language,
        messages=ask(f"{text}\n{asked}"),
        worked=_WORKED[language].format(thing=things[0], needle=needle, secret=secrets[0]),
        terse=needle,
        content=_ANSWER[language].format(boxed(secrets[0]), thing=things[0]),
        columns={
            "answer": secrets[0],
            "candidates": secrets,
            "context_length": len(text.split()),
            "position": position,
        },
    )


def _filler(draw: random.Random, language: str, words: int) -> list[str]:
    sentences = []
    while words > 0:
        sentences.append(" ".join(draw.choice(part) for part in _FILLER[language]))
        words -= len(sentences[-1].split())
    return sentences


def needle_tasks(
    split: str,
    lengths: Sequence[int],
    positions: Sequence[float],
    per_cell: int,
    seed: int,
    languages: Sequence[str],
    rivals: int,
) -> Iterator[tuple[str, Task]]:
    """Yield `per_cell` tasks for every length × position, languages in turn, each with a name."""
    for length in lengths:
        for position in positions:
            cell = f"{split}/{seed}/{length}/{position}"
            draw = random.Random(f"tiny_domains/needles/{cell}")
            for number in range(per_cell):
                task = _of_split(draw, languages[number % len(languages)], length, position, rivals, split)
                yield f"{cell}/{number}", task


def _of_split(draw: random.Random, language: str, length: int, position: float, rivals: int, split: str) -> Task:
    for _ in range(MOST_DRAWS):
        task = needle_task(draw, language, length, position, rivals)
        if task.is_test == (split == "test"):
            return task
    raise UserError(f"data.args.lengths: no text of {length} words in the split '{split}'; give others")
