"""Supervised fine-tuning: dialogues of both modes in, a Hugging Face folder out.

    sources ──► training data (checked, curated, tokenised, mixed, packed) ──► TRL's SFTTrainer, a Ray Train
    worker a rank ──► hf/ ──► accuracy and thinking by mode, before and after

What can be wrong with the data is found before a worker starts. A run that was stopped goes on from its last
checkpoint with the same rows, and ends with the same weights as one that was not.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from agapo.chat import format_tool_call
from agapo.cluster import threads_for
from agapo.curation.report import CurationReport
from agapo.learner.checkpoint import latest_checkpoint
from agapo.learner.fine_tuning import UNFINISHED, FineTuning
from agapo.learner.ray_train import RAY_TRAIN, run_ranks
from agapo.learner.trainer_callbacks import NAMES, STATE
from agapo.model.loading import create_model, export_hf, load_model, load_tokenizer
from agapo.model.tokenizer import build_tokenizer, train_tokenizer
from agapo.recipe import SFTRecipe
from agapo.recipe.base import ModelConfig
from agapo.schema import Prompt
from agapo.stages.dialogues import read_dialogues
from agapo.stages.interrupt import StopRequest
from agapo.stages.sft_data import TrainingData, question_keys, token_ratio, training_data
from agapo.tracking import MetricsLogger, RunDirectory, StepProgress, read_json
from agapo.tracking.files import read_json_lines


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


@dataclass(frozen=True)
class SFTLoop:
    """A fine-tuning run with everything that it needs."""

    recipe: SFTRecipe
    run: RunDirectory
    start: str
    """Folder or hub name of the model before training."""
    data: TrainingData
    logger: MetricsLogger
    view: StepProgress
    done: int
    """Steps that an earlier process made."""

    def train(self, stop: StopRequest) -> None:
        """Train to the last step and export. Raises Interrupted after saving when a stop was asked for."""
        training = self.recipe.training
        self.write_missing_steps()
        if self.done == self.data.steps and self.run.hf.exists():
            return
        run_ranks(
            self.settings(),
            ranks=training.ranks,
            gpus_per_rank=training.gpus_per_rank,
            max_restarts=training.max_restarts,
            storage=self.run.path,
            done=self.done,
            report=self.report,
            should_stop=stop,
        )
        for scratch in (self.run.path / RAY_TRAIN, self.run.checkpoints / UNFINISHED):
            shutil.rmtree(scratch, ignore_errors=True)
        if training.lora:
            merge_adapter(self.start, self.run.path / "adapter", self.run.hf, self.recipe.model)

    def settings(self) -> FineTuning:
        """Return what every rank is told."""
        recipe, training = self.recipe, self.recipe.training
        return FineTuning(
            model_path=self.start,
            data=self.data.folder,
            checkpoints=self.run.checkpoints,
            weights=self.run.path / "adapter" if training.lora else self.run.hf,
            steps=self.data.steps,
            learning_rate=training.learning_rate,
            schedule=training.schedule,
            warmup_steps=training.warmup_steps,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            micro_rows=training.micro_rows,
            accumulation=training.accumulation,
            seed=recipe.run.seed,
            save_every=recipe.checkpoint.every,
            keep=recipe.checkpoint.keep,
            threads=threads_for(training.threads, training.ranks),
            dtype=recipe.model.dtype,
            attention=recipe.model.attention,
            gradient_checkpointing=recipe.model.gradient_checkpointing,
            rope=recipe.model.rope_fields,
            zero_stage=training.zero_stage,
            offload=training.offload,
            lora=training.lora.model_dump() if training.lora else None,
            device="cuda" if training.gpus_per_rank else "cpu",
            state={"wandb_id": self.logger.wandb_id},
        )

    def write_missing_steps(self) -> None:
        """Write the steps that the checkpoint has made and a driver that was killed had no time to write down."""
        checkpoint = latest_checkpoint(self.run.checkpoints)
        history = read_json(checkpoint.path / STATE / "trainer_state.json") if checkpoint else None
        known = {line["step"] for line in read_json_lines(self.run.metrics)}
        for record in (history or {}).get("log_history", []):
            if "loss" in record and record["step"] not in known:
                metrics = {ours: float(record[theirs]) for theirs, ours in NAMES.items() if theirs in record}
                self.logger.log(record["step"], metrics | mix_metrics(self.data, record["step"]))

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Write a step's numbers down, with what has been trained on so far."""
        if step == self.done + 1:
            self.view.begin(metrics["time/step"])
        metrics = metrics | mix_metrics(self.data, step)
        self.logger.log(step, metrics)
        self.view.update(step, metrics)


@contextmanager
def sft_loop(
    recipe: SFTRecipe, run: RunDirectory, start: str, questions: Sequence[Prompt], stop: StopRequest
) -> Iterator[SFTLoop]:
    """Yield the loop: training data read, logs open, where the run is known. No test question is trained on."""
    checkpoint = latest_checkpoint(run.checkpoints)
    with StepProgress(recipe.steps or 0, name="sft", log_every=100) as view:
        data = training_data(
            recipe,
            load_tokenizer(start),
            run.path / "data",
            tested=question_keys(questions),
            keep=checkpoint is not None,
            announce=view.announce,
            should_stop=stop,
        )
        view.announce(describe(data))
    done = int(checkpoint.state["step"]) if checkpoint else 0
    run.truncate_after(done if checkpoint else -1)
    logger = MetricsLogger(run, recipe, checkpoint.state["wandb_id"] if checkpoint else None, run.resumed)
    failed = 1
    try:
        with StepProgress(data.steps, done, name="sft", log_every=100) as view:
            verb = f"going on from step {done} of" if done else "fine-tuning for"
            view.announce(f"{verb} {data.steps} steps in {run.path}")
            yield SFTLoop(recipe, run, start, data, logger, view, done)
        failed = 0
    finally:
        logger.close(failed)


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
        f"{int(data.trained.sum()):,} trained tokens, {data.passes():.2f} passes over them"
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
    }


def merge_adapter(base: str, adapter: Path, folder: Path, own: ModelConfig) -> None:
    """Export the base model with a LoRA adapter merged into its weights."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_model(base, dtype=own.dtype, rope=own.rope_fields), str(adapter))
    export_hf(model.merge_and_unload(), load_tokenizer(base), folder)  # pyright: ignore[reportArgumentType]
