"""Math: signed sums, and stories about them, in three languages. The split goes by the sum, whatever the language."""

import random
import re

from data.tiny_domains.tasks import Task, ask, boxed

_ASKED = {
    "en": ("What is {sum}?", "Compute {sum}."),
    "ko": ("{sum} = 얼마입니까?", "계산하세요: {sum}"),
    "es": ("¿Cuánto es {sum}?", "Calcula {sum}."),
}
_STORIES = {
    "en": ("Ana has {start} apples.", " She gets {n} more.", " She eats {n}.", " How many are left?"),
    "ko": ("민수는 사과가 {start}개 있습니다.", " {n}개를 더 받습니다.", " {n}개를 먹습니다.", " 몇 개가 남습니까?"),
    "es": ("Ana tiene {start} manzanas.", " Recibe {n} más.", " Come {n}.", " ¿Cuántas quedan?"),
}
_WORKED = {
    "en": ("I start with {start}.", " Then {step}.", " The result is {total}."),
    "ko": ("{start}에서 시작합니다.", " 다음은 {step}.", " 결과는 {total}입니다."),
    "es": ("Empiezo con {start}.", " Luego {step}.", " El resultado es {total}."),
}
_ANSWER = {"en": "The answer is {}.", "ko": "답은 {}입니다.", "es": "La respuesta es {}."}
_MOST = 18


def draw_task(draw: random.Random, language: str) -> Task:
    """Draw a sum of two or three terms whose running total stays between 0 and 18."""
    start = draw.randint(1, 9)
    terms = _terms(draw, start)
    text = str(start) + "".join(f"{term:+d}" for term in terms)
    story = draw.random() < 0.4
    question = _story(start, terms, language) if story else draw.choice(_ASKED[language]).format(sum=text)
    worked, content, plain = in_language(text, language)
    return Task(
        task="story" if story else "sum",
        language=language,
        messages=ask(question),
        worked=worked,
        terse=" ".join(_steps(text)),
        content=content,
        plain=plain,
        columns={"answer": str(start + sum(terms))},
        key=text,
    )


def in_language(text: str, language: str) -> tuple[str, str, str]:
    """Return (thinking in sentences, answer after thinking, answer without) for a sum such as `3-2+5`."""
    steps = _steps(text)
    start, total = text[0], steps[-1].split("=")[1]
    first, then, last = _WORKED[language]
    worked = first.format(start=start) + "".join(then.format(step=step) for step in steps) + last.format(total=total)
    content = _ANSWER[language].format(boxed(total))
    return worked, content, " ".join([*steps, content])


def _steps(text: str) -> list[str]:
    """Return a sum's steps: of `3-2+5`, `3-2=1` and `1+5=6`."""
    start, *terms = re.findall(r"[+-]?\d+", text)
    steps, total = [], int(start)
    for term in terms:
        steps.append(f"{total}{term}={total + int(term)}")
        total += int(term)
    return steps


def _terms(draw: random.Random, total: int) -> list[int]:
    terms = []
    for _ in range(draw.randint(1, 2)):
        terms.append(draw.choice([term for term in range(-9, 10) if term and 0 <= total + term <= _MOST]))
        total += terms[-1]
    return terms


def _story(start: int, terms: list[int], language: str) -> str:
    first, more, less, last = _STORIES[language]
    return first.format(start=start) + "".join((more if n > 0 else less).format(n=abs(n)) for n in terms) + last
