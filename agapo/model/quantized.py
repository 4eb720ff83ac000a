"""Frozen weights in 4 bits under LoRA adapters (QLoRA, arXiv 2305.14314): bitsandbytes' NormalFloat4.

    W ≈ c · s        64 neighbours of a row share a float32 scale s, the largest of them; c is one of 16 numbers

That is 4.5 bits a weight. Linear maps are held so, but for the output layer; products are computed in the model's type
with weights that are brought back for the moment.

The policy is then the *rounded* weights with their adapters, and so must be everything that is to be the same model:
an engine that holds them so too, the reference (adapters off), and what is exported, which is `restored` first: plain
weights with the rounded values. Rounding those again changes nothing (a block's largest is exact, and its scale).
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from agapo.errors import UserError
from agapo.model.cached import cached_place
from agapo.model.sizes import NF4_BLOCK


def quantization(config: PreTrainedConfig, dtype: str) -> BitsAndBytesConfig:
    """Return what transformers quantizes the linear maps of a model by. Raises UserError without bitsandbytes."""
    if not find_spec("bitsandbytes"):
        raise UserError("lora.quantize: nf4 needs the package bitsandbytes; run 'pip install bitsandbytes'")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=_left_whole(config),
    )


def _left_whole(config: PreTrainedConfig) -> list[str]:
    """Return the output layer's name, and of the linear maps whose rows are no whole number of blocks.

    bitsandbytes 0.50 brings the latter back wrongly on CPUs: it takes a block that two rows share for two.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    whole = [name for name, module in linear if module is head or module.in_features % NF4_BLOCK]
    if len(whole) == len(linear):
        raise UserError(f"lora.quantize: no linear map of the model has a multiple of {NF4_BLOCK} inputs; leave it out")
    return whole


def compute_alike(model: PreTrainedModel) -> None:
    """Have the maps compute in evaluation as in training.

    On CPUs with bfloat16 instructions bitsandbytes repacks weights for evaluation, and rounds products to bfloat16: the
    reference and the engine would not be the policy's model.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            cast(Any, module).support_avx512bf16_for_cpu = False


def restored(model: PreTrainedModel) -> PreTrainedModel:
    """Return a quantized model as a plain one, in its type, with the rounded weights."""
    was = transformers_logging.get_verbosity()
    # It says on every run that it does what it is asked for.
    transformers_logging.set_verbosity_error()
    try:
        return cast(Any, model).dequantize(model.dtype)
    finally:
        transformers_logging.set_verbosity(was)


def restored_place(folder: Path, dtype: str) -> Path:
    """Return the folder in the user's cache that the model in `folder` goes to once it is rounded and `restored`."""
    return cached_place("nf4", f"{folder.name}-{dtype}", sorted(file for file in folder.iterdir() if file.is_file()))
