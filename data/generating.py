"""What the generators share: which split a question is in, drawing questions that are new, and the rows they make.

A generator is a set of makers, functions that draw one `Item`. Whether it is for training or for testing is decided by
a hash of its key, so no question is in both splits, whatever the seed and the size.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from agapo.errors import UserError

TEST_SHARE = 8
"""One question in so many is for testing."""
LANGUAGES = ("en", "ko", "es")
MOST_DRAWS = 2000
"""Draws without a new question before a maker is taken for exhausted."""
MOST = 1_000_000
"""Rows that a source makes at most; none has more that are different enough to train on."""


@dataclass(frozen=True)
class Response:
    """One right way to respond."""

    content: str
    """The answer that follows the thinking, and the whole response where there is no other without thinking."""
    thinking: str = ""
    """The derivation, for rows in reasoning mode; empty where the question needs none."""
    direct: str = ""
    """The response without thinking, where it is another, such as the steps and the answer."""


@dataclass(frozen=True)
class Item:
    """A question, right responses to it, and what its rows carry."""

    question: str
    responses: tuple[Response, ...]
    """Different ones, the plainest first."""
    domain: str
    task: str
    language: str = "en"
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What a reward reads, and `context_length` and the like."""
    key: str = ""
    """What the split goes by, where it is not the question."""


class UpTo(int):
    """A default size: as many as there are, at most this. A size that was asked for is made in full, or refused."""


Maker = Callable[[Random], Item]


def checked(split: str) -> str:
    """Return the split. Raises ValueError where it is neither `train` nor `test`."""
    if split not in ("train", "test"):
        raise ValueError(f"split should be 'train' or 'test', is {split!r}")
    return split


def chosen(option: str, wanted: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Return the wanted ones, all without a wish. Raises UserError naming the option and what is not known."""
    unknown = [name for name in wanted or () if name not in known]
    if unknown or (wanted is not None and not wanted):
        raise UserError(f"data.args.{option}: {', '.join(unknown) or 'none'}; known are {', '.join(known)}")
    return tuple(wanted or known)


def sized(size: int, option: str = "size", times: int = 1) -> int:
    """Return the size. Raises UserError naming the option where it is none, or more (`times` over) than can be made."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise UserError(f"data.args.{option}: is {size!r}; should be a whole number from 0 on")
    if size * times > MOST:
        raise UserError(f"data.args.{option}: is {size}; at most {MOST // max(times, 1)} can be made; ask for fewer")
    return size


def share(value: float, option: str = "reasoning") -> float:
    """Return the share. Raises UserError naming the option where it is no number from 0 to 1."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise UserError(f"data.args.{option}: is {value!r}; should be a share, a number from 0 to 1")
    return value


def check_cells(lengths: Sequence[int], positions: Sequence[float], per_cell: int, times: int = 1) -> None:
    """Raise UserError unless there are so many rows (`times` over) of each length, in words, and position, 0 to 1."""
    if not lengths or isinstance(lengths, str) or not all(_is_number(one) and one == int(one) > 0 for one in lengths):
        raise UserError(f"data.args.lengths: is {lengths!r}; should be whole numbers from 1 on, one at least")
    if not positions or isinstance(positions, str) or not all(_is_number(one) and 0 <= one <= 1 for one in positions):
        raise UserError(f"data.args.positions: is {positions!r}; should be numbers from 0 to 1, one at least")
    sized(per_cell, "per_cell", len(lengths) * len(positions) * times)
    sized(max(lengths), "lengths")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_enough(made: int, size: int, split: str, mend: str = "more kinds or languages") -> None:
    """Raise UserError where a size that was asked for is more than there was to make.

    It is asked for in training: `test` has what its share of the questions gives.
    """
    if made < size and split == "train" and not isinstance(size, UpTo):
        raise UserError(f"data.args.size: is {size}; only {made} different ones can be made; ask for {made}, or {mend}")


def is_test(key: str) -> bool:
    """Is the question with this key for testing?"""
    return hashlib.sha256(key.encode()).digest()[0] % TEST_SHARE == 0


def digest(text: str) -> str:
    """Return a short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def items(makers: Mapping[str, Maker], split: str, draw: Random, size: int) -> Iterator[Item]:
    """Yield up to `size` different questions of a split, the makers taking turns by chance.

    Where a maker runs out of new questions, the others take its place. Raises UserError where all did: `check_enough`.
    """
    left, seen = dict(makers), set[str]()
    while left and len(seen) < size:
        name = draw.choice(list(left))
        item = _new_item(left[name], draw, split, seen)
        if item is None:
            del left[name]
            continue
        seen.add(item.question)
        yield item
    check_enough(len(seen), size, split)


def _new_item(make: Maker, draw: Random, split: str, seen: set[str]) -> Item | None:
    for _ in range(MOST_DRAWS):
        item = make(draw)
        if item.question not in seen and is_test(item.key or item.question) == (split == "test"):
            return item
    return None


def prompt_rows(name: str, makers: Mapping[str, Maker], split: str, seed: int, size: int) -> Iterator[dict[str, Any]]:
    """Yield the questions of a split as prompts, with what their reward reads. Raises ValueError for another split."""
    found = items(makers, checked(split), Random(f"{name}/prompts/{split}/{seed}"), sized(size))
    return (_prompt_row(name, item) for item in found)


def _prompt_row(name: str, item: Item) -> dict[str, Any]:
    return {
        "id": f"{name}/{item.task}/{digest(item.question)}",
        "messages": [{"role": "user", "content": item.question}],
        **_about(item),
    }


def dialogue_rows(
    name: str, makers: Mapping[str, Maker], split: str, seed: int, size: int, reasoning: float, responses: int = 1
) -> Iterator[dict[str, Any]]:
    """Yield up to `responses` different rows for each of `size` questions, in reasoning mode with that probability.

    Raises ValueError for another split, and UserError for a share that is none.
    """
    draw = Random(f"{name}/dialogues/{split}/{seed}")
    return _dialogue_rows(makers, checked(split), draw, sized(size), share(reasoning), responses)


def _dialogue_rows(
    makers: Mapping[str, Maker], split: str, draw: Random, size: int, reasoning: float, responses: int
) -> Iterator[dict[str, Any]]:
    for item in items(makers, split, draw, size):
        for response in draw.sample(item.responses, min(responses, len(item.responses))):
            thinks = bool(response.thinking) and draw.random() < reasoning
            yield _dialogue_row(item, response, thinks=thinks)


def _dialogue_row(item: Item, response: Response, *, thinks: bool) -> dict[str, Any]:
    turn = {"role": "assistant", "content": response.content}
    if thinks:
        turn["reasoning_content"] = response.thinking
    else:
        turn["content"] = response.direct or response.content
    messages = [{"role": "user", "content": item.question}, turn]
    return {"messages": messages, "mode": "reasoning" if thinks else "non_reasoning", **_about(item)}


def _about(item: Item) -> dict[str, Any]:
    return {"domain": item.domain, "task": item.task, "language": item.language, **item.columns}
