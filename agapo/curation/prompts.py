"""From a data source's rows to prompts: checked, split, rendered, and dealt out in a repeatable order."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

from agapo.errors import UserError
from agapo.resolve import resolve
from agapo.schema import MODES, Mode, Prompt

ABOUT = ("id", "messages", "domain", "mode", "language")
"""Columns that become fields of the prompt; the others are for the reward."""


def read_rows(
    source: str, split: Literal["train", "test"], args: Mapping[str, Any], path: Path | None, key: str = "data"
) -> Iterator[dict[str, Any]]:
    """Call a data source: `function(split, **args)`, with `path` where the recipe names a file.

    Raises UserError, naming the recipe's section `key`, when the source does not take the arguments.
    """
    function = resolve(source, key=f"{key}.source")
    arguments = dict(args) | ({"path": path} if path else {})
    try:
        inspect.signature(function).bind(split, **arguments)
    except TypeError as error:
        raise UserError(f"{key}.args: {source} {error}") from None
    return _named_errors(function, source, split, arguments)


def _named_errors(
    function: Callable[..., Iterable[dict[str, Any]]], source: str, split: str, arguments: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the rows; what the source raises names the row, and rows that are none are refused."""
    number = 0
    try:
        for number, row in enumerate(function(split, **arguments), start=1):
            if not isinstance(row, Mapping):
                raise UserError(f"{source}: {split} row {number} is a {type(row).__name__}; rows should be dicts")
            yield dict(row)
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{source}: failed after {split} row {number} ({reason}); see the source's code") from error


def read_prompts(
    source: str, split: Literal["train", "test"], args: Mapping[str, Any], path: Path | None, key: str = "data"
) -> list[Prompt]:
    """Return a split's prompts, in the source's order. Raises UserError when there are none, or a row is malformed."""
    rows = read_rows(source, split, args, path, key)
    prompts = [as_prompt(row, split, f"{source}: {split} row {number}") for number, row in enumerate(rows, start=1)]
    if not prompts:
        raise UserError(f"{key}.source: {source} has no {split} rows{f' in {path}' if path else ''}")
    return prompts


def as_prompt(row: Mapping[str, Any], split: str, place: str) -> Prompt:
    """Return a data source's row as a prompt. Raises UserError, naming its `place`, where it is malformed."""
    messages = row.get("messages")
    if not isinstance(messages, Sequence) or not messages or not all(map(_is_turn, messages)):
        raise UserError(f"{place}: column 'messages' should be a list of turns with 'role' and 'content'")
    if messages[-1]["role"] not in ("user", "tool"):
        raise UserError(f"{place}: the last turn is '{messages[-1]['role']}'; a prompt ends with the user's turn")
    text = question_key(messages)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Prompt(
        id=str(row.get("id") or f"{split}/{digest}"),
        messages=tuple(dict(message) for message in messages),
        domain=row.get("domain", "math"),
        language=row.get("language", "en"),
        columns={name: value for name, value in row.items() if name not in ABOUT},
    )


def as_mode(value: Any, place: str) -> Mode:
    """Return a row's `mode`. Raises UserError, naming its `place`, where there is no such mode."""
    if value not in MODES:
        raise UserError(f"{place}: column 'mode' is {value!r}; should be {' or '.join(map(repr, MODES))}")
    return value


def _is_turn(message: Any) -> bool:
    return isinstance(message, Mapping) and "role" in message and "content" in message


def question_key(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what makes a question the same question: its turns."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def require_own_ids(prompts: Sequence[Prompt], place: str = "data.source") -> None:
    """Raise UserError, naming their `place`, when two different questions have one id: seeds and records go by it."""
    known: dict[str, str] = {}
    for prompt in prompts:
        key = question_key(prompt.messages)
        if known.setdefault(prompt.id, key) != key:
            raise UserError(
                f"{place}: two different questions have the id '{prompt.id}'; put the split's name in front of it, "
                "or leave ids out"
            )


def hold_out(train: Sequence[Prompt], test: Sequence[Prompt], size: int) -> tuple[list[Prompt], list[Prompt], int]:
    """Return (training prompts, validation prompts, training prompts dropped because the test split has them).

    The validation prompts are those with the smallest hashes, so they stay the same as rows are added.
    Raises UserError when that leaves nothing to train on.
    """
    tested = {question_key(prompt.messages) for prompt in test}
    unseen = [prompt for prompt in train if question_key(prompt.messages) not in tested]
    if not unseen:
        raise UserError("data.source: every training question is also a test question; give the splits different rows")
    ranked = sorted(unseen, key=lambda prompt: hashlib.sha256(question_key(prompt.messages).encode()).digest())
    held = {question_key(prompt.messages) for prompt in ranked[:size]}
    rest = [prompt for prompt in unseen if question_key(prompt.messages) not in held]
    if not rest:
        raise UserError(
            f"evaluation.validation_size: holding out {size} of {len(unseen)} training prompts leaves none; lower it"
        )
    return rest, ranked[:size], len(train) - len(unseen)


@dataclass(frozen=True)
class PromptStream:
    """An endless, repeatable sequence of prompts: every epoch in another order, each visit in a mode by share.

    Position k is the same in every run of the same seed, so a run's place in its data is one number.
    """

    prompts: Sequence[Prompt]
    modes: Mapping[Mode, float]
    seed: int

    def take(self, start: int, count: int) -> list[tuple[Prompt, int]]:
        """Return `count` pairs (prompt, visit) from position `start` on; the visit counts epochs from 0."""
        return [self._at(position) for position in range(start, start + count)]

    def _at(self, position: int) -> tuple[Prompt, int]:
        epoch, place = divmod(position, len(self.prompts))
        prompt = self.prompts[self._order(epoch)[place]]
        return replace(prompt, mode=self._mode(prompt, epoch)), epoch

    def _order(self, epoch: int) -> list[int]:
        cached = self.__dict__.setdefault("_orders", {})
        if epoch not in cached:
            order = list(range(len(self.prompts)))
            Random(f"{self.seed}/order/{epoch}").shuffle(order)
            cached.clear()
            cached[epoch] = order
        return cached[epoch]

    def _mode(self, prompt: Prompt, epoch: int) -> Mode:
        names = list(self.modes)
        draw = Random(f"{self.seed}/mode/{epoch}/{prompt.id}")
        return draw.choices(names, weights=[self.modes[name] for name in names])[0]
