"""Logic: statements with and, or, not that are true or false, evaluated from left to right, in three languages."""

import random

from data.tiny_domains.tasks import Task, ask, boxed, gold_text

_WORDS = {
    "en": ("false", "true", "and", "or", "not"),
    "ko": ("거짓", "참", "그리고", "또는", "아님"),
    "es": ("falso", "verdadero", "y", "o", "no"),
}
_ASKED = {
    "en": ("From left to right, what is this: {text}?", "Is this true or false: {text}?"),
    "ko": ("왼쪽부터 계산하면 무엇입니까: {text}?", "참입니까 거짓입니까: {text}?"),
    "es": ("De izquierda a derecha, ¿qué es esto: {text}?", "¿Es verdadero o falso: {text}?"),
}
_WORKED = {
    "en": ("I start with {start}.", " Then {step}.", " The result is {value}."),
    "ko": ("{start}에서 시작합니다.", " 다음은 {step}.", " 결과: {value}."),
    "es": ("Empiezo con {start}.", " Luego {step}.", " El resultado es {value}."),
}
_ANSWER = {"en": "It is {}.", "ko": "답은 {}입니다.", "es": "Es {}."}
_MOST = 3
"""Connectives."""


def draw_task(draw: random.Random, language: str) -> Task:
    """Draw a statement of one to three connectives."""
    *truth, and_, or_, not_ = _WORDS[language]
    value = draw.random() < 0.5
    text, steps, start = truth[value], [], truth[value]
    for _ in range(draw.randint(1, _MOST)):
        is_and, right, negated = draw.random() < 0.5, draw.random() < 0.5, draw.random() < 0.25
        part = f"{and_ if is_and else or_} {not_ + ' ' if negated else ''}{truth[right]}"
        operand = right != negated
        result = (value and operand) if is_and else (value or operand)
        steps.append(f"{truth[value]} {part} = {truth[result]}")
        text, value = f"{text} {part}", result
    first, then, last = _WORKED[language]
    worked = first.format(start=start) + "".join(then.format(step=step) for step in steps)
    return Task(
        task="statement",
        language=language,
        messages=ask(draw.choice(_ASKED[language]).format(text=text)),
        worked=worked + last.format(value=truth[value]),
        terse="; ".join(steps),
        content=_ANSWER[language].format(boxed(truth[value])),
        columns=gold_text(truth[value]),
        key=f"{language}: {text}",
    )
