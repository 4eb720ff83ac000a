"""Supervised fine-tuning: dialogues in, a Hugging Face folder out.

    source ──rows──► tokens, loss mask ──pack──► rows ──► TRL's SFTTrainer ──► hf/

Dialogues are taken in the source's order, since the order may be a curriculum, and again from the start when they
run out before `steps` is reached. Left out of this thin stage, on purpose: several hosts, ZeRO and resuming.
Measuring the model before and after is `stages.launch`'s part.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from agapo.chat import dialogue_ids
from agapo.curation.mixing import interleave
from agapo.curation.prompts import read_rows
from agapo.errors import UserError
from agapo.model.loading import create_model, export_hf, load_model, load_tokenizer
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe import SFTRecipe
from agapo.schema import MODES
from agapo.stages.packing import PackedRow, Tokenised, collate, pack
from agapo.stages.sft_progress import ProgressCallback

log = logging.getLogger(__name__)

Report = Callable[[int, dict[str, float]], None]
"""Called at each logged step (counted from 1) with its metrics."""


@dataclass
class SourceCount:
    """What happened while the source was read."""

    too_long: int = 0
    epochs: Counter[str] = field(default_factory=Counter)
    """By source."""


@dataclass(frozen=True)
class TrainResult:
    """What training did."""

    steps: int
    loss: float
    """Mean loss in nats a trained token over the last logged steps."""
    train_s: float
    token_ratio: float | None
    """Reasoning tokens to non-reasoning tokens, of those trained; None without any of the latter."""
    trained_tokens: dict[str, int]
    """By mode."""
    dialogues: int
    dialogues_too_long: int
    """Left out because they are longer than a row."""
    epochs: int
    """Times the source was started; the last pass may have been cut."""


def start_folder(recipe: SFTRecipe) -> Path:
    """Return the folder of the model before training; a created one is written to `start/` first."""
    if recipe.model.path:
        return Path(recipe.model.path)
    folder = recipe.run_directory / "start"
    export_hf(*load_start(recipe), folder)
    return folder


def load_start(recipe: SFTRecipe) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return model and tokenizer to train: created from the recipe's seed, or loaded."""
    if recipe.create:
        tokenizer = build_tokenizer()
        return create_model(tokenizer, seed=recipe.run.seed, **recipe.create.model_dump()), tokenizer
    assert recipe.model.path
    settings = recipe.model.model_dump(include={"dtype", "attention", "gradient_checkpointing"})
    return load_model(recipe.model.path, **settings), load_tokenizer(recipe.model.path)


def train(recipe: SFTRecipe, report: Report) -> TrainResult:
    """Train for `recipe.steps` steps and export to `recipe.hf_directory`; `report` gets the metrics.

    The same recipe gives the same weights (on the same hardware and thread count). Raises UserError for rows that
    cannot be trained on.
    """
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    model, tokenizer = load_start(recipe)
    count = SourceCount()
    rows = _packed_rows(recipe, tokenizer, count)
    started = time.monotonic()
    loss = _fit(recipe, report, model, tokenizer, rows)
    export_hf(model, tokenizer, recipe.hf_directory)
    return _result(recipe.steps, loss, time.monotonic() - started, rows, count)


def _result(steps: int, loss: float, train_s: float, rows: list[PackedRow], count: SourceCount) -> TrainResult:
    trained: Counter[str] = sum((row.trained for row in rows), Counter())
    plain = trained["non_reasoning"]
    return TrainResult(
        steps=steps,
        loss=loss,
        train_s=train_s,
        token_ratio=trained["reasoning"] / plain if plain else None,
        trained_tokens=dict(trained),
        dialogues=sum(row.dialogues for row in rows),
        dialogues_too_long=count.too_long,
        epochs=max(count.epochs.values(), default=0),
    )


def _fit(
    recipe: SFTRecipe,
    report: Report,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[PackedRow],
) -> float:
    progress = ProgressCallback(report)
    trainer = SFTTrainer(
        model=model,
        args=_trainer_config(recipe),
        train_dataset=Dataset.from_list([row.tensors() for row in rows]),
        data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id),  # pyright: ignore[reportArgumentType]
        processing_class=tokenizer,
    )
    progress.take_over(trainer)
    trainer.train()
    return progress.loss


def _trainer_config(recipe: SFTRecipe) -> SFTConfig:
    training = recipe.training
    return SFTConfig(
        output_dir=str(recipe.run_directory),
        max_steps=recipe.steps,
        per_device_train_batch_size=training.rows_per_step,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=recipe.run.seed,
        train_sampling_strategy="sequential",
        bf16=recipe.model.dtype == "bfloat16",
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=max(1, min(10, recipe.steps // 20)),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def _packed_rows(recipe: SFTRecipe, tokenizer: PreTrainedTokenizerBase, count: SourceCount) -> list[PackedRow]:
    """As many packed rows as training takes, and no more: the source may be endless."""
    row_tokens = recipe.training.row_tokens
    dialogues = _tokenised(recipe, tokenizer, count)
    rows = list(islice(pack(dialogues, row_tokens=row_tokens), recipe.steps * recipe.training.rows_per_step))
    if count.too_long:
        log.warning("left out %d dialogues longer than training.row_tokens (%d)", count.too_long, row_tokens)
    return rows


def _tokenised(recipe: SFTRecipe, tokenizer: PreTrainedTokenizerBase, count: SourceCount) -> Iterator[Tokenised]:
    """Yield the dialogues that fit a row, over and over; of several sources each has its share of them."""
    parts = {name: source for name, source in recipe.data.parts.items() if source.weight}
    streams = {name: _dialogues(recipe, name, tokenizer, count) for name in parts}
    for name in interleave({name: source.weight for name, source in parts.items()}):
        yield next(streams[name])


def _dialogues(
    recipe: SFTRecipe, name: str, tokenizer: PreTrainedTokenizerBase, count: SourceCount
) -> Iterator[Tokenised]:
    data, row_tokens = recipe.data.parts[name], recipe.training.row_tokens
    key = f"data.sources.{name}" if recipe.data.sources else "data"
    while True:
        count.epochs[name] += 1
        usable = False
        for number, row in enumerate(read_rows(data.source, "train", data.args, data.path, key), start=1):
            check_dialogue(row, f"{data.source}: row {number}")
            token_ids, mask = dialogue_ids(tokenizer, row["messages"], row["mode"], row.get("tools"))
            if len(token_ids) > row_tokens:
                count.too_long += 1
                continue
            usable = True
            yield Tokenised(token_ids, mask, row["mode"])
        if not usable:
            raise UserError(f"{data.source}: no dialogue fits training.row_tokens ({row_tokens})")


def check_dialogue(row: dict[str, Any], place: str) -> None:
    """Raise UserError unless the row is a dialogue in a known mode that ends with the assistant's turn."""
    messages = row.get("messages")
    if not messages or messages[-1].get("role") != "assistant":
        raise UserError(f"{place}: column 'messages' should be a chat that ends with the assistant's turn")
    if row.get("mode") not in MODES:
        raise UserError(f"{place}: column 'mode' is {row.get('mode')!r}; should be {' or '.join(MODES)}")
