"""Dialogues packed into rows: several a row, so that hardly a token of compute is padding.

A row's `position_ids` restart at 0 with each dialogue. transformers makes the block-diagonal attention mask from
them, provided that no attention mask is given and `use_cache=False`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

IGNORED = -100
"""The label of tokens that are not trained."""


class Tokenised(NamedTuple):
    """A dialogue as tokens."""

    token_ids: Sequence[int]
    """[T]"""
    mask: Sequence[int]
    """[T] 1 where the token is trained, else 0."""
    mode: str = ""
    """What its trained tokens are counted under."""


@dataclass
class PackedRow:
    """Dialogues joined, at most `row_tokens` tokens; all lists have one entry a token."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    """The token where it is trained, else -100. The first token of a dialogue never is: nothing predicts it."""
    position_ids: list[int] = field(default_factory=list)

    dialogues: int = 0
    trained: Counter[str] = field(default_factory=Counter)
    """Trained tokens by mode."""

    def add(self, dialogue: Tokenised) -> None:
        """Append a dialogue."""
        token_ids, mask = dialogue.token_ids, (0, *dialogue.mask[1:])
        self.input_ids.extend(token_ids)
        self.labels.extend(token if on else IGNORED for token, on in zip(token_ids, mask, strict=True))
        self.position_ids.extend(range(len(token_ids)))
        self.dialogues += 1
        self.trained[dialogue.mode] += sum(mask)

    def tensors(self) -> dict[str, list[int]]:
        """Return what the model reads."""
        return {"input_ids": self.input_ids, "labels": self.labels, "position_ids": self.position_ids}


def pack(dialogues: Iterable[Tokenised], *, row_tokens: int, open_rows: int = 8) -> Iterator[PackedRow]:
    """Pack dialogues greedily into rows of at most `row_tokens` tokens, lazily.

    Each goes to the first of up to `open_rows` open rows that has room; where none has, the oldest is finished.
    So the order of the dialogues, which may be a curriculum, is kept but for a few rows. Raises ValueError for a
    dialogue that is longer than a row.
    """
    rows: list[PackedRow] = []
    for dialogue in dialogues:
        length = len(dialogue.token_ids)
        if length > row_tokens:
            raise ValueError(f"a dialogue of {length} tokens does not fit a row of {row_tokens}")
        row = next((row for row in rows if len(row.input_ids) + length <= row_tokens), None)
        if row is None:
            if len(rows) == open_rows:
                yield rows.pop(0)
            row = PackedRow()
            rows.append(row)
        row.add(dialogue)
    yield from rows


def collate(rows: Sequence[dict[str, Any]], *, pad_token_id: int) -> dict[str, torch.Tensor]:
    """Stack packed rows into `input_ids`, `labels` and `position_ids`, [B, longest] each.

    Padding is one more sequence of its own at the end of a row, never trained.
    """
    longest = max(len(row["input_ids"]) for row in rows)
    pads = [longest - len(row["input_ids"]) for row in rows]
    filled = {
        "input_ids": [row["input_ids"] + [pad_token_id] * pad for row, pad in zip(rows, pads, strict=True)],
        "labels": [row["labels"] + [IGNORED] * pad for row, pad in zip(rows, pads, strict=True)],
        "position_ids": [row["position_ids"] + list(range(pad)) for row, pad in zip(rows, pads, strict=True)],
    }
    return {name: torch.tensor(values) for name, values in filled.items()}
