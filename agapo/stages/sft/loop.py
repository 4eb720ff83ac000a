"""Supervised fine-tuning: dialogues of both modes in, a Hugging Face folder out.

    sources ──► training data (checked, curated, tokenised, mixed, packed) ──► TRL's SFTTrainer, a Ray actor
    a rank ──► hf/ ──► accuracy and thinking by mode, before and after

What can be wrong with the data is found before a worker starts. A run that was stopped goes on from its last
checkpoint with the same rows, and ends with the same weights as one that was not.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from agapo.chat import format_tool_call
from agapo.cluster import threads_for
from agapo.curation.report import CurationReport
from agapo.learner.checkpoint import latest_checkpoint
from agapo.learner.trl.callbacks import NAMES
from agapo.learner.trl.fine_tuning import make_trainer
from agapo.learner.trl.held_out import example_nats
from agapo.learner.trl.ranks import Kind, in_a_process
from agapo.model.loading import create_model, export_hf, load_tokenizer
from agapo.model.tokenizer import build_tokenizer, train_tokenizer
from agapo.recipe import SFTRecipe
from agapo.schema import Prompt
from agapo.stages.running.dialogues import read_dialogues
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.trainer_loop import TrainerLoop, trainer_loop
from agapo.stages.sft.data import TrainingData, question_keys, token_ratio, training_data
from agapo.tracking import RunDirectory, StepProgress


def start_folder(recipe: SFTRecipe, run: RunDirectory, parent: str | None, stop: StopRequest) -> str:
    """Return the folder of the model before training; a created one is written to `start/` first."""
    if parent:
        return parent
    folder = run.path / "start"
    if not folder.exists():
        assert recipe.create
        tokenizer = start_tokenizer(recipe, stop)
        sizes = recipe.create.model_dump(exclude={"vocabulary"})
        export_hf(create_model(tokenizer, seed=recipe.run.seed, **sizes), tokenizer, folder)
    return str(folder)


def start_tokenizer(recipe: SFTRecipe, stop: StopRequest) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a created model: a token a byte, or trained on the recipe's own dialogues."""
    assert recipe.create
    if not recipe.create.vocabulary:
        return build_tokenizer()
    rows = read_dialogues(recipe, CurationReport(), stop)
    return train_tokenizer((text for _, row in rows for text in dialogue_texts(row)), recipe.create.vocabulary)


def dialogue_texts(row: dict[str, Any]) -> Iterator[str]:
    """Yield the texts of a dialogue, tools and tool calls as JSON included."""
    for turn in row["messages"]:
        yield from (str(turn[name]) for name in ("content", "reasoning_content") if turn.get(name))
        yield from map(format_tool_call, turn.get("tool_calls") or [])
    yield from (json.dumps(tool, ensure_ascii=False) for tool in row.get("tools") or [])


@contextmanager
def sft_loop(
    recipe: SFTRecipe, run: RunDirectory, start: str, questions: Sequence[Prompt], stop: StopRequest
) -> Iterator[tuple[TrainerLoop, TrainingData]]:
    """Yield the loop and its data: read, logs open, where the run is known. No test question is trained on."""
    with StepProgress(recipe.steps or 0, name="sft", log_every=100) as view:
        view.announce("reading the dialogues: checked, filtered, tokenised, mixed")
        data = training_data(
            recipe,
            load_tokenizer(start),
            run.path / "data",
            tested=question_keys(questions),
            keep=latest_checkpoint(run.checkpoints) is not None,
            announce=view.announce,
            should_stop=stop,
        )
        view.announce(describe(data))
        for line in data.warnings:
            view.announce(f"warning: {line}")
    kind = Kind(make_trainer, NAMES, "training.micro_batch_rows, or set model.gradient_checkpointing")
    with trainer_loop(
        recipe,
        run,
        start,
        kind,
        steps=data.steps,
        doing="fine-tuning",
        log_every=100,
        more=partial(mix_metrics, data),
    ) as loop:
        yield loop, data


def held_out_loss(recipe: SFTRecipe, folder: str, data: TrainingData, stop: StopRequest) -> float | None:
    """Return the loss of the model in `folder` on the dialogues held out, in nats a trained token; None without any.

    Raises Interrupted.
    """
    if not data.held:
        return None
    examples, own = data.held_out(), recipe.training
    nats = in_a_process(
        example_nats,
        *(folder, recipe.model, examples),
        on_gpu=own.gpus_per_rank > 0,
        should_stop=stop,
        gpu=own.gpus_per_rank > 0,
        threads=threads_for(own.threads, 1),
    )
    return sum(nats) / int(data.trained[data.held].sum())


def describe(data: TrainingData) -> str:
    """Return one line on the data, for the start of a run."""
    report = data.report
    left_out: dict[str, int] = {}
    for item in report["dropped"]:
        left_out[item["filter"]] = left_out.get(item["filter"], 0) + item["rows"]
    dropped = ", ".join(f"{name} {count:,}" for name, count in left_out.items())
    ratio = token_ratio(data.totals("mode"))
    where = data.folder / "dropped.jsonl"
    return (
        f"{report['seen']:,} dialogues read{f' (left out: {dropped}; see {where})' if dropped else ''}, "
        f"{data.amount:,} trained tokens, {data.passes():.2f} passes over them"
        + (f", {len(data.held)} held out" if data.held else "")
        + (f", reasoning : non-reasoning {ratio:.3f} : 1" if ratio is not None else "")
    )


def mix_metrics(data: TrainingData, step: int) -> dict[str, float]:
    """Return the trained tokens so far, and the ratio of the modes, after `step` steps."""
    by_mode = data.totals("mode", until=step)
    ratio = token_ratio(by_mode)
    metrics = {f"data/tokens/{mode}": float(count) for mode, count in by_mode.items()}
    for field in ("domain", "language"):
        counts = data.totals(field, until=step)
        metrics |= {f"data/{field}/{name}": count / sum(counts.values()) for name, count in counts.items()}
    return metrics | ({"data/token_ratio": ratio} if ratio is not None else {})


def data_summary(data: TrainingData) -> dict[str, Any]:
    """Return what the run was made of, for `summary.json`."""
    trained = data.totals("mode")
    return {
        "token_ratio": token_ratio(trained),
        "trained_tokens": trained,
        "trained_tokens_by_domain": data.totals("mode", "domain"),
        "trained_tokens_by_language": data.totals("mode", "language"),
        "passes": round(data.passes(), 3),
        "fill": round(data.fill(), 4),
        "curation": data.report,
        **({"warnings": data.warnings} if data.warnings else {}),
    }
