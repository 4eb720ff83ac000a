"""Dialogues packed into rows: several a row, so that hardly a token of compute is padding.

A row's `position_ids` restart at 0 with each dialogue. transformers makes the block-diagonal attention mask from
them, provided that no attention mask is given and `use_cache=False`; flash attention takes its boundaries from them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from datasets import Dataset

IGNORED = -100
"""The label of tokens that are not trained."""


class Example(NamedTuple):
    """A dialogue, or its part up to an assistant's turn, as tokens."""

    token_ids: Sequence[int]
    """[T]"""
    mask: Sequence[int]
    """[T] 1 where the token is trained, else 0. The first never is: nothing predicts it."""


class Examples(Protocol):
    """Examples by index: a list, or a file on disk."""

    def __getitem__(self, index: int, /) -> Example:
        """Return an example."""
        ...


def pack(
    examples: Iterable[tuple[int, int]], *, row_tokens: int, rows: int | None = None, open_rows: int = 8
) -> Iterator[list[int]]:
    """Pack (index, length) pairs greedily into rows of at most `row_tokens` tokens; yield each row's indices, lazily.

    Each example goes to the first of up to `open_rows` open rows that has room; where none has, the oldest row is
    finished. So the order of the examples, which may be a curriculum, is kept but for a few rows, and with `rows` the
    rows hold exactly the first so many examples: the next one, which would have needed one row more, ends it.
    Raises ValueError for an example that is longer than a row.
    """
    open_: list[tuple[list[int], int]] = []
    begun = 0
    for index, length in examples:
        if length > row_tokens:
            raise ValueError(f"a dialogue of {length} tokens does not fit a row of {row_tokens}")
        place = next((number for number, (_, used) in enumerate(open_) if used + length <= row_tokens), None)
        if place is not None:
            row, used = open_[place]
            row.append(index)
            open_[place] = (row, used + length)
            continue
        if begun == rows:
            break
        if len(open_) == open_rows:
            yield open_.pop(0)[0]
        open_.append(([index], length))
        begun += 1
    yield from (row for row, _ in open_)


def packed_rows(examples: Examples, rows: Sequence[Sequence[int]]) -> Dataset:
    """Return packed rows as a data set of `input_ids`, `labels` and `position_ids`, [T] each.

    They are put together when they are asked for, so nothing is held but the numbers of the examples.
    """

    def fetch(batch: Mapping[str, Sequence[int]]) -> dict[str, list[torch.Tensor]]:
        joined = [join([examples[index] for index in rows[number]]) for number in batch["row"]]
        return {name: [row[name] for row in joined] for name in joined[0]}

    return Dataset.from_dict({"row": range(len(rows))}).with_transform(fetch)


def join(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Return examples as one row: `input_ids`, `labels` (-100 where not trained) and `position_ids`, [T] each."""
    ids = torch.tensor(list(chain.from_iterable(example.token_ids for example in examples)), dtype=torch.long)
    mask = [(0, *example.mask[1:]) for example in examples]
    trained = torch.tensor(list(chain.from_iterable(mask)), dtype=torch.bool)
    positions = torch.cat([torch.arange(len(example.token_ids)) for example in examples])
    return {"input_ids": ids, "labels": torch.where(trained, ids, IGNORED), "position_ids": positions}


def collate(rows: Sequence[dict[str, torch.Tensor]], *, pad_token_id: int) -> dict[str, torch.Tensor]:
    """Stack packed rows into `input_ids`, `labels` and `position_ids`, [B, longest] each.

    Padding is one more sequence of its own at the end of a row, never trained.
    """
    longest = max(len(row["input_ids"]) for row in rows)
    pads = [longest - len(row["input_ids"]) for row in rows]
    fills = {"input_ids": pad_token_id, "labels": IGNORED}
    filled = {
        name: [torch.cat([row[name], torch.full((pad,), fill)]) for row, pad in zip(rows, pads, strict=True)]
        for name, fill in fills.items()
    }
    filled["position_ids"] = [
        torch.cat([row["position_ids"], torch.arange(pad)]) for row, pad in zip(rows, pads, strict=True)
    ]
    return {name: torch.stack(values) for name, values in filled.items()}


def flatten(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows' indices in one array, and where each row begins (and the last ends), to be kept in a file."""
    ends = np.cumsum([0, *map(len, rows)])
    return np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(ends[-1])), ends


def unflatten(indices: np.ndarray, ends: np.ndarray) -> list[list[int]]:
    """Return the rows that `flatten` was given."""
    return [indices[start:end].tolist() for start, end in pairwise(ends)]
