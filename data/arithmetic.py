"""Three small tasks that a model of half a million parameters can learn within minutes on a laptop.

    kind      share  question      worked thinking          answer
    sum       50 %   3+9-7         3+9=12 12-7=5            5
    product   25 %   47*6          40*6=240 7*6=42 240+42=282    282
    sort      25 %   sort 7 2 4     2<4<7                   [2,4,7]

Whether a question is for training or for testing is decided by a hash of the question, so no question is in both,
whatever the seed and the size. In the dialogues for SFT, terse thinking (`=5`) jumps to the answer: a model that saw
worked thinking first and then mostly terse thinking knows the better strategy but seldom picks it, and
reinforcement learning has something to find.
"""

import hashlib
import random
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.generating import UpTo, check_enough, chosen, share, sized

TEST_SHARE = 8
"""One question in so many is for testing."""
_MAX_DRAWS = 2000
"""Draws without a new question before a kind is taken for exhausted."""

KINDS: Mapping[str, float] = {"sum": 2, "product": 1, "sort": 1}
"""How often each kind is drawn."""


@dataclass(frozen=True)
class Problem:
    """A question, its answer, and the steps that lead there."""

    kind: str
    question: str
    answer: str
    steps: tuple[str, ...]
    key: str
    """What the split goes by: 47*6 and 6*47 have the same key."""


@dataclass(frozen=True)
class Phase:
    """A stretch of the curriculum of `dialogues`."""

    size: int
    """Dialogues."""
    reasoning: float = 0.5
    """Share of them in reasoning mode."""
    worked: float = 1.0
    """Share whose steps are written out, in the thinking or in the answer; the others jump to the answer."""
    kinds: Mapping[str, float] = field(default_factory=lambda: KINDS)
    """How often each kind is drawn."""


def prompts(
    split: str, *, seed: int = 0, size: int = UpTo(4096), kinds: Mapping[str, float] = KINDS
) -> Iterator[dict[str, Any]]:
    """Return up to `size` different questions of a split, each with its `answer`; `kinds`: how often each is drawn.

    Where a kind runs out of new questions, the others take its place; UserError where all did before `size`.
    """
    chosen("kinds", list(kinds), list(KINDS))
    return _prompt_rows(_checked(split), seed, sized(size), dict(kinds))


def _prompt_rows(split: str, seed: int, size: int, kinds: dict[str, float]) -> Iterator[dict[str, Any]]:
    draw = random.Random(f"arithmetic/prompts/{split}/{seed}")
    seen: set[str] = set()
    while kinds and len(seen) < size:
        kind = _choose(draw, kinds)
        problem = _new_problem(kind, draw, split, seen)
        if problem is None:
            del kinds[kind]
            continue
        seen.add(problem.question)
        yield _prompt_row(problem)
    check_enough(len(seen), size, split, "take another source beside this one")


def _prompt_row(problem: Problem) -> dict[str, Any]:
    return {
        "id": f"arithmetic/{problem.question}",
        "messages": [{"role": "user", "content": problem.question}],
        "domain": "math",
        "language": "en",
        "answer": problem.answer,
        "kind": problem.kind,
    }


def dialogues(
    split: str, *, seed: int = 0, phases: Sequence[Mapping[str, Any]] = ({"size": 20_000},)
) -> Iterator[dict[str, Any]]:
    """Return solved questions, drawn with replacement, phase after phase: the order is the curriculum.

    Each phase is a mapping with the fields of `Phase`.
    """
    curriculum = [Phase(**phase) for phase in phases]
    sized(sum(sized(phase.size, "phases.size") for phase in curriculum), "phases.size")
    for phase in curriculum:
        share(phase.reasoning, "phases.reasoning")
        share(phase.worked, "phases.worked")
    return _dialogue_rows(_checked(split), seed, curriculum)


def _dialogue_rows(split: str, seed: int, phases: Sequence[Phase]) -> Iterator[dict[str, Any]]:
    draw = random.Random(f"arithmetic/dialogues/{split}/{seed}")
    for phase in phases:
        for _ in range(phase.size):
            problem = _new_problem(_choose(draw, phase.kinds), draw, split, seen=())
            assert problem is not None
            reasoning, worked = draw.random() < phase.reasoning, draw.random() < phase.worked
            yield _dialogue_row(problem, reasoning=reasoning, worked=worked)


def _dialogue_row(problem: Problem, *, reasoning: bool, worked: bool) -> dict[str, Any]:
    steps, boxed = " ".join(problem.steps), f"\\boxed{{{problem.answer}}}"
    turn = {"role": "assistant", "content": boxed}
    if reasoning:
        turn["reasoning_content"] = steps if worked else f"={problem.answer}"
    elif worked:
        turn["content"] = f"{steps} {boxed}"
    return {
        "messages": [{"role": "user", "content": problem.question}, turn],
        "mode": "reasoning" if reasoning else "non_reasoning",
        "domain": "math",
        "language": "en",
    }


def _choose(draw: random.Random, kinds: Mapping[str, float]) -> str:
    return draw.choices(list(kinds), weights=list(kinds.values()))[0]


def _new_problem(kind: str, draw: random.Random, split: str, seen: Container[str]) -> Problem | None:
    """Draw a question of the split that was not seen, or None where there seems to be none left."""
    for _ in range(_MAX_DRAWS):
        problem = _MAKERS[kind](draw)
        if problem.question not in seen and _is_test(problem.key) == (split == "test"):
            return problem
    return None


def _checked(split: str) -> str:
    if split not in ("train", "test"):
        raise ValueError(f"split should be 'train' or 'test', is {split!r}")
    return split


def _is_test(key: str) -> bool:
    return hashlib.sha256(key.encode()).digest()[0] % TEST_SHARE == 0


def _sum(draw: random.Random) -> Problem:
    """The running total stays between 0 and 18, so that there are few enough facts to learn."""
    total = draw.randint(1, 9)
    question, steps = str(total), []
    for _ in range(draw.randint(1, 4)):
        terms = [term for term in range(-9, 10) if term and 0 <= total + term <= 18]
        term = draw.choice(terms)
        steps.append(f"{total}{term:+d}={total + term}")
        total += term
        question += f"{term:+d}"
    return Problem("sum", question, str(total), tuple(steps), key=question)


def _product(draw: random.Random) -> Problem:
    large, small = draw.randint(10, 99), draw.randint(2, 9)
    tens, units = large // 10 * 10, large % 10
    steps = (f"{tens}*{small}={tens * small}", f"{units}*{small}={units * small}")
    total = f"{tens * small}+{units * small}={large * small}"
    question = f"{large}*{small}" if draw.random() < 0.5 else f"{small}*{large}"
    return Problem("product", question, str(large * small), (*steps, total), key=f"{large}*{small}")


def _sort(draw: random.Random) -> Problem:
    numbers = [str(number) for number in draw.sample(range(1, 10), draw.randint(3, 5))]
    question, ordered = "sort " + " ".join(numbers), sorted(numbers)
    # In brackets, since verifiers read a bare "2,4,7" as a set, in which order does not count.
    return Problem("sort", question, f"[{','.join(ordered)}]", ("<".join(ordered),), key=question)


_MAKERS: dict[str, Callable[[random.Random], Problem]] = {"sum": _sum, "product": _product, "sort": _sort}
