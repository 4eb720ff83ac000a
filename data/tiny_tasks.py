"""Code, science and instructions for a model of half a million parameters, next to `data.arithmetic`.

    code           f(x)=3*x+2          a Python function in a fence, tested by assert statements
    science        2.5 m in cm?        a number with a unit, or a choice's letter, in a box
    instructions   cat; capitals; title   a sentence that keeps to one to three of IFEval's constraints

As there, a hash of the question decides its split, and some of the dialogues for SFT are careless (they forget a
constraint, a factor, a term), so that reinforcement learning has something to find.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from data.generating import UpTo, check_enough, share, sized

TEST_SHARE = 8
"""One question in so many is for testing."""
_MAX_DRAWS = 5000
"""Draws without a new question before a kind is taken for exhausted."""


@dataclass(frozen=True)
class Task:
    """A question, what its reward reads, and two ways to answer it."""

    question: str
    thinking: str
    answer: str
    careless: str
    """An answer that gets it wrong in the usual way."""
    columns: dict[str, Any] = field(default_factory=dict)


def prompts(split: str, *, kind: str, size: int = UpTo(400), seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield up to `size` different questions of a kind, `code`, `science` or `instructions`.

    Raises ValueError for another kind or split, and UserError for a size that was asked for and cannot be made.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split should be 'train' or 'test', is {split!r}")
    if kind not in _MAKERS:
        raise ValueError(f"kind should be {', '.join(_MAKERS)}, is {kind!r}")
    return (_row(task, kind) for task in _tasks(split, kind, seed, sized(size)))


def dialogues(
    split: str, *, kind: str, size: int = 4000, seed: int = 0, reasoning: float = 0.5, careful: float = 0.6
) -> Iterator[dict[str, Any]]:
    """Yield answered questions, drawn with replacement; `reasoning` and `careful` are shares, 0 to 1."""
    return _dialogues(split, kind, sized(size), seed, share(reasoning), share(careful, "careful"))


def _dialogues(
    split: str, kind: str, size: int, seed: int, reasoning: float, careful: float
) -> Iterator[dict[str, Any]]:
    draw = random.Random(f"tiny/dialogues/{kind}/{seed}")
    for _ in range(size):
        task = next(_tasks(split, kind, draw.randrange(2**32), 1))
        turn = {"role": "assistant", "content": task.answer if draw.random() < careful else task.careless}
        mode = "reasoning" if draw.random() < reasoning else "non_reasoning"
        if mode == "reasoning":
            turn["reasoning_content"] = task.thinking
        messages = [{"role": "user", "content": task.question}, turn]
        yield {"messages": messages, "mode": mode, "domain": kind, "language": "en"}


def _row(task: Task, kind: str) -> dict[str, Any]:
    about = {"id": f"tiny/{kind}/{task.question}", "domain": kind, "language": "en"}
    return {**about, "messages": [{"role": "user", "content": task.question}], **task.columns}


def _tasks(split: str, kind: str, seed: int, size: int) -> Iterator[Task]:
    draw, seen = random.Random(f"tiny/{kind}/{split}/{seed}"), set[str]()
    missed = 0
    while len(seen) < size and missed < _MAX_DRAWS:
        task = _MAKERS[kind](draw)
        missed += 1
        if task.question not in seen and _is_test(task.question) == (split == "test"):
            missed = 0
            seen.add(task.question)
            yield task
    check_enough(len(seen), size, split, "take another kind beside this one")


def _is_test(question: str) -> bool:
    return hashlib.sha256(question.encode()).digest()[0] % TEST_SHARE == 0


def _code(draw: random.Random) -> Task:
    factor, term = draw.randint(2, 9), draw.randint(1, 29)
    sign = draw.choice("+-")
    body = f"{factor}*x{sign}{term}"

    def value(x: int) -> int:
        return factor * x + (term if sign == "+" else -term)

    tests = [f"assert f({x}) == {value(x)}" for x in (0, 1, draw.randint(2, 50), -draw.randint(2, 50))]
    return Task(
        question=f"f(x)={body}",
        thinking=f"return {body}",
        answer=f"```python\ndef f(x):\n    return {body}\n```",
        careless=f"```python\ndef f(x):\n    return {factor}*x\n```",
        columns={"test_list": tests, "test_setup_code": ""},
    )


_UNITS = (("m", "cm", 100), ("km", "m", 1000), ("kg", "g", 1000), ("h", "min", 60), ("min", "s", 60), ("cm", "mm", 10))
_KINDS = {
    "metal": ("iron", "gold", "zinc", "lead"),
    "gas": ("neon", "helium", "argon", "oxygen"),
    "animal": ("cat", "crow", "fish", "ant"),
    "plant": ("oak", "fern", "moss", "rose"),
}


def _science(draw: random.Random) -> Task:
    return _conversion(draw) if draw.random() < 0.5 else _choice(draw)


def _conversion(draw: random.Random) -> Task:
    source, target, factor = draw.choice(_UNITS)
    number = draw.randint(2, 9)
    return Task(
        question=f"{number} {source} in {target}?",
        thinking=f"1 {source}={factor} {target} {number}*{factor}={number * factor}",
        answer=f"\\boxed{{{number * factor} {target}}}",
        careless=f"\\boxed{{{number * factor}}}",
        columns={"answer": str(number * factor), "unit": target},
    )


def _choice(draw: random.Random) -> Task:
    wanted, *others = draw.sample(list(_KINDS), 3)
    options = [draw.choice(_KINDS[kind]) for kind in (wanted, *others)]
    right = options[0]
    draw.shuffle(options)
    choices = dict(zip("ABC", options, strict=True))
    letter = "ABC"[options.index(right)]
    listed = " ".join(f"{name} {option}" for name, option in choices.items())
    return Task(
        question=f"{wanted}? {listed}",
        thinking=f"{right} is a {wanted}",
        answer=f"\\boxed{{{letter}}}",
        careless=f"\\boxed{{{draw.choice('ABC')}}}",
        columns={"answer": letter, "choices": choices},
    )


_WORDS = "cat dog sun sea bird tree cow fox owl ant rose moon ship road lamp door hat cup pen bus"
_NOUNS = tuple(_WORDS.split(" "))
_ADJECTIVES = ("big", "red", "old", "calm", "new")
_CONSTRAINTS: dict[str, tuple[str, dict[str, Any], Callable[[str, str], str]]] = {
    "title": ("detectable_format:title", {}, lambda text, noun: f"<<{noun}>> {text}"),
    "end ok": ("startend:end_checker", {"end_phrase": "ok"}, lambda text, noun: f"{text} ok"),
    "capitals": ("change_case:english_capital", {}, lambda text, noun: text.upper()),
    "quotes": ("startend:quotation", {}, lambda text, noun: f'"{text}"'),
}
"""What the prompt says, IFEval's id and arguments, and what it does to a text, in the order in which it is done."""


def _instructions(draw: random.Random) -> Task:
    noun = draw.choice(_NOUNS)
    names = [name for name in _CONSTRAINTS if draw.random() < 0.5] or [draw.choice(list(_CONSTRAINTS))]
    plain = f"the {noun} is {draw.choice(_ADJECTIVES)}"
    kept, forgotten = plain, draw.choice(names)
    careless = plain
    for name in names:
        kept = _CONSTRAINTS[name][2](kept, noun)
        careless = careless if name == forgotten else _CONSTRAINTS[name][2](careless, noun)
    ids = ["keywords:existence", *(_CONSTRAINTS[name][0] for name in names)]
    arguments = [{"keywords": [noun]}, *(_CONSTRAINTS[name][1] for name in names)]
    return Task(
        question="; ".join([noun, *names]),
        thinking=" ".join(names),
        answer=kept,
        careless=careless,
        columns={"instruction_id_list": ids, "kwargs": arguments},
    )


_MAKERS: dict[str, Callable[[random.Random], Task]] = {
    "code": _code,
    "science": _science,
    "instructions": _instructions,
}
