"""World knowledge in English, Korean and Spanish: a public set of instruction chats, and a generator from tables.

`public` reads `HuggingFaceTB/smoltalk` (Apache-2.0; columns `messages` and `source`), or a local file in any layout of
`data.layouts`. `dialogues` and `prompts` ask about countries, elements, opposites, the calendar and units
(`data.facts`): single facts, answered at once, and questions of two facts, with a short derivation. The answers are
judged by `rewards.science:score`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from data import files
from data.generated.facts import CONTINENTS, COUNTRIES, ELEMENTS, MONTHS, OPPOSITES, UNITS, WEEKDAYS
from data.generated.korean import with_particles
from data.generating import LANGUAGES, Item, Response, UpTo, chosen, dialogue_rows, prompt_rows

PUBLIC = "HuggingFaceTB/smoltalk"


def public(
    split: str, *, path: str | Path | None = None, name: str = PUBLIC, config: str | None = "all", language: str = "en"
) -> Iterator[dict[str, Any]]:
    """Yield the chats of the public set as rows for SFT. `path`, `name` and `config`: see `data.files.dialogues`."""
    return files.dialogues(split, path=path, name=name, config=config, domain="world", language=language)


def prompts(
    split: str,
    *,
    size: int = UpTo(400),
    seed: int = 0,
    languages: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield up to `size` different questions with their `answer`. Raises UserError for an unknown kind or language."""
    return prompt_rows("world", _makers(languages, kinds), split, seed, size)


def dialogues(
    split: str,
    *,
    size: int = UpTo(4000),
    seed: int = 0,
    reasoning: float = 0.5,
    languages: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield up to `size` different answered questions; `reasoning` is the share of those of two facts that think."""
    return dialogue_rows("world", _makers(languages, kinds), split, seed, size, reasoning)


def _makers(languages: Sequence[str] | None, kinds: Sequence[str] | None) -> dict[str, Callable[[Random], Item]]:
    return {
        f"{kind}/{language}": partial(_item, kind, language)
        for kind in chosen("kinds", kinds, tuple(_DRAWS))
        for language in chosen("languages", languages, LANGUAGES)
    }


_BRIEF = {"en": "Answer briefly.", "ko": "짧게 답하세요.", "es": "Responde brevemente."}
_BOXED = {
    "en": "Put the final answer within \\boxed{}.",
    "ko": "최종 답은 \\boxed{} 안에 쓰세요.",
    "es": "Pon la respuesta final dentro de \\boxed{}.",
}


def _item(kind: str, language: str, draw: Random) -> Item:
    about = _DRAWS[kind](language, draw)
    question, sentence, thinking = _TEXTS[kind][language]
    brief = draw.random() < 0.5
    asked = with_particles(question.format(**about))
    said = about["answer"] if brief else with_particles(sentence.format(**about | {"answer": _box(about["answer"])}))
    thought = with_particles(thinking.format(**about)) if thinking else ""
    columns: dict[str, Any] = {"answer": about["answer"]}
    if about["answer"].isdigit():
        columns["tolerance"] = 0.0
    return Item(
        question=f"{asked} {(_BRIEF if brief else _BOXED)[language]}",
        responses=(Response(said, thought),),
        domain="world",
        task=kind,
        language=language,
        columns=columns,
        key=f"{language} {asked}",
    )


def _box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


# --- what is asked about: each draws the words of a question ---


def _capital(language: str, draw: Random) -> dict[str, str]:
    country = draw.choice(COUNTRIES)
    return {"country": getattr(country.name, language), "answer": getattr(country.capital, language)}


def _country(language: str, draw: Random) -> dict[str, str]:
    country = draw.choice(COUNTRIES)
    return {"capital": getattr(country.capital, language), "answer": getattr(country.name, language)}


def _symbol(language: str, draw: Random) -> dict[str, str]:
    # A single letter would be read as a choice's.
    element = draw.choice([element for element in ELEMENTS if len(element.symbol) == 2])
    return {"element": getattr(element.name, language), "answer": element.symbol}


def _opposite(language: str, draw: Random) -> dict[str, str]:
    word, other = draw.sample(draw.choice(OPPOSITES), 2)
    return {"word": getattr(word, language), "answer": getattr(other, language)}


def _continent(language: str, draw: Random) -> dict[str, str]:
    country = draw.choice(COUNTRIES)
    return {
        "capital": getattr(country.capital, language),
        "country": getattr(country.name, language),
        "answer": getattr(CONTINENTS[country.continent], language),
    }


def _protons(language: str, draw: Random) -> dict[str, str]:
    one, other = draw.sample(ELEMENTS, 2)
    return {
        "one": getattr(one.name, language),
        "other": getattr(other.name, language),
        "first": str(one.number),
        "second": str(other.number),
        "answer": str(one.number + other.number),
    }


def _heavier(language: str, draw: Random) -> dict[str, str]:
    about = _protons(language, draw)
    larger = int(about["first"]) > int(about["second"])
    sign = ">" if larger else "<"
    return about | {"sign": sign, "answer": about["one"] if larger else about["other"]}


def _weekday(language: str, draw: Random) -> dict[str, str]:
    start, days = draw.randrange(7), draw.randint(2, 200)
    return {
        "day": getattr(WEEKDAYS[start], language),
        "days": str(days),
        "weeks": str(days // 7),
        "rest": str(days % 7),
        "answer": getattr(WEEKDAYS[(start + days) % 7], language),
    }


def _month(language: str, draw: Random) -> dict[str, str]:
    start, months = draw.randrange(12), draw.randint(2, 60)
    return {
        "month": getattr(MONTHS[start], language),
        "months": str(months),
        "years": str(months // 12),
        "rest": str(months % 12),
        "answer": getattr(MONTHS[(start + months) % 12], language),
    }


def _unit(language: str, draw: Random) -> dict[str, str]:
    (large, small, factor), number = draw.choice(UNITS), draw.randint(2, 99)
    return {
        "large": getattr(large, language),
        "small": getattr(small, language),
        "factor": str(factor),
        "number": str(number),
        "answer": str(number * factor),
    }


_DRAWS: Mapping[str, Callable[[str, Random], dict[str, str]]] = {
    "capital": _capital,
    "country": _country,
    "symbol": _symbol,
    "opposite": _opposite,
    "continent": _continent,
    "protons": _protons,
    "heavier": _heavier,
    "weekday": _weekday,
    "month": _month,
    "unit": _unit,
}

_TEXTS: Mapping[str, Mapping[str, tuple[str, str, str]]] = {
    "capital": {
        "en": ("What is the capital of {country}?", "The capital of {country} is {answer}.", ""),
        "ko": ("{country}의 수도는 어디인가요?", "{country}의 수도는 {answer}입니다.", ""),
        "es": ("¿Cuál es la capital de {country}?", "La capital de {country} es {answer}.", ""),
    },
    "country": {
        "en": ("Which country has {capital} as its capital?", "{capital} is the capital of {answer}.", ""),
        "ko": ("{capital}을(를) 수도로 하는 나라는 어디인가요?", "{capital}은(는) {answer}의 수도입니다.", ""),
        "es": ("¿Qué país tiene por capital {capital}?", "{capital} es la capital de {answer}.", ""),
    },
    "symbol": {
        "en": ("What is the chemical symbol of {element}?", "The symbol of {element} is {answer}.", ""),
        "ko": ("{element}의 원소 기호는 무엇인가요?", "{element}의 원소 기호는 {answer}입니다.", ""),
        "es": ("¿Cuál es el símbolo químico del elemento {element}?", "El símbolo de {element} es {answer}.", ""),
    },
    "opposite": {
        "en": ('What is the opposite of "{word}"?', 'The opposite of "{word}" is {answer}.', ""),
        "ko": ("'{word}'의 반대말은 무엇인가요?", "'{word}'의 반대말은 {answer}입니다.", ""),
        "es": ("¿Qué palabra es lo contrario de «{word}»?", "Lo contrario de «{word}» es {answer}.", ""),
    },
    "continent": {
        "en": (
            "On which continent is the country whose capital is {capital}?",
            "{capital} is the capital of {country}, which is in {answer}.",
            "{capital} is the capital of {country}. {country} is in {answer}.",
        ),
        "ko": (
            "{capital}이(가) 수도인 나라는 어느 대륙에 있나요?",
            "{capital}은(는) {country}의 수도이고, {country}은(는) {answer}에 있습니다.",
            "{capital}은(는) {country}의 수도이다. {country}은(는) {answer}에 있다.",
        ),
        "es": (
            "¿En qué continente está el país cuya capital es {capital}?",
            "{capital} es la capital de {country}, que está en {answer}.",
            "{capital} es la capital de {country}. {country} está en {answer}.",
        ),
    },
    "protons": {
        "en": (
            "How many protons do an atom of {one} and an atom of {other} have together?",
            "Together they have {answer} protons.",
            "The atomic number of {one} is {first}, that of {other} is {second}. {first} + {second} = {answer}.",
        ),
        "ko": (
            "{one} 원자 하나와 {other} 원자 하나의 양성자 수를 더하면 몇 개인가요?",
            "양성자는 모두 {answer}개입니다.",
            "{one}의 원자 번호는 {first}, {other}의 원자 번호는 {second}이다. {first} + {second} = {answer}.",
        ),
        "es": (
            "¿Cuántos protones tienen juntos un átomo de {one} y un átomo de {other}?",
            "Juntos tienen {answer} protones.",
            "El número atómico de {one} es {first}; el de {other}, {second}. {first} + {second} = {answer}.",
        ),
    },
    "heavier": {
        "en": (
            "Which element has the higher atomic number, {one} or {other}?",
            "The higher atomic number is that of {answer}.",
            "{one} has {first}, {other} has {second}. {first} {sign} {second}, so it is {answer}.",
        ),
        "ko": (
            "{one}와(과) {other} 중 원자 번호가 더 큰 원소는 무엇인가요?",
            "원자 번호가 더 큰 원소는 {answer}입니다.",
            "{one}은(는) {first}번, {other}은(는) {second}번이다. {first} {sign} {second}이므로 {answer}이다.",
        ),
        "es": (
            "¿Qué elemento tiene mayor número atómico, {one} o {other}?",
            "El de mayor número atómico es {answer}.",
            "{one} tiene {first} y {other} tiene {second}. {first} {sign} {second}, así que es {answer}.",
        ),
    },
    "weekday": {
        "en": (
            "Today is {day}. What day of the week will it be in {days} days?",
            "In {days} days it will be {answer}.",
            "{days} = 7 * {weeks} + {rest}. Counting {rest} on from {day} gives {answer}.",
        ),
        "ko": (
            "오늘은 {day}입니다. {days}일 뒤는 무슨 요일인가요?",
            "{days}일 뒤는 {answer}입니다.",
            "{days} = 7 * {weeks} + {rest}. {day}에서 {rest}일을 더 세면 {answer}이다.",
        ),
        "es": (
            "Hoy es {day}. ¿Qué día de la semana será dentro de {days} días?",
            "Dentro de {days} días será {answer}.",
            "{days} = 7 * {weeks} + {rest}. Contando {rest} desde el {day} se llega a {answer}.",
        ),
    },
    "month": {
        "en": (
            "It is {month}. Which month will it be in {months} months?",
            "In {months} months it will be {answer}.",
            "{months} = 12 * {years} + {rest}. Counting {rest} on from {month} gives {answer}.",
        ),
        "ko": (
            "지금은 {month}입니다. {months}개월 뒤는 몇 월인가요?",
            "{months}개월 뒤는 {answer}입니다.",
            "{months} = 12 * {years} + {rest}. {month}에서 {rest}개월을 더 세면 {answer}이다.",
        ),
        "es": (
            "Estamos en {month}. ¿Qué mes será dentro de {months} meses?",
            "Dentro de {months} meses será {answer}.",
            "{months} = 12 * {years} + {rest}. Contando {rest} desde {month} se llega a {answer}.",
        ),
    },
    "unit": {
        "en": (
            "How many {small} are {number} {large}?",
            "{number} {large} are {answer} {small}.",
            "The factor from {large} to {small} is {factor}. {number} * {factor} = {answer}.",
        ),
        "ko": (
            "{number}{large}은(는) 몇 {small}인가요?",
            "{number}{large}은(는) {answer}{small}입니다.",
            "1{large}은(는) {factor}{small}이다. {number} * {factor} = {answer}.",
        ),
        "es": (
            "¿Cuántos {small} son {number} {large}?",
            "{number} {large} son {answer} {small}.",
            "El factor de {large} a {small} es {factor}. {number} * {factor} = {answer}.",
        ),
    },
}
"""By kind and language: (question, the answer in a sentence, the thinking; empty for single facts)."""
