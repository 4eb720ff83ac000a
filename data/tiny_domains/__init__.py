"""The EXAONE 4.0 report's five domains in three languages, for a model of about a million parameters.

    world          facts, asked in ways that training did not see
    math           signed sums and stories
    logic          statements with and, or, not
    code           functions to write, to mend after a failing test, to restore from a diff
    long_context   a password among sentences, up to 512 words
    tool_use       calls, chains of calls, errors to recover from, follow-ups
    multilingual   translation between English, Korean and Spanish

Everything is made from templates with a closed vocabulary. A hash of the question decides its split, so that no
test question is in training, whatever the seed and size; for world knowledge that means new wordings of known facts.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agapo.errors import UserError
from data.generating import UpTo, check_cells, check_enough, share, sized
from data.tiny_domains import code, logic, long_context, sums, tool_use, translation, world
from data.tiny_domains.long_context import needle_tasks
from data.tiny_domains.tasks import LANGUAGES, Task

KINDS: Mapping[str, Callable[..., Task]] = {
    "world": world.draw_task,
    "math": sums.draw_task,
    "logic": logic.draw_task,
    "code": code.draw_task,
    "long_context": long_context.draw_task,
    "tool_use": tool_use.draw_task,
    "multilingual": translation.draw_task,
}
"""What draws a task of a domain."""
_MOST_DRAWS = 5000
"""Draws without a new question before a domain is taken for exhausted."""


@dataclass(frozen=True)
class Phase:
    """A stretch of the curriculum of `dialogues`."""

    size: int = 6000
    """Dialogues."""
    reasoning: float = 0.5
    """Share of them in reasoning mode."""
    worked: float = 0.7
    """Share of those that think in sentences; the others think tersely."""
    foreign: float = 0.0
    """Share that is answered in another language than asked in; for math alone, where the answer stays right."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """What the domain is drawn with: `lengths` (words) and `rivals` for long_context."""


def prompts(
    split: str, *, kind: str, size: int = UpTo(400), seed: int = 0, languages: Sequence[str] = LANGUAGES, **args: Any
) -> Iterator[dict[str, Any]]:
    """Return up to `size` different questions of a domain; `args` as in `Phase`.

    Raises ValueError for another kind, split or language, and UserError for a size that cannot be made.
    """
    _check(split, kind, languages)
    return _prompt_rows(split, kind, sized(size), seed, languages, args)


def dialogues(
    split: str,
    *,
    kind: str,
    seed: int = 0,
    languages: Sequence[str] = LANGUAGES,
    phases: Sequence[Mapping[str, Any]] = ({},),
) -> Iterator[dict[str, Any]]:
    """Return answered questions of a domain, drawn with replacement, phase after phase: the order is the curriculum.

    Each phase is a mapping with the fields of `Phase`. Raises ValueError for another kind, split or language.
    """
    _check(split, kind, languages)
    curriculum = [Phase(**phase) for phase in phases]
    sized(sum(sized(phase.size, "phases.size") for phase in curriculum), "phases.size")
    for phase in curriculum:
        for name in ("reasoning", "worked", "foreign"):
            share(getattr(phase, name), f"phases.{name}")
    if kind != "math" and any(phase.foreign for phase in curriculum):
        raise ValueError(f"foreign: only sums stay right in another language; kind is {kind!r}")
    return _dialogue_rows(split, kind, seed, languages, curriculum)


def needles(
    split: str,
    *,
    lengths: Sequence[int] = (64, 128, 256, 512),
    positions: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    per_cell: int = 12,
    seed: int = 0,
    languages: Sequence[str] = LANGUAGES,
    rivals: int = 0,
) -> Iterator[dict[str, Any]]:
    """Return `per_cell` passwords to find for every length (words) and position (0 start, 1 end).

    `rivals` is the number of other passwords in the text.
    """
    _check(split, "long_context", languages)
    check_cells(lengths, positions, per_cell)
    tasks = needle_tasks(split, lengths, positions, per_cell, seed, languages, rivals)
    return (_prompt_row("long_context", task, f"needle/{name}") for name, task in tasks)


def _prompt_rows(
    split: str, kind: str, size: int, seed: int, languages: Sequence[str], args: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    draw, seen = random.Random(f"tiny_domains/prompts/{kind}/{split}/{seed}"), set[str]()
    missed = 0
    while len(seen) < size and missed < _MOST_DRAWS:
        task = _draw(draw, split, kind, languages, args)
        missed += 1
        if task.question not in seen:
            missed = 0
            seen.add(task.question)
            yield _prompt_row(kind, task, f"{split}/{seed}/{len(seen)}")
    check_enough(len(seen), size, split, "give more languages")


def _dialogue_rows(
    split: str, kind: str, seed: int, languages: Sequence[str], phases: Sequence[Phase]
) -> Iterator[dict[str, Any]]:
    draw = random.Random(f"tiny_domains/dialogues/{kind}/{split}/{seed}")
    for phase in phases:
        for _ in range(phase.size):
            task = _draw(draw, split, kind, languages, phase.args)
            # Asked first: without a share, no number is drawn, and the dialogues are what they were.
            if phase.foreign and draw.random() < phase.foreign:
                task = _in_another_language(draw, task, languages)
            is_reasoning, is_worked = draw.random() < phase.reasoning, draw.random() < phase.worked
            yield _dialogue_row(kind, task, (task.worked if is_worked else task.terse) if is_reasoning else None)


def _draw(draw: random.Random, split: str, kind: str, languages: Sequence[str], args: Mapping[str, Any]) -> Task:
    for _ in range(_MOST_DRAWS):
        task = KINDS[kind](draw, draw.choice(languages), **args)
        if task.is_test == (split == "test"):
            return task
    raise UserError(f"data.args.kind: no '{kind}' question of the split '{split}' with these arguments; give others")


def _in_another_language(draw: random.Random, task: Task, languages: Sequence[str]) -> Task:
    """Return a sum's task with thinking and answer in another language."""
    other = draw.choice([language for language in languages if language != task.language])
    worked, content, plain = sums.in_language(task.key, other)
    return replace(task, worked=worked, content=content, plain=plain)


def _prompt_row(kind: str, task: Task, name: str) -> dict[str, Any]:
    row = {"id": f"tiny_domains/{kind}/{name}", "messages": list(task.messages), **_about(kind, task)}
    return {**row, **task.columns}


def _dialogue_row(kind: str, task: Task, thinking: str | None) -> dict[str, Any]:
    content = task.content if thinking is not None else task.plain or task.content
    turn: dict[str, Any] = {"role": "assistant", "content": content}
    if task.tool_calls:
        turn["tool_calls"] = list(task.tool_calls)
    if thinking is not None:
        turn["reasoning_content"] = thinking
    mode = "non_reasoning" if thinking is None else "reasoning"
    # A dialogue is cut before the turn to train on; its earlier turns are other questions, perhaps the other split's.
    before = [{**turn, "train": False} if turn["role"] == "assistant" else turn for turn in task.messages]
    row = {"messages": [*before, turn], "mode": mode, **_about(kind, task)}
    length = task.columns.get("context_length")
    return row if length is None else {**row, "context_length": length}


def _about(kind: str, task: Task) -> dict[str, Any]:
    about = {"domain": kind, "task": task.task, "language": task.language}
    return {**about, "tools": list(task.tools)} if task.tools else about


def _check(split: str, kind: str, languages: Sequence[str]) -> None:
    if split not in ("train", "test"):
        raise ValueError(f"split should be 'train' or 'test', is {split!r}")
    if kind not in KINDS:
        raise ValueError(f"kind should be {', '.join(KINDS)}, is {kind!r}")
    if unknown := [language for language in languages if language not in LANGUAGES]:
        raise ValueError(f"languages should be among {', '.join(LANGUAGES)}, are {unknown}")
