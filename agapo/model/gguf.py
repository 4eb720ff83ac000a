"""Models in one file: a GGUF, as llama.cpp has them, becomes a Hugging Face folder that every part here loads.

Unpacked once, since a run loads its model in several processes, and vLLM takes folders.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from agapo.errors import UserError, first_line
from agapo.model.cached import cached_place


def is_gguf(path: str | Path) -> bool:
    """Whether a model's path is that of a GGUF file."""
    return str(path).lower().endswith(".gguf")


def unpacked_place(path: str | Path) -> Path:
    """Return the folder that the model in a GGUF file goes to: in the user's cache, a folder a version of the file.

    Raises UserError where there is no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"model.path: {path}: no such file; give a GGUF file, a folder or a hub name")
    return cached_place("gguf", file.stem, [file])


def read_gguf(path: str | Path) -> tuple[Any, Any]:
    """Return the model in a GGUF file, in bfloat16 (finer than what most such files hold), and its tokenizer.

    Raises UserError where the package `gguf` is missing, or transformers cannot take the model.
    """
    file = Path(path)
    if not find_spec("gguf"):
        raise UserError(f"model.path: {path}: a GGUF file needs the package gguf; run 'pip install gguf'")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(file.parent),
            gguf_file=file.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except (OSError, ValueError, ImportError, KeyError, NotImplementedError) as error:
        reason = first_line(error)
        raise UserError(f"model.path: transformers cannot read {file} ({reason}); give another file") from error
    # It is a plain model now, and `save_pretrained` refuses one that says otherwise.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    return model, tokenizer
