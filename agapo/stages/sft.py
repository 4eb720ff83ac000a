"""Supervised fine-tuning: dialogues in, a Hugging Face folder out.

    source ──rows──► tokens, loss mask ──pack──► rows ──► TRL's SFTTrainer ──► hf/

Dialogues are taken in the source's order, since the order may be a curriculum, and again from the start when they
run out before `steps` is reached. Left out of this thin stage, on purpose: several hosts, ZeRO and resuming.
"""

import json
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
from agapo.errors import UserError
from agapo.model.loading import create_model, export_hf, load_model, load_tokenizer
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe import SFTRecipe
from agapo.resolve import resolve
from agapo.schema import MODES
from agapo.stages.packing import PackedRow, Tokenised, collate, pack
from agapo.stages.sft_progress import ProgressCallback

log = logging.getLogger(__name__)

Evaluate = Callable[[Path], "Evaluation"]
"""From a Hugging Face folder to its score on held-out questions."""


@dataclass(frozen=True)
class Evaluation:
    """Greedy accuracy on held-out questions."""

    accuracy: dict[str, float]
    """By mode; 0 to 1."""
    tokens_generated: int = 0
    reward_errors: int = 0


@dataclass
class TokenCount:
    """What went into the packed rows."""

    trained: Counter[str] = field(default_factory=Counter)
    """Trained tokens (the last turns') by mode."""
    dialogues: int = 0
    too_long: int = 0
    """Dialogues left out because they are longer than a row."""
    epochs: int = 0
    """Times the source was started; the last pass may have been cut."""

    @property
    def token_ratio(self) -> float | None:
        """Reasoning tokens to non-reasoning tokens, trained; None without any of the latter."""
        plain = self.trained["non_reasoning"]
        return self.trained["reasoning"] / plain if plain else None


@dataclass(frozen=True)
class TrainResult:
    """What training did."""

    steps: int
    loss: float
    """Mean loss in nats a trained token over the last logged steps."""
    wall_s: float
    count: TokenCount


def run_sft(recipe: SFTRecipe, recipe_path: Path, evaluate: Evaluate) -> Path:
    """Run the stage in `recipe.run_directory`: evaluate, train, export, evaluate. Returns the exported folder."""
    started = time.monotonic()
    directory = recipe.run_directory
    directory.mkdir(parents=True, exist_ok=True)
    before = evaluate(start_folder(recipe))
    result = train(recipe, directory)
    after = evaluate(recipe.hf_directory)
    write_summary(recipe, recipe_path, before, after, result, time.monotonic() - started)
    return recipe.hf_directory


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


def train(recipe: SFTRecipe, directory: Path) -> TrainResult:
    """Train for `recipe.steps` steps and export to `directory/hf`; metrics go to `directory/metrics.jsonl`.

    The same recipe gives the same weights (on the same hardware and thread count). Raises UserError for rows that
    cannot be trained on.
    """
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    model, tokenizer = load_start(recipe)
    count = TokenCount()
    rows = _packed_rows(recipe, tokenizer, count)
    started = time.monotonic()
    loss = _fit(recipe, directory, model, tokenizer, rows)
    export_hf(model, tokenizer, directory / "hf")
    return TrainResult(recipe.steps, loss, time.monotonic() - started, count)


def _fit(
    recipe: SFTRecipe,
    directory: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[PackedRow],
) -> float:
    progress = ProgressCallback(recipe.steps, directory / "metrics.jsonl")
    trainer = SFTTrainer(
        model=model,
        args=_trainer_config(recipe, directory),
        train_dataset=Dataset.from_list([row.tensors() for row in rows]),
        data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id),  # pyright: ignore[reportArgumentType]
        processing_class=tokenizer,
    )
    progress.take_over(trainer)
    trainer.train()
    return progress.loss


def _trainer_config(recipe: SFTRecipe, directory: Path) -> SFTConfig:
    training = recipe.training
    return SFTConfig(
        output_dir=str(directory),
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
        logging_steps=max(1, min(20, recipe.steps // 20)),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def _packed_rows(recipe: SFTRecipe, tokenizer: PreTrainedTokenizerBase, count: TokenCount) -> list[PackedRow]:
    """As many packed rows as training takes, and no more: the source may be endless."""
    row_tokens = recipe.training.row_tokens
    dialogues = _tokenised(recipe, tokenizer, count)
    rows = list(islice(pack(dialogues, row_tokens=row_tokens), recipe.steps * recipe.training.rows_per_step))
    count.dialogues = sum(row.dialogues for row in rows)
    count.trained = sum((row.trained for row in rows), Counter())
    if count.too_long:
        log.warning("left out %d dialogues longer than training.row_tokens (%d)", count.too_long, row_tokens)
    return rows


def _tokenised(recipe: SFTRecipe, tokenizer: PreTrainedTokenizerBase, count: TokenCount) -> Iterator[Tokenised]:
    """Yield the dialogues that fit a row, over and over."""
    row_tokens = recipe.training.row_tokens
    while True:
        count.epochs += 1
        usable = False
        for number, row in enumerate(read_dialogues(recipe), start=1):
            check_dialogue(row, f"{recipe.data.source}: row {number}")
            token_ids, mask = dialogue_ids(tokenizer, row["messages"], row["mode"], row.get("tools"))
            if len(token_ids) > row_tokens:
                count.too_long += 1
                continue
            usable = True
            yield Tokenised(token_ids, mask, row["mode"])
        if not usable:
            raise UserError(f"{recipe.data.source}: no dialogue fits training.row_tokens ({row_tokens})")


def read_dialogues(recipe: SFTRecipe) -> Iterator[dict[str, Any]]:
    """Call the recipe's source of dialogues."""
    data = recipe.data
    path = {"path": data.path} if data.path else {}
    try:
        return iter(resolve(data.source, key="data.source")("train", **data.args, **path))
    except TypeError as error:
        raise UserError(f"data.args: {data.source} does not take them: {error}") from error


def check_dialogue(row: dict[str, Any], place: str) -> None:
    """Raise UserError unless the row is a dialogue in a known mode that ends with the assistant's turn."""
    messages = row.get("messages")
    if not messages or messages[-1].get("role") != "assistant":
        raise UserError(f"{place}: column 'messages' should be a chat that ends with the assistant's turn")
    if row.get("mode") not in MODES:
        raise UserError(f"{place}: column 'mode' is {row.get('mode')!r}; should be {' or '.join(MODES)}")


def write_summary(
    recipe: SFTRecipe, recipe_path: Path, before: Evaluation, after: Evaluation, result: TrainResult, wall_s: float
) -> None:
    """Write `summary.json`."""
    summary = {
        "stage": recipe.stage,
        "steps": result.steps,
        "before": before.accuracy,
        "after": after.accuracy,
        "loss": result.loss,
        "wall_s": wall_s,
        "train_s": result.wall_s,
        "tokens_generated": before.tokens_generated + after.tokens_generated,
        "reward_errors": before.reward_errors + after.reward_errors,
        "model": str(recipe.hf_directory),
        "parent": recipe.model.path,
        "recipe": str(recipe_path),
        "seed": recipe.run.seed,
        "token_ratio": result.count.token_ratio,
        "trained_tokens": dict(result.count.trained),
        "dialogues": result.count.dialogues,
        "dialogues_too_long": result.count.too_long,
        "epochs": result.count.epochs,
    }
    (recipe.run_directory / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
