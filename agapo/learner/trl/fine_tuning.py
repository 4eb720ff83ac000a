"""One rank of a TRL trainer: the model under DeepSpeed, the packed rows, checkpoints, and the way metrics take home.

Runs inside a Ray Train worker (`ray_train.py`), which has set up the process group. ZeRO 0 goes without DeepSpeed,
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

from agapo.learner.no_compiler import skip_compiled_extension
from agapo.learner.trl.packing import collate, packed_rows, unflatten
from agapo.learner.trl.token_file import PLAN, TokenFile
from agapo.model.loading import load_model, load_tokenizer, replace_folder

UNFINISHED = ".unfinished"
"""Folder below the checkpoints where transformers writes one before it is moved to its place."""


@dataclass(frozen=True)
class FineTuning:
    """What every rank is told. All paths are seen by all hosts."""

    model_path: str
    data: Path
    """Folder with the token files and `plan.npz`."""
    checkpoints: Path
    weights: Path
    """Where rank 0 leaves the trained weights (a Hugging Face folder, or a LoRA adapter)."""
    steps: int
    learning_rate: float
    schedule: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    micro_rows: int
    accumulation: int
    seed: int
    save_every: int
    keep: int
    threads: int
    dtype: str = "float32"
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    rope: Mapping[str, Any] | None = None
    zero_stage: int = 0
    offload: bool = False
    lora: Mapping[str, Any] | None = None
    device: str = "cpu"
    state: Mapping[str, Any] = field(default_factory=dict)
    """What checkpoints carry for the main loop, besides the step."""

    @property
    def sharded(self) -> bool:
        """Whether DeepSpeed runs."""
        return self.zero_stage > 0

    @property
    def loaded_dtype(self) -> str:
        """The weights' type in memory.

        In bfloat16 small updates are lost, so somebody has to keep float32 weights: DeepSpeed does; without it,
        the model itself is float32 and computes in bfloat16 (autocast). A frozen model under adapters needs none.
        """
        return self.dtype if self.sharded or self.lora else "float32"


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
    return with_adapters(model, settings.lora) if settings.lora else model


def plain_model(settings: FineTuning) -> PreTrainedModel:
    """Return the model without adapters."""
    return load_model(
        settings.model_path,
        dtype=settings.loaded_dtype,
        attention=settings.attention,
        gradient_checkpointing=settings.gradient_checkpointing,
        rope=settings.rope,
    )


def with_adapters(model: PreTrainedModel, lora: Mapping[str, Any]) -> nn.Module:
    """Return the model with LoRA adapters, only they trainable."""
    from peft import get_peft_model

    # Checkpointed blocks pass gradients on only where their input has one.
    model.enable_input_require_grads()
    return get_peft_model(model, adapter_config(lora))  # pyright: ignore[reportReturnType]


def adapter_config(lora: Mapping[str, Any]) -> Any:
    """Return PEFT's configuration of a recipe's `training.lora`."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=lora["targets"],
        task_type="CAUSAL_LM",
    )


def training_arguments(settings: FineTuning, kind: type[TrainingArguments], **more: Any) -> Any:
    """Return TRL's configuration of a kind, with `more` that only this kind has."""
    return kind(
        output_dir=str(settings.checkpoints / UNFINISHED),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.micro_rows,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        # transformers' own `constant` goes without the warm-up.
        lr_scheduler_type=settings.schedule.replace("constant", "constant_with_warmup"),
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        train_sampling_strategy="sequential",
        bf16=settings.dtype == "bfloat16",
        gradient_checkpointing=settings.gradient_checkpointing,
        # Not by ACCELERATE_USE_CPU, with which accelerate forgets about DeepSpeed.
        use_cpu=settings.device == "cpu",
        deepspeed=deepspeed_config(settings) if settings.sharded else None,
        ddp_find_unused_parameters=False,
        # Each step is logged, so that a resumed run's record is that of an undisturbed one.
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.save_every,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=settings.device != "cpu",
        **more,
    )


def deepspeed_config(settings: FineTuning) -> dict[str, Any]:
    """Return DeepSpeed's configuration; what is `auto` is filled in from the trainer's arguments."""
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    if settings.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": settings.device != "cpu"}
    if settings.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
        zero |= {"offload_param": {"device": "cpu"}} if settings.offload else {}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": zero,
        # PyTorch's AdamW, as without DeepSpeed: its own fused ones want a compiler at run time.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }


def quieten(trainer: Any) -> None:
    """The driver shows progress; the trainer's own printing would repeat it on every rank."""
    from transformers import PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)


def save_weights(trainer: Any, settings: FineTuning) -> None:
    """Write the trained weights, whole or not at all. Collective."""
    if settings.loaded_dtype != settings.dtype:
        trainer.model.to(getattr(torch, settings.dtype))
    # The trainer has switched the KV cache off; see `export_hf`.
    trainer.model.config.use_cache = True
    beside = settings.weights.with_name(f".{settings.weights.name}.unfinished")
    trainer.save_model(str(beside))
    if trainer.is_world_process_zero():
        (beside / "training_args.bin").unlink(missing_ok=True)
        replace_folder(beside, settings.weights)
