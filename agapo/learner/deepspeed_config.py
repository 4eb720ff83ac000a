"""DeepSpeed as every stage uses it: the RL learner, its sharded reference, SFT and preference learning.

Gradients are summed over micro-batches in float32, whatever the weights' type: a sum of like-signed bfloat16 numbers
stops growing at 256 of them. Without ZeRO DeepSpeed can do that for float32 weights only, and is told ZeRO 1 instead
(`agapo.recipe.sharding`). Under ZeRO 1 the ranks' sums are also added up in float32, once a step; under 2 and 3 each
micro-batch's gradients are, in the weights' type, before they join the float32 sum.
"""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agapo.recipe.sharding import stage_run

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""glibc's M_MMAP_THRESHOLD, the size from which memory comes from the system and goes back to it, and
M_TRIM_THRESHOLD, how much of its heap may be free at the top."""


def deepspeed_config(
    *,
    zero_stage: int,
    bfloat16: bool,
    max_grad_norm: float = 0.0,
    micro_rows: int = 1,
    accumulation: int = 1,
    offload: bool = False,
    pinned: bool = False,
    universal: bool = False,
) -> dict[str, Any]:
    """Return DeepSpeed's configuration. `universal`: checkpoints are read in that form.

    `pinned`: what is offloaded is to lie in memory that DeepSpeed asks its accelerator for, which is pinned on a GPU's
    host, or on a disk (`on_disk.py`).

    `max_grad_norm` of 0 clips nothing. `micro_rows` and `accumulation` are rows a micro-batch and micro-batches a
    step, where the caller does not say itself which micro-batch is a step's last. The optimizer is not part of it: it
    is PyTorch's AdamW, which the caller hands over (DeepSpeed's fused ones want a compiler at run time).
    """
    stage = stage_run(zero_stage, bfloat16=bfloat16)
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_rows,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": max_grad_norm,
        # Under ZeRO 1 each gradient joins the sum as soon as it is there, and its bfloat16 form is freed.
        "bf16": {"enabled": bfloat16, "immediate_grad_update": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": _zero_section(stage, offload=offload, pinned=pinned),
        "zero_allow_untested_optimizer": True,
        "checkpoint": {"load_universal": universal},
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    return config | ({"communication_data_type": "fp32"} if stage == 1 else {})


def _zero_section(stage: int, *, offload: bool, pinned: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage}
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pinned}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
        zero |= {"offload_param": {"device": "cpu"}} if offload else {}
    return zero


@contextmanager
def sharded_loading(config: Mapping[str, Any]) -> Iterator[None]:
    """Let transformers load models inside as ZeRO-3 holds them: each parameter is dealt out before the next is made.

    Collective: all ranks load the same, and no rank ever holds all of it.
    """
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    known = HfDeepSpeedConfig(dict(config))
    try:
        with _freed_memory_given_back():
            yield
    finally:
        # It is looked for through a weak reference.
        del known
        unset_hf_deepspeed_config()


@contextmanager
def _freed_memory_given_back() -> Iterator[None]:
    """Let glibc give a tensor's memory back when it is freed; it would keep as much as a model takes, in pieces.

    Each parameter is whole for a moment, and glibc comes to take tensors from its heap where it has seen some freed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)
    mallopt(MMAP_THRESHOLD, 1 << 20)
    try:
        yield
    finally:
        # What glibc itself comes to in a process with large tensors.
        mallopt(MMAP_THRESHOLD, 32 << 20)
        mallopt(TRIM_THRESHOLD, 64 << 20)


def skip_compiled_extension() -> None:
    """Let DeepSpeed talk between CPU ranks through gloo; call before it sets up its communication.

    It would otherwise compile a shared-memory extension on first use, which needs a compiler, and takes a lock file
    that a killed process leaves behind: every later run then waits for ever. On GPUs nothing changes.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
