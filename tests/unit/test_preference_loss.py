"""SimPER and DPO: against closed forms in float64, TRL's own DPO, and whatever the layout of a micro-batch."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from agapo.algorithm.preference import dpo_loss, simper_loss
from agapo.learner.trl.fine_tuning import FineTuning
from agapo.learner.trl.packing import IGNORED
from agapo.learner.trl.preference import (
    ORDER,
    PreferenceTrainer,
    collate_pairs,
    make_preference_trainer,
    save_pairs,
)
from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.model import ModelConfig
from agapo.recipe.run import CheckpointConfig
from agapo.recipe.trainer import PreferenceTrainingConfig
from tests.builders import tiny_exaone, token_logprobs

Ids = Sequence[int]


def pair(prompt: Ids, chosen: Ids, rejected: Ids) -> dict[str, Any]:
    return {"prompt_ids": list(prompt), "chosen_ids": list(chosen), "rejected_ids": list(rejected)}


PAIRS = [
    pair([5, 9, 7], [11, 12, 2], [13, 2]),
    pair([8, 6], [14], [15, 16, 17, 18, 19, 20, 21, 2]),
    pair([5, 5, 5, 5, 5, 5, 5, 5, 5, 5], [22, 23, 24, 25, 2], [22, 23, 26, 2]),
    pair([30], [31, 32, 33, 34, 35, 36, 37, 38, 39, 2], [40]),
]
"""Of all lengths, across the sliding window of 5."""


def test_simper_is_the_closed_form_with_its_gradient() -> None:
    chosen, rejected = np.array([-3.0, -0.5, -40.0]), np.array([-2.0, -9.0, -1.0])
    lengths = np.array([3, 1, 8]), np.array([1, 30, 2])
    tensors = [torch.tensor(values, requires_grad=True) for values in (chosen, rejected)]
    losses = simper_loss(*tensors, *map(torch.tensor, lengths))
    likelihoods = [np.exp(sums / counts) for sums, counts in zip((chosen, rejected), lengths, strict=True)]
    assert losses.tolist() == pytest.approx((likelihoods[1] - likelihoods[0]).tolist(), rel=1e-14)
    losses.sum().backward()
    for tensor, likelihood, counts, sign in zip(tensors, likelihoods, lengths, (-1, 1), strict=True):
        assert tensor.grad is not None
        assert tensor.grad.tolist() == pytest.approx((sign * likelihood / counts).tolist(), rel=1e-14)


def test_simper_lies_between_minus_one_and_one() -> None:
    best = simper_loss(*(torch.tensor([value], dtype=torch.float64) for value in (0.0, -1e6, 4.0, 4.0)))
    assert best.item() == -1
    assert -best.item() == simper_loss(*(torch.tensor([value]) for value in (-1e6, 0.0, 4.0, 4.0))).item()


def test_dpo_is_the_closed_form_with_its_gradient() -> None:
    values = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (-3.0, -4.0, -3.5, -3.2)]
    loss = dpo_loss(*values, beta=0.3)
    logit = 0.3 * ((-3.0 + 3.5) - (-4.0 + 3.2))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-logit)), rel=1e-14)
    loss.backward()
    slope = 0.3 / (1 + math.exp(logit))
    assert [value.grad.item() for value in values if value.grad is not None] == pytest.approx(
        [-slope, slope, slope, -slope], rel=1e-14
    )


@given(
    pairs=st.lists(
        st.builds(pair, *(st.lists(st.integers(5, 250), min_size=1, max_size=12) for _ in range(3))),
        min_size=1,
        max_size=6,
    ),
    one_row=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_token_of_a_micro_batch_is_there_once_and_belongs_to_its_response(
    pairs: list[dict[str, Any]], one_row: bool
) -> None:
    batch = collate_pairs(pairs, pad_token_id=0, one_row=one_row)
    responses = [item["chosen_ids"] for item in pairs] + [item["rejected_ids"] for item in pairs]
    assert batch["lengths"].tolist() == list(map(len, responses))
    for number, response in enumerate(responses):
        assert batch["input_ids"][batch["sequence"] == number].tolist() == response
    assert torch.equal(batch["labels"] == IGNORED, batch["sequence"] == IGNORED)
    prompts = [item["prompt_ids"] for item in pairs] * 2
    tokens = sum(map(len, [*prompts, *responses]))
    if one_row:
        assert batch["input_ids"].shape == (1, tokens)
    # Padding is one more sequence at a row's end.
    starts = int((batch["position_ids"] == 0).sum())
    padded_rows = starts - len(responses)
    assert 0 <= padded_rows <= len(batch["input_ids"])
    assert (batch["input_ids"].numel() > tokens) == (padded_rows > 0)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "hf"
    export_hf(tiny_exaone(), build_tokenizer(), folder)
    return str(folder)


def tuning(model_path: str, folder: Path, **changes: Any) -> FineTuning:
    """`changes` are of the recipe's `training` section."""
    training: dict[str, Any] = {
        "learning_rate": 1e-3,
        "schedule": "constant",
        "warmup_steps": 0,
        "pairs_per_step": len(PAIRS),
        "beta": 0.3,
    }
    return FineTuning(
        model_path=model_path,
        data=folder / "data",
        checkpoints=folder / "checkpoints",
        weights=folder / "hf",
        steps=1,
        seed=0,
        model=ModelConfig(),
        training=PreferenceTrainingConfig.model_validate(training | changes),
        checkpoint=CheckpointConfig(every=100),
    )


def trainer_of(model_path: str, folder: Path, **changes: Any) -> PreferenceTrainer:
    own = tuning(model_path, folder, **changes)
    if not own.data.exists():
        save_pairs(own.data, PAIRS, range(len(PAIRS)))
    return make_preference_trainer(own, [])


def moved(model: PreTrainedModel) -> PreTrainedModel:
    """The model after some training, so that it is not its own reference."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.02 * torch.randn(value.shape, generator=generator)
    return model


def gradients(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None]).double()


def loss_and_gradient(trainer: Any, layout: Sequence[Sequence[int]], one_row: bool) -> tuple[float, torch.Tensor]:
    """The mean over micro-batches, given by the numbers of their pairs, as the trainer accumulates it."""
    rows = list(trainer.train_dataset)
    trainer.model.zero_grad()
    total = 0.0
    collate = partial(collate_pairs, pad_token_id=0, one_row=one_row)
    for numbers in layout:
        loss = trainer.compute_loss(trainer.model, collate([rows[number] for number in numbers])) / len(layout)
        loss.backward()
        total += loss.item()
    return total, gradients(trainer.model)


def in_float64(loss: str, start: PreTrainedModel, model: PreTrainedModel) -> tuple[float, torch.Tensor]:
    """The closed form, response by response in plain forward passes."""
    model, start = model.double(), start.double().eval()
    model.zero_grad()
    losses = []
    for item in PAIRS:
        both = [(item["prompt_ids"], item[name]) for name in ("chosen_ids", "rejected_ids")]
        chosen, rejected = (token_logprobs(model, *one).sum() for one in both)
        if loss == "simper":
            losses.append((rejected / len(both[1][1])).exp() - (chosen / len(both[0][1])).exp())
        else:
            with torch.no_grad():
                reference = [token_logprobs(start, *one).sum() for one in both]
            losses.append((1 + (-0.3 * (chosen - reference[0] - rejected + reference[1])).exp()).log())
    mean = torch.stack(losses).mean()
    mean.backward()
    return mean.item(), gradients(model)


LAYOUTS: list[tuple[list[list[int]], bool]] = [
    ([[0, 1, 2, 3]], True),
    ([[0, 1, 2, 3]], False),
    ([[3, 0], [2, 1]], True),
    ([[3, 0], [2, 1]], False),
    ([[0], [1], [2], [3]], False),
]
"""Micro-batches, and whether each is one row."""


@pytest.mark.parametrize("loss", ["simper", "dpo"])
def test_loss_and_gradient_are_the_closed_forms_whatever_the_layout(model_path: str, tmp_path: Path, loss: str) -> None:
    trainer = trainer_of(model_path, tmp_path, loss=loss)
    moved(trainer.model)
    truth, slope = in_float64(loss, tiny_exaone(), moved(tiny_exaone()))
    for layout, one_row in LAYOUTS:
        value, gradient = loss_and_gradient(trainer, layout, one_row)
        assert value == pytest.approx(truth, rel=1e-5)
        assert (gradient - slope).norm() < 1e-5 * slope.norm(), (layout, one_row)


def test_dpo_is_trls(model_path: str, tmp_path: Path) -> None:
    ours = trainer_of(model_path, tmp_path, loss="dpo")
    theirs = DPOTrainer(
        model=model_path,
        args=DPOConfig(
            output_dir=str(tmp_path / "trl"),
            beta=0.3,
            precompute_ref_log_probs=True,
            per_device_train_batch_size=4,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            max_length=None,
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=Tokenised.from_list(PAIRS),
        processing_class=build_tokenizer(),
    )
    rows = list(theirs.train_dataset)
    moved(ours.model)
    moved(theirs.model)
    value, gradient = loss_and_gradient(ours, [[0, 1, 2, 3]], False)
    loss = theirs.compute_loss(theirs.model, theirs.data_collator(rows))
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-5)
    assert (gradient - gradients(theirs.model)).norm() < 1e-5 * gradient.norm()


class Tokenised(Dataset):
    """Pairs that are tokens already, which TRL's own preparation would tokenise."""

    def map(self, function: Any = None, *args: Any, **arguments: Any) -> Dataset:
        if getattr(function, "__name__", "") in ("tokenize_fn", "add_eos", "extract_prompt"):
            return self
        return super().map(function, *args, **arguments)


def test_what_is_shown_of_a_step(model_path: str, tmp_path: Path) -> None:
    trainer = trainer_of(model_path, tmp_path)
    loss_and_gradient(trainer, [[0, 1, 2, 3]], True)
    shown = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    model = tiny_exaone()
    means: Mapping[str, list[float]] = {
        name: [token_logprobs(model, item["prompt_ids"], item[f"{name}_ids"]).mean().item() for item in PAIRS]
        for name in ("chosen", "rejected")
    }
    assert shown["chosen"] == pytest.approx(np.mean(means["chosen"]), rel=1e-5)
    assert shown["rejected"] == pytest.approx(np.mean(means["rejected"]), rel=1e-5)
    won = [a > b for a, b in zip(means["chosen"], means["rejected"], strict=True)]
    assert shown["accuracy"] == pytest.approx(np.mean(won))
    # Nothing has been learned yet.
    assert shown["chosen_drift"] == pytest.approx(0, abs=1e-6)


def test_without_the_starts_logprobs_simper_shows_no_drift(model_path: str, tmp_path: Path) -> None:
    trainer = trainer_of(model_path, tmp_path, start_logprobs=False)
    loss_and_gradient(trainer, [[0, 1]], True)
    assert not {"chosen_drift", "rejected_drift"} & set(trainer._metrics["train"])


def test_pairs_are_trained_on_in_the_order_that_was_drawn(model_path: str, tmp_path: Path) -> None:
    save_pairs(tmp_path / "data", PAIRS, [2, 0, 2, 1])
    trainer = make_preference_trainer(tuning(model_path, tmp_path), [])
    assert [row["chosen_ids"] for row in trainer.train_dataset] == [PAIRS[i]["chosen_ids"] for i in (2, 0, 2, 1)]
    assert np.load(tmp_path / "data" / ORDER).tolist() == [2, 0, 2, 1]
