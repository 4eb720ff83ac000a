"""Logic: three people in an order that two statements give, each statement in either direction, in any sequence."""

import random

from data.tiny_domains.tasks import Task, ask, boxed, gold_text, particle

_PEOPLE = {
    "en": ("Ana", "Ben", "Dora", "Emma", "Hugo", "Julia"),
    "ko": ("민수", "지우", "하준", "서연", "유나", "수빈"),
    "es": ("Ana", "Ben", "Dora", "Emma", "Hugo", "Julia"),
}
_RELATIONS = {
    "en": (
        ("{a} is older than {b}.", "{b} is younger than {a}.", "Who is the oldest?", "Who is the youngest?"),
        ("{a} is faster than {b}.", "{b} is slower than {a}.", "Who is the fastest?", "Who is the slowest?"),
    ),
    "ko": (
        (
            "{a} {b}보다 나이가 많습니다.",
            "{b} {a}보다 나이가 적습니다.",
            "누가 나이가 가장 많습니까?",
            "누가 나이가 가장 적습니까?",
        ),
        ("{a} {b}보다 빠릅니다.", "{b} {a}보다 느립니다.", "누가 가장 빠릅니까?", "누가 가장 느립니까?"),
    ),
    "es": (
        ("{a} es mayor que {b}.", "{b} es menor que {a}.", "¿Quién tiene más años?", "¿Quién tiene menos años?"),
        ("{a} corre más que {b}.", "{b} corre menos que {a}.", "¿Quién corre más?", "¿Quién corre menos?"),
    ),
}
"""Two statements of the same order, and the questions for its first and its last."""
_WORKED = {
    "en": "I put them in order. From first to last: {order}. So it is {answer}.",
    "ko": "순서대로 놓습니다. 처음부터 끝까지: {order}. 그래서 답은 {answer}.",
    "es": "Los pongo en orden. Del primero al último: {order}. Entonces es {answer}.",
}
_ANSWER = {"en": "The answer is {}.", "ko": "답은 {}입니다.", "es": "La respuesta es {}."}


def draw_task(draw: random.Random, language: str) -> Task:
    """Draw an order and ask for one of its ends."""
    people = draw.sample(_PEOPLE[language], 3)
    more, less, first, last = draw.choice(_RELATIONS[language])
    statements = [_state(draw, pair, more, less, language) for pair in (people[:2], people[1:])]
    draw.shuffle(statements)
    ask_first = draw.random() < 0.5
    answer = people[0] if ask_first else people[-1]
    order = " > ".join(people)
    return Task(
        task="order",
        language=language,
        messages=ask(" ".join([*statements, first if ask_first else last])),
        worked=_WORKED[language].format(order=order, answer=answer),
        terse=order,
        content=_ANSWER[language].format(boxed(answer)),
        columns=gold_text(answer),
    )


def _state(draw: random.Random, pair: list[str], more: str, less: str, language: str) -> str:
    is_more = draw.random() < 0.5
    a, b = pair
    if language == "ko":
        a, b = (particle(a, "은", "는"), b) if is_more else (a, particle(b, "은", "는"))
    return (more if is_more else less).format(a=a, b=b)
