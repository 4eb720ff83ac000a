"""An evaluation's answers, as they lie in `answers.jsonl`: kept while it runs, and read again for its figures.

A line is one answer. `asked` is a digest of all that decides it (model, question, mode, sampling, reward), so that what
was asked in the same way before is known, whatever else of the recipe has changed since; `question` is one of the
question alone, by which two models' answers are paired.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agapo.errors import UserError, first_line
from agapo.evaluation.evaluator import thinks
from agapo.recipe.reward import RewardConfig
from agapo.resolve import resolve
from agapo.rollouts.engine import SamplingParams
from agapo.schema import Group, Mode, Prompt
from agapo.tracking.files import json_line, read_json_lines, write_text_atomic
from agapo.tracking.logger import prompt_row, response_row

Canonical = Callable[..., Sequence[str | None]]
Row = Mapping[str, Any]
"""A line of `answers.jsonl`."""
NOT_DECIDING = {"workers", "deadline_s", "max_error_rate"}
"""Keys of `reward` that change no verdict but by accident."""


@dataclass(frozen=True)
class Answered:
    """A question that was asked in one way, and what came of its n answers."""

    asked: str
    question: str
    suite: str
    domain: str
    language: str
    mode: Mode
    budget: int | None
    """Of a sweep of `evaluation.thinking_budgets`; None for what is asked as `rollout` says."""
    correct: tuple[bool, ...]
    """[n]; without a verdict it counts as wrong."""
    answers: tuple[str | None, ...] | None
    """[n] what each settles on, in a form in which the same answer is the same text; None where the reward has none."""
    tokens: tuple[int, ...]
    cut: tuple[bool, ...]
    thinks: tuple[bool, ...]
    errors: int

    @property
    def accuracy(self) -> float:
        """The share of the answers that are correct."""
        return sum(self.correct) / len(self.correct)


def digest(*content: Any) -> str:
    """Return a short hash of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def question_mark(prompt: Prompt) -> str:
    """Return what tells a question from others, whoever is asked."""
    return digest(prompt.messages, prompt.columns, prompt.domain, prompt.language)


def asked_mark(
    model: Sequence[Any], suite: str, prompt: Prompt, params: SamplingParams, reward: RewardConfig, budget: int | None
) -> str:
    """Return what tells a question, asked in one way, from others. `model`: what tells it from other models."""
    judged = reward.model_dump(mode="json", exclude=NOT_DECIDING)
    return digest(model, suite, question_mark(prompt), prompt.id, prompt.mode, asdict(params), judged, budget)


def rows_of(
    group: Group, suite: str, asked: str, budget: int | None, answers: Sequence[str | None] | None
) -> list[Row]:
    """Return a judged group as lines."""
    about = {"asked": asked, "question": question_mark(group.prompt), "language": group.prompt.language}
    return [
        {
            "set": suite,
            **prompt_row(group),
            **about,
            "budget": budget,
            "sample": number,
            "samples": len(group.responses),
            **response_row(response),
            "answer": answers[number] if answers else None,
            "has_answers": answers is not None,
        }
        for number, response in enumerate(group.responses)
    ]


def keep(path: Path, rows: Iterable[Row]) -> None:
    """Write lines behind those that there are."""
    with path.open("a+b") as file:
        if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
            file.write(b"\n")  # a crash has torn the last line: what comes next is none of it
        file.write("".join(map(json_line, rows)).encode())


def tidy(path: Path, asked: Container[str]) -> None:
    """Leave the answers to what was `asked` alone, each once: of one that was asked again the last."""
    last = {(row.get("asked"), row.get("sample")): number for number, row in enumerate(read_json_lines(path))}
    numbers = {number for (mark, _), number in last.items() if mark is not None and mark in asked}
    rows = (row for number, row in enumerate(read_json_lines(path)) if number in numbers)
    write_text_atomic(path, "".join(map(json_line, rows)))


def read_answered(path: Path) -> list[Answered]:
    """Return the questions all of whose answers a file has; of one that was asked again in the same way the last."""
    return answered_in(row for row in read_json_lines(path) if "asked" in row)


def answered_in(rows: Iterable[Row]) -> list[Answered]:
    """Return the questions all of whose answers are among these lines."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        found.setdefault(row["asked"], {})[row["sample"]] = _without_texts(row)
    whole = [own for own in found.values() if len(own) == next(iter(own.values()))["samples"]]
    return [_answered([own[number] for number in sorted(own)]) for own in whole]


def _without_texts(row: Row) -> Row:
    """Thousands of long answers need not be held."""
    return {name: value for name, value in row.items() if name not in ("text", "prompt")} | {
        "thinks": thinks(row["text"], row["mode"])
    }


def _answered(rows: Sequence[Row]) -> Answered:
    first = rows[0]
    same = {name: first[name] for name in ("asked", "question", "domain", "language", "mode", "budget")}
    return Answered(
        suite=first["set"],
        **same,
        correct=tuple(row["correct"] is True for row in rows),
        answers=tuple(row["answer"] for row in rows) if first["has_answers"] else None,
        tokens=tuple(row["tokens"] for row in rows),
        cut=tuple(row["finish"] == "length" for row in rows),
        thinks=tuple(row["thinks"] for row in rows),
        errors=sum(row["reward_error"] is not None for row in rows),
    )


def settled(group: Group, reward: RewardConfig) -> list[str | None] | None:
    """Return what each response of a group settles on: `canonical` of the module whose reward is the verdict.

    None where it has no such function: a program or an essay has no majority. It is called as a reward is, and returns
    texts, None for a response without an answer. Raises UserError where it fails.
    """
    own = group.prompt
    term = next(term for term in reward.terms if term.name == reward.verdict_for(own.domain))
    function = resolve(term.function, key="reward.terms")
    canonical: Canonical | None = getattr(inspect.getmodule(function), "canonical", None)
    if canonical is None:
        return None
    count = len(group.responses)
    columns = {name: [value] * count for name, value in own.columns.items()}
    texts = [response.text for response in group.responses]
    given = {"mode": [own.mode] * count, "domain": [own.domain] * count, "language": [own.language] * count}
    name = f"{term.function.partition(':')[0]}:canonical"
    try:
        found = list(canonical([list(own.messages)] * count, texts, **{**columns, **given}))
    except Exception as error:  # a user's own file may raise anything
        raise UserError(f"{name}: raised {type(error).__name__}: {first_line(error)}; see its code") from error
    if len(found) != count:
        raise UserError(f"{name}: gave {len(found)} answers for {count} responses; should give one each, or None")
    return found
