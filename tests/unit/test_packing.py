"""Packing for SFT: nothing is lost, and a packed batch has the loss and gradient of its dialogues alone."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agapo.learner.trl.packing import IGNORED, Example, collate, flatten, join, pack, packed_rows, unflatten
from agapo.learner.trl.token_file import TokenFile, TokenWriter
from agapo.model.loading import create_model
from agapo.model.tokenizer import build_tokenizer


@st.composite
def dialogue(draw, longest: int = 20) -> Example:
    """Random tokens, of which any after the first may be trained."""
    ids = draw(st.lists(st.integers(3, 200), min_size=2, max_size=longest))
    mask = draw(st.lists(st.integers(0, 1), min_size=len(ids) - 1, max_size=len(ids) - 1))
    return Example(ids, [0, *mask])


def packed(dialogues: list[Example], row_tokens: int, **options) -> list[dict[str, torch.Tensor]]:
    rows = list(pack(((i, len(item.token_ids)) for i, item in enumerate(dialogues)), row_tokens=row_tokens, **options))
    data = packed_rows(dialogues, rows)
    return [data[number] for number in range(len(rows))]


def unpacked(row: dict[str, torch.Tensor]) -> list[Example]:
    """Cut a row where its positions restart."""
    ids, labels, positions = (row[name].tolist() for name in ("input_ids", "labels", "position_ids"))
    starts = [i for i, position in enumerate(positions) if position == 0] + [len(ids)]
    return [Example(ids[a:b], [int(label != IGNORED) for label in labels[a:b]]) for a, b in pairwise(starts)]


@given(st.lists(dialogue(), max_size=40), st.integers(20, 60), st.integers(1, 8))
def test_every_token_is_kept_once(dialogues, row_tokens, open_rows):
    rows = packed(dialogues, row_tokens, open_rows=open_rows)
    assert all(0 < len(row["input_ids"]) <= row_tokens for row in rows)
    assert sorted(item for row in rows for item in unpacked(row)) == sorted(dialogues)
    for row in rows:
        assert set((row["labels"] - row["input_ids"])[row["labels"] != IGNORED].tolist()) <= {0}


@given(st.lists(dialogue(), max_size=40))
def test_one_open_row_keeps_the_order(dialogues):
    assert [item for row in packed(dialogues, 40, open_rows=1) for item in unpacked(row)] == dialogues


@given(st.lists(st.integers(1, 20), min_size=1, max_size=80), st.integers(1, 12), st.integers(1, 8))
def test_a_number_of_rows_holds_exactly_the_first_examples(lengths, rows, open_rows):
    found = list(pack(enumerate(lengths), row_tokens=20, rows=rows, open_rows=open_rows))
    assert len(found) <= rows
    inside = sorted(index for row in found for index in row)
    assert inside == list(range(len(inside)))
    assert len(inside) == len(lengths) or len(found) == rows


def test_rows_are_well_filled():
    lengths = [7 + 5 * i % 23 for i in range(400)]
    assert sum(lengths) / (64 * len(list(pack(enumerate(lengths), row_tokens=64)))) > 0.9


def test_is_lazy():
    endless = iter(lambda: (0, 2), None)
    assert next(pack(endless, row_tokens=8, open_rows=1)) == [0, 0, 0, 0]


def test_first_token_is_never_trained():
    assert join([Example([5, 6], [1, 1])])["labels"].tolist() == [IGNORED, 6]


def test_too_long_is_an_error():
    with pytest.raises(ValueError, match="5 tokens does not fit a row of 4"):
        list(pack([(0, 5)], row_tokens=4))


def test_collate_pads_with_a_sequence_of_its_own():
    rows = [join([Example([5, 6, 7], [0, 1, 1])]), join([Example([8, 9], [0, 1])])]
    batch = collate(rows, pad_token_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]
    assert batch["position_ids"].tolist() == [[0, 1, 2], [0, 1, 0]]


@given(st.lists(dialogue(), min_size=1, max_size=20))
def test_the_token_file_gives_back_what_was_written(tmp_path_factory, dialogues):
    folder = tmp_path_factory.mktemp("tokens")
    with TokenWriter(folder) as writer:
        for item in dialogues:
            writer.add(item)
    file = TokenFile(folder)
    assert len(file) == len(dialogues)
    assert [file[index] for index in range(len(file))] == dialogues


@given(st.lists(st.lists(st.integers(0, 99), min_size=1)))
def test_rows_survive_their_file(rows):
    assert unflatten(*flatten(rows)) == rows


MODEL = create_model(build_tokenizer(), seed=0, sliding_window=5).double()


def summed_loss(**inputs: torch.Tensor) -> torch.Tensor:
    labels = inputs.pop("labels")[:, 1:]
    logits = MODEL(**inputs, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def gradient(loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([item.flatten() for item in torch.autograd.grad(loss, list(MODEL.parameters()))])


@settings(max_examples=15, deadline=None)
@given(st.lists(dialogue(), min_size=2, max_size=6), st.integers(20, 50), st.sampled_from(["train", "eval"]))
def test_packed_loss_and_gradient_equal_those_alone(dialogues, row_tokens, mode):
    dialogues = [*dialogues, Example([5, 6, 7], [0, 1, 1])]
    getattr(MODEL, mode)()
    together = summed_loss(**collate(packed(dialogues, row_tokens), pad_token_id=0))
    alone = torch.stack([
        summed_loss(**{name: values[None] for name, values in join([item]).items() if name != "position_ids"})
        for item in dialogues
    ]).sum()  # fmt: skip
    assert together.item() == pytest.approx(alone.item(), rel=1e-10)
    expected = gradient(alone)
    assert ((gradient(together) - expected).norm() / expected.norm()).item() < 1e-9


@pytest.mark.filterwarnings("ignore")
def test_trl_s_own_loss_on_packed_rows_is_the_mean_over_trained_tokens():
    """What the trainer computes: its fused head on the packed batch, against each dialogue alone in float64."""
    from trl.trainer.utils import add_fused_lm_head

    dialogues = [Example([7, 8, 9, 10], [0, 0, 1, 1]), Example([11, 12], [0, 1]), Example([13] * 9, [0] + [1] * 8)]
    batch = collate(packed(dialogues, 16), pad_token_id=0)
    alone = sum(
        summed_loss(**{name: values[None] for name, values in join([item]).items() if name != "position_ids"})
        for item in dialogues
    )
    model = create_model(build_tokenizer(), seed=0, sliding_window=5)
    add_fused_lm_head(model)
    found = model(**batch, fused_lm_head=True)
    trained = sum(sum(item.mask) for item in dialogues)
    assert math.isclose(float(found.loss), float(alone) / trained, rel_tol=1e-5)
