"""Packing for SFT: nothing is lost, and a packed batch has the loss and gradient of its dialogues alone."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agapo.model.loading import create_model
from agapo.model.tokenizer import build_tokenizer
from agapo.stages.packing import IGNORED, Tokenised, collate, pack


@st.composite
def dialogue(draw, longest: int = 20) -> Tokenised:
    ids = draw(st.lists(st.integers(3, 200), min_size=2, max_size=longest))
    context = draw(st.integers(1, len(ids) - 1))
    return Tokenised(ids, [0] * context + [1] * (len(ids) - context))


def unpacked(row) -> list[Tokenised]:
    """Cut a row where its positions restart."""
    starts = [i for i, position in enumerate(row.position_ids) if position == 0] + [len(row.position_ids)]
    return [
        Tokenised(row.input_ids[a:b], [int(label != IGNORED) for label in row.labels[a:b]]) for a, b in pairwise(starts)
    ]


@given(st.lists(dialogue(), max_size=40), st.integers(20, 60), st.integers(1, 8))
def test_every_token_is_kept_once(dialogues, row_tokens, open_rows):
    rows = list(pack(dialogues, row_tokens=row_tokens, open_rows=open_rows))
    assert all(0 < len(row.input_ids) <= row_tokens for row in rows)
    assert sorted(item for row in rows for item in unpacked(row)) == sorted(dialogues)
    assert all(
        label in (IGNORED, token) for row in rows for token, label in zip(row.input_ids, row.labels, strict=True)
    )


@given(st.lists(dialogue(), max_size=40))
def test_one_open_row_keeps_the_order(dialogues):
    rows = pack(dialogues, row_tokens=40, open_rows=1)
    assert [item for row in rows for item in unpacked(row)] == dialogues


def test_rows_are_well_filled():
    lengths = [7 + 5 * i % 23 for i in range(400)]
    rows = list(pack((Tokenised([1] * n, [0] * (n - 1) + [1]) for n in lengths), row_tokens=64))
    assert sum(lengths) / (64 * len(rows)) > 0.9


def test_is_lazy():
    endless = iter(lambda: Tokenised([1, 2], [0, 1]), None)
    assert len(next(pack(endless, row_tokens=8, open_rows=1)).input_ids) == 8


def test_first_token_is_never_trained():
    row = next(pack([Tokenised([5, 6], [1, 1])], row_tokens=4))
    assert row.labels == [IGNORED, 6]


def test_too_long_is_an_error():
    with pytest.raises(ValueError, match="5 tokens does not fit a row of 4"):
        list(pack([Tokenised([1] * 5, [0, 1, 1, 1, 1])], row_tokens=4))


def test_tokens_are_counted_by_mode():
    row = next(pack([Tokenised([1, 2, 3], [0, 1, 1], "a"), Tokenised([1, 2], [0, 1], "b")], row_tokens=8))
    assert (row.dialogues, row.trained) == (2, {"a": 2, "b": 1})


def test_collate_pads_with_a_sequence_of_its_own():
    rows = [row.tensors() for row in pack([Tokenised([5, 6, 7], [0, 1, 1]), Tokenised([8, 9], [0, 1])], row_tokens=3)]
    batch = collate(rows, pad_token_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]
    assert batch["position_ids"].tolist() == [[0, 1, 2], [0, 1, 0]]


MODEL = create_model(build_tokenizer(), seed=0, sliding_window=5).double()


def summed_loss(**inputs: torch.Tensor) -> torch.Tensor:
    labels = inputs.pop("labels")[:, 1:]
    logits = MODEL(**inputs, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def gradient(loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([item.flatten() for item in torch.autograd.grad(loss, list(MODEL.parameters()))])


@settings(max_examples=10, deadline=None)
@given(st.lists(dialogue(), min_size=2, max_size=6))
def test_packed_loss_and_gradient_equal_those_alone(dialogues):
    rows = [row.tensors() for row in pack(dialogues, row_tokens=32)]
    packed = summed_loss(**collate(rows, pad_token_id=0))
    alone = torch.stack([
        summed_loss(
            input_ids=torch.tensor([ids]),
            labels=torch.tensor([[i if on else IGNORED for i, on in zip(ids, mask, strict=True)]]),
        )
        for ids, mask, _ in dialogues
    ]).sum()  # fmt: skip
    assert packed.item() == pytest.approx(alone.item(), rel=1e-10)
    expected = gradient(alone)
    assert ((gradient(packed) - expected).norm() / expected.norm()).item() < 1e-9
