"""One rank of a TRL trainer: the model under DeepSpeed, the packed rows, checkpoints, and the way metrics take home.

Runs inside a Ray actor (`ranks.py`), which has joined the process group. ZeRO 0 goes without DeepSpeed,
as plain data parallelism; 1 to 3 shard. Whatever the stage, ranks and micro-batches, a step's loss is the mean over
the trained tokens of all its rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, set_seed

from agapo.learner.deepspeed_config import deepspeed_config, skip_compiled_extension
from agapo.learner.on_disk import keep_on_disk
from agapo.learner.trl.packing import collate, packed_rows, unflatten
from agapo.learner.trl.token_file import PLAN, TokenFile
from agapo.model.adapters import adapter_config
from agapo.model.loading import load_model, load_tokenizer, replace_folder
from agapo.recipe.lora import LoRAConfig, quantizes
from agapo.recipe.model import ModelConfig
from agapo.recipe.run import CheckpointConfig
from agapo.recipe.trainer import PreferenceTrainingConfig, SFTTrainingConfig

UNFINISHED = ".unfinished"
"""Folder below the checkpoints where transformers writes one before it is moved to its place."""


@dataclass(frozen=True)
class FineTuning:
    """What every rank is told: sections of the recipe, and what the driver has found out. All hosts see all paths."""

    model_path: str
    """Folder or hub name of the model before training."""
    data: Path
    """Folder with the token files and `plan.npz`, or with the pairs and their order."""
    checkpoints: Path
    weights: Path
    """Where rank 0 leaves the trained weights (a Hugging Face folder, or a LoRA adapter)."""
    steps: int
    seed: int
    model: ModelConfig
    training: SFTTrainingConfig | PreferenceTrainingConfig
    checkpoint: CheckpointConfig
    threads: int = 1
    """CPU threads of a rank; `training.threads` may leave them to the machine."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """What checkpoints carry for the main loop, besides the step."""
    universal: bool = False
    """Whether the checkpoint to go on from is in its universal form (`agapo.learner.universal`)."""

    @property
    def sharded(self) -> bool:
        """Whether DeepSpeed runs."""
        return self.training.zero_stage > 0

    @property
    def on_gpu(self) -> bool:
        """Whether the ranks run on GPUs."""
        return self.training.gpus_per_rank > 0

    @property
    def bfloat16(self) -> bool:
        """Whether the model computes in bfloat16."""
        return self.model.dtype == "bfloat16"

    @property
    def loaded_dtype(self) -> str:
        """The weights' type in memory.

        In bfloat16 small updates are lost, so somebody has to keep float32 weights: DeepSpeed does; without it,
        the model itself is float32 and computes in bfloat16 (autocast). A frozen model under adapters needs none.
        """
        return self.model.dtype if self.sharded or self.training.lora else "float32"


def make_trainer(settings: FineTuning, callbacks: list[TrainerCallback]) -> Any:
    """Return the SFTTrainer of this rank. Raises UserError, or what TRL raises, where the settings cannot work."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    arguments = prepare(settings, SFTConfig, dataset_kwargs={"skip_prepare_dataset": True})
    tokenizer = load_tokenizer(settings.model_path)
    trainer = SFTTrainer(
        model=trainable_model(settings),  # pyright: ignore[reportArgumentType]
        args=arguments,
        train_dataset=read_rows(settings.data),
        data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id),  # pyright: ignore[reportArgumentType]
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    quieten(trainer)
    return trainer


def prepare(settings: FineTuning, kind: type[TrainingArguments], **more: Any) -> Any:
    """Make this process ready to train, and return `training_arguments`; call it before the model is loaded.

    Under ZeRO-3, transformers loads the model in shards once the arguments are there.
    """
    if settings.sharded:
        skip_compiled_extension()
    if settings.training.offload_folder:
        keep_on_disk(settings.training.offload_folder)
    arguments = training_arguments(settings, kind, **more)
    # After accelerate, which has a mind of its own about threads.
    torch.set_num_threads(settings.threads)
    # The trainer seeds too, but adapters are drawn before it is made.
    set_seed(settings.seed)
    return arguments


def fine_tune(trainer: Any, settings: FineTuning, resume_from: Path | None = None) -> None:
    """Train from the start, or from a checkpoint's folder. Collective.

    At the end of all steps the trained weights are in `settings.weights`; before, it was told to stop, and has saved.
    """
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if trainer.state.global_step >= settings.steps:
        save_weights(trainer, settings)


def read_rows(folder: Path) -> Dataset:
    """Return the run's packed rows."""
    with np.load(folder / PLAN) as plan:
        return packed_rows(TokenFile(folder), unflatten(plan["indices"], plan["ends"]))


def trainable_model(settings: FineTuning) -> nn.Module:
    """Return the model, with adapters where the recipe has them."""
    model = plain_model(settings)
    lora = settings.training.lora
    return with_adapters(model, lora) if lora else model


def plain_model(settings: FineTuning) -> PreTrainedModel:
    """Return the model without adapters."""
    return load_model(
        settings.model_path,
        dtype=settings.loaded_dtype,
        attention=settings.model.attention,
        gradient_checkpointing=settings.model.gradient_checkpointing,
        rope=settings.model.rope_fields,
        quantized=quantizes(settings.training.lora),
    )


def with_adapters(model: PreTrainedModel, lora: LoRAConfig) -> nn.Module:
    """Return the model with LoRA adapters, only they trainable."""
    from peft import get_peft_model

    # Checkpointed blocks pass gradients on only where their input has one.
    model.enable_input_require_grads()
    return get_peft_model(model, adapter_config(lora))  # pyright: ignore[reportReturnType]


def training_arguments(settings: FineTuning, kind: type[TrainingArguments], **more: Any) -> Any:
    """Return TRL's configuration of a kind, with `more` that only this kind has."""
    own = settings.training
    return kind(
        output_dir=str(settings.checkpoints / UNFINISHED),
        max_steps=settings.steps,
        per_device_train_batch_size=own.micro_rows,
        gradient_accumulation_steps=own.accumulation,
        # One kernel over all weights instead of several passes.
        optim="adamw_torch_fused",
        learning_rate=own.learning_rate,
        # transformers' own `constant` goes without the warm-up.
        lr_scheduler_type=own.schedule.replace("constant", "constant_with_warmup"),
        warmup_steps=own.warmup_steps,
        weight_decay=own.weight_decay,
        max_grad_norm=own.max_grad_norm,
        seed=settings.seed,
        train_sampling_strategy="sequential",
        bf16=settings.bfloat16,
        gradient_checkpointing=settings.model.gradient_checkpointing,
        # Not by ACCELERATE_USE_CPU, with which accelerate forgets about DeepSpeed.
        use_cpu=not settings.on_gpu,
        deepspeed=sharding(settings) if settings.sharded else None,
        ddp_find_unused_parameters=False,
        # Each step is logged, so that a resumed run's record is that of an undisturbed one.
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.checkpoint.every,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=settings.on_gpu,
        **more,
    )


def sharding(settings: FineTuning) -> dict[str, Any]:
    """Return DeepSpeed's configuration, in agreement with the trainer's."""
    own = settings.training
    return deepspeed_config(
        zero_stage=own.zero_stage,
        bfloat16=settings.bfloat16,
        max_grad_norm=own.max_grad_norm,
        micro_rows=own.micro_rows,
        accumulation=own.accumulation,
        offload=own.offload,
        pinned=settings.on_gpu or own.offload_folder is not None,
        universal=settings.universal,
    )


def quieten(trainer: Any) -> None:
    """The driver shows progress; the trainer's own printing would repeat it on every rank."""
    from transformers import PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)


def save_weights(trainer: Any, settings: FineTuning) -> None:
    """Write the trained weights, whole or not at all. Collective."""
    if settings.loaded_dtype != settings.model.dtype:
        trainer.model.to(getattr(torch, settings.model.dtype))
    # The trainer has switched the KV cache off; see `export_hf`.
    trainer.model.config.use_cache = True
    beside = settings.weights.with_name(f".{settings.weights.name}.unfinished")
    trainer.save_model(str(beside))
    if trainer.is_world_process_zero():
        (beside / "training_args.bin").unlink(missing_ok=True)
        replace_folder(beside, settings.weights)
