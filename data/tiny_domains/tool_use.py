"""Agentic tool use: dialogues of several turns and steps, with tool results, and errors to recover from.

    single      question → call → result → answer
    chain       question → call → result → a second call that needs it → result → answer
    error       question → call → an error that says what would work → the call again, mended → result → answer
    follow_up   a single one, then "And in Oslo?" → call with the other place
    none        no tool fits: an answer without a call

Every turn of the assistant is something to train on and to be asked: a task is a dialogue cut before one of them.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.tiny_domains.tasks import Task, boxed

_CITIES = {
    "en": ("Paris", "Madrid", "Rome", "Berlin", "Seoul", "Tokyo", "Lima", "Oslo"),
    "ko": ("파리", "마드리드", "로마", "베를린", "서울", "도쿄", "리마", "오슬로"),
    "es": ("París", "Madrid", "Roma", "Berlín", "Seúl", "Tokio", "Lima", "Oslo"),
}
_SKIES = {
    "en": ("sun", "rain", "snow", "wind"),
    "ko": ("맑음", "비", "눈", "바람"),
    "es": ("sol", "lluvia", "nieve", "viento"),
}


@dataclass(frozen=True)
class _Words:
    """What is said in a language. {c} is a city, {h} an hour."""

    weather: str
    sunrise: str
    alarm: str
    chain: str
    again: str
    error: str
    is_weather: str
    is_sunrise: str
    is_alarm: str
    no_tool: str
    think_call: str
    think_answer: str
    think_error: str
    think_none: str


_SAID = {
    "en": _Words(
        weather="What is the weather in {c}?",
        sunrise="When does the sun rise in {c}?",
        alarm="Set an alarm for {h}.",
        chain="Set an alarm for sunrise in {c}.",
        again="And in {c}?",
        error="error: unknown city, use {c}",
        is_weather="The weather in {c} is {v}.",
        is_sunrise="The sun rises in {c} at {v}.",
        is_alarm="The alarm is set for {v}.",
        no_tool="I have no tool for that.",
        think_call="I need the tool {tool}. I call it with {value}.",
        think_answer="The result is {value}. I can answer now.",
        think_error="The call failed. The error says what to use. I try again with {value}.",
        think_none="No tool fits this question.",
    ),
    "ko": _Words(
        weather="{c} 날씨가 어떻습니까?",
        sunrise="{c} 해는 언제 뜹니까?",
        alarm="{h}시에 알람을 맞추세요.",
        chain="{c} 해 뜨는 시각에 알람을 맞추세요.",
        again="{c} 경우는?",
        error="오류: 모르는 도시, 대신 {c}",
        is_weather="{c} 날씨는 {v}입니다.",
        is_sunrise="{c} 해는 {v}시에 뜹니다.",
        is_alarm="알람을 {v}시에 맞췄습니다.",
        no_tool="맞는 도구가 없습니다.",
        think_call="필요한 도구: {tool}. 이 값으로 호출합니다: {value}.",
        think_answer="결과: {value}. 이제 답할 수 있습니다.",
        think_error="호출이 실패했습니다. 오류에 방법이 있습니다. 다시 호출합니다: {value}.",
        think_none="이 질문에 맞는 도구가 없습니다.",
    ),
    "es": _Words(
        weather="¿Qué tiempo hace en {c}?",
        sunrise="¿Cuándo sale el sol en {c}?",
        alarm="Pon una alarma a las {h}.",
        chain="Pon una alarma al salir el sol en {c}.",
        again="¿Y en {c}?",
        error="error: ciudad desconocida, usa {c}",
        is_weather="El tiempo en {c} es: {v}.",
        is_sunrise="El sol sale en {c} a las {v}.",
        is_alarm="La alarma está puesta a las {v}.",
        no_tool="No tengo ninguna herramienta para eso.",
        think_call="Necesito la herramienta {tool}. La llamo con {value}.",
        think_answer="El resultado es {value}. Ya puedo responder.",
        think_error="La llamada falló. El error dice qué usar. Lo intento otra vez con {value}.",
        think_none="Ninguna herramienta sirve para esta pregunta.",
    ),
}


def _function(name: str, argument: str, kind: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {argument: {"type": kind}}, "required": [argument]}
    return {"name": name, "parameters": parameters}


FUNCTIONS = {
    "weather": _function("weather", "city", "string"),
    "sunrise": _function("sunrise", "city", "string"),
    "alarm": _function("alarm", "hour", "integer"),
}


class _Dialogue:
    """A dialogue as it grows: the messages, and the two ways of thinking before each turn of the assistant."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.thinking: dict[int, tuple[str, str]] = {}
        """By the turn's place: in sentences, and terse."""

    def user(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def tool(self, text: str) -> None:
        self.messages.append({"role": "tool", "content": text})

    def call(self, name: str, value: object, worked: str) -> None:
        argument = next(iter(FUNCTIONS[name]["parameters"]["properties"]))
        self.thinking[len(self.messages)] = worked.format(tool=name, value=value), f"{name}: {value}"
        self.messages.append(
            {"role": "assistant", "content": "", "tool_calls": [{"name": name, "arguments": {argument: value}}]}
        )

    def answer(self, text: str, worked: str, terse: str) -> None:
        self.thinking[len(self.messages)] = worked, terse
        self.messages.append({"role": "assistant", "content": text})


def draw_task(draw: random.Random, language: str) -> Task:
    """Draw a dialogue and cut it before one of the assistant's turns."""
    scenario = draw.choices(list(_SCENARIOS), weights=[make[0] for make in _SCENARIOS.values()])[0]
    dialogue = _Dialogue()
    needed = _SCENARIOS[scenario][1](dialogue, draw, language)
    tools = _tools(draw, needed, fits=scenario != "none")
    # A dialogue's first call is the same in all scenarios: later turns are drawn twice as often.
    turns = list(dialogue.thinking)
    turn = draw.choices(turns, weights=[1, *[2] * (len(turns) - 1)])[0]
    return _task(dialogue, turn, language, tools, scenario)


def _task(dialogue: _Dialogue, turn: int, language: str, tools: list[str], scenario: str) -> Task:
    message = dialogue.messages[turn]
    calls = message.get("tool_calls", [])
    worked, terse = dialogue.thinking[turn]
    functions = [FUNCTIONS[name] for name in tools]
    truth = [{call["name"]: {key: [value] for key, value in call["arguments"].items()}} for call in calls]
    place = "call" if calls else "answer"
    first = turn == 1
    return Task(
        task=f"{scenario}/{'first_' if first else ''}{place}",
        language=language,
        messages=dialogue.messages[:turn],
        worked=worked,
        terse=terse,
        content=message["content"],
        tool_calls=calls,
        tools=[{"type": "function", "function": function} for function in functions],
        columns={"function": functions, "ground_truth": truth},
    )


def _tools(draw: random.Random, needed: Sequence[str], *, fits: bool) -> list[str]:
    """Two tools, those needed among them, or, where none should fit, all but those."""
    others = [name for name in FUNCTIONS if name not in needed]
    tools = [*needed, draw.choice(others)][:2] if fits else draw.sample(others, draw.randint(1, 2))
    draw.shuffle(tools)
    return tools


def _lookup(dialogue: _Dialogue, draw: random.Random, language: str, city: str, name: str, asked: str) -> str:
    """A question about a city, the call, the result and the answer; return the tool's value."""
    words = _SAID[language]
    dialogue.user(asked.format(c=city))
    dialogue.call(name, city, words.think_call)
    return _result(dialogue, draw, language, city, name)


def _result(dialogue: _Dialogue, draw: random.Random, language: str, city: str, name: str) -> str:
    words = _SAID[language]
    value = draw.choice(_SKIES[language]) if name == "weather" else str(draw.randint(4, 9))
    dialogue.tool(value)
    text = words.is_weather if name == "weather" else words.is_sunrise
    dialogue.answer(text.format(c=city, v=boxed(value)), words.think_answer.format(value=value), value)
    return value


def _single(dialogue: _Dialogue, draw: random.Random, language: str) -> list[str]:
    if draw.random() < 0.4:
        return _alarm(dialogue, draw, language)
    name = draw.choice(("weather", "sunrise"))
    _lookup(dialogue, draw, language, draw.choice(_CITIES[language]), name, getattr(_SAID[language], name))
    return [name]


def _alarm(dialogue: _Dialogue, draw: random.Random, language: str) -> list[str]:
    words, hour = _SAID[language], draw.randint(1, 23)
    dialogue.user(words.alarm.format(h=hour))
    _set(dialogue, words, hour)
    return ["alarm"]


def _set(dialogue: _Dialogue, words: _Words, hour: int) -> None:
    dialogue.call("alarm", hour, words.think_call)
    dialogue.tool("ok")
    dialogue.answer(words.is_alarm.format(v=boxed(hour)), words.think_answer.format(value="ok"), "ok")


def _chain(dialogue: _Dialogue, draw: random.Random, language: str) -> list[str]:
    words, hour = _SAID[language], draw.randint(4, 9)
    city = draw.choice(_CITIES[language])
    dialogue.user(words.chain.format(c=city))
    dialogue.call("sunrise", city, words.think_call)
    dialogue.tool(str(hour))
    _set(dialogue, words, hour)
    return ["sunrise", "alarm"]


def _error(dialogue: _Dialogue, draw: random.Random, language: str) -> list[str]:
    words, name = _SAID[language], draw.choice(("weather", "sunrise"))
    city = draw.choice(_CITIES[language])
    better = f"{city}-{draw.choice('ABC')}{draw.randint(1, 9)}"
    dialogue.user(getattr(words, name).format(c=city))
    dialogue.call(name, city, words.think_call)
    dialogue.tool(words.error.format(c=better))
    dialogue.call(name, better, words.think_error)
    _result(dialogue, draw, language, city, name)
    return [name]


def _follow_up(dialogue: _Dialogue, draw: random.Random, language: str) -> list[str]:
    words, name = _SAID[language], draw.choice(("weather", "sunrise"))
    first, second = draw.sample(_CITIES[language], 2)
    _lookup(dialogue, draw, language, first, name, getattr(words, name))
    _lookup(dialogue, draw, language, second, name, words.again)
    return [name]


def _none(dialogue: _Dialogue, draw: random.Random, language: str) -> list[str]:
    words, name = _SAID[language], draw.choice(list(FUNCTIONS))
    asked = getattr(words, name).format(c=draw.choice(_CITIES[language]), h=draw.randint(1, 23))
    dialogue.user(asked)
    dialogue.answer(words.no_tool, words.think_none, "-")
    return [name]


_Make = Callable[[_Dialogue, random.Random, str], list[str]]
_SCENARIOS: Mapping[str, tuple[int, _Make]] = {
    "single": (2, _single),
    "chain": (2, _chain),
    "error": (2, _error),
    "follow_up": (2, _follow_up),
    "none": (1, _none),
}
"""How often each is drawn, and what makes it: it fills a dialogue and returns the tools that it needs."""
