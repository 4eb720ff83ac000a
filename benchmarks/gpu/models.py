"""The models that are measured: random weights at the shapes of real ones, or the weights of a folder."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Exaone4Config, PreTrainedConfig, PreTrainedModel, Qwen3Config


@dataclass(frozen=True)
class Shape:
    """A model's architecture and sizes."""

    name: str
    config: Callable[[], PreTrainedConfig]


def _qwen3(**sizes: Any) -> Callable[[], PreTrainedConfig]:
    return lambda: Qwen3Config(initializer_range=sizes["hidden_size"] ** -0.5, tie_word_embeddings=True, **sizes)


def _exaone4(tied: bool, window: int | None = None, **sizes: Any) -> Callable[[], PreTrainedConfig]:
    pattern = 4 if window else None
    return lambda: Exaone4Config(
        initializer_range=sizes["hidden_size"] ** -0.5,
        tie_word_embeddings=tied,
        sliding_window=window,
        sliding_window_pattern=pattern,
        layer_types=None if window else ["full_attention"] * sizes["num_hidden_layers"],
        **sizes,
    )


def _sizes(vocabulary: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, width: int) -> dict:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": width,
        "max_position_embeddings": 40_960,
    }


_QWEN, _EXAONE = _sizes(151_936, 1024, 3072, 28, 16, 8, 128), _sizes(102_400, 2048, 4096, 30, 32, 8, 64)
_SMALL = _sizes(320, 32, 64, 4, 4, 2, 8)

QWEN3 = Shape("Qwen3-0.6B", _qwen3(**_QWEN))
EXAONE4 = Shape("EXAONE-4.0-1.2B", _exaone4(True, **_EXAONE))
# The 32B's layout, three sliding layers in four and a head of its own, at a size that is quick to make.
EXAONE4_HYBRID = Shape("EXAONE-4.0-1.2B, hybrid, untied", _exaone4(False, window=128, **_EXAONE))

REAL = (QWEN3, EXAONE4, EXAONE4_HYBRID)
SMALL = (
    Shape("small Qwen3", _qwen3(**_SMALL)),
    Shape("small EXAONE 4", _exaone4(True, **_SMALL)),
    Shape("small EXAONE 4, hybrid, untied", _exaone4(False, window=8, **_SMALL)),
)


def random_model(shape: Shape, device: str, dtype: torch.dtype, seed: int = 0) -> PreTrainedModel:
    """Return the model with random weights, made on the device; its logits spread as a trained model's do.

    Weights that `from_config` draws give nearly even next-token probabilities, which no fault would change: the last
    norm is scaled so that logits have a standard deviation of about 3.
    """
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(shape.config(), dtype=dtype, attn_implementation="sdpa")
    with torch.no_grad():
        model.base_model.norm.weight.fill_(3.0)
    return model


def in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy with the same weights in float32: what bfloat16's rounding is measured against.

    A new model, since casting one would leave the rounding of its buffers in.
    """
    with torch.device(model.device):
        copy = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32, attn_implementation="sdpa")
    copy.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    return copy


def weights_folder(path: Path, scratch: Path) -> Path:
    """Return a Hugging Face folder of real weights: `path` itself, or what the GGUF file at `path` holds."""
    if path.is_dir():
        return path
    from agapo.model.gguf import read_gguf
    from agapo.model.loading import export_hf

    export_hf(*read_gguf(path), scratch / path.stem)
    return scratch / path.stem


class NoTokenizer:
    """Stands in where only tokens are measured: random weights have no vocabulary. Nothing ends a response."""

    eos_token_id = None

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Return no text."""
        return ""


def free(device: str) -> None:
    """Give back what is no longer referred to."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
