"""How large a model is: its dimensions, its parameters and its linear layers, without its weights.

    P = V·H·(1 + untied) + L·(2·H·(Q + K) + 3·H·I + 2·H + 2·D) + H

with V entries of the vocabulary, H hidden and I intermediate size, L layers, Q = heads·D and K = kv_heads·D: query,
output, key and value projections, SwiGLU, two RMS norms a layer, RMS norms over the D of queries and keys, and a last
norm. That is EXAONE 4 and Qwen3. Of a model that can be reached, whatever its type, the parameters are counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from agapo.resolve import did_you_mean

NF4_BLOCK = 64
"""Neighbouring weights that share a scale where they are held in 4 bits (`quantized.py`)."""


@dataclass(frozen=True)
class ModelSizes:
    """A decoder's dimensions."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Whether the output layer is the embedding."""
    context: int
    """Positions that its config states."""
    local_layers: int = 0
    """Layers that attend over a sliding window."""
    counted: int | None = None
    """Parameters as counted; None takes the formula."""

    @property
    def queries(self) -> int:
        """Width of the queries, and of the attention's output."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of the keys, and of the values."""
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Parameters of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """A layer's linear maps by name: (inputs, outputs)."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def parameters(self) -> int:
        """All parameters, a tied output layer counted once."""
        if self.counted is not None:
            return self.counted
        layer = sum(inputs * outputs for inputs, outputs in self.linear.values()) + 2 * self.hidden + 2 * self.head_dim
        return self.embedding * (1 if self.tied else 2) + self.layers * layer + self.hidden

    def adapter_parameters(self, rank: int, targets: list[str] | str, key: str = "training.lora") -> int:
        """Parameters of LoRA adapters: rank · (inputs + outputs) for each linear map that gets one.

        `key`: the recipe's section. Raises UserError for a target that is none of them.
        """
        names = list(self.linear) if targets == "all-linear" else targets
        for name in names:
            if name not in self.linear:
                raise UserError(
                    f"{key}.targets: '{name}' is none of {', '.join(self.linear)}"
                    f"{did_you_mean(str(name), list(self.linear))}"
                )
        return self.layers * rank * sum(sum(self.linear[name]) for name in names)


def _exaone(**sizes: Any) -> ModelSizes:
    return ModelSizes(vocabulary=102_400, kv_heads=8, **sizes)


def _qwen3(**sizes: Any) -> ModelSizes:
    return ModelSizes(vocabulary=151_936, kv_heads=8, head_dim=128, context=40_960, **sizes)


PUBLISHED: Mapping[str, ModelSizes] = {
    # arXiv 2507.11407, table 1; of the 32B, three layers in four attend over 4,096 tokens.
    "LGAI-EXAONE/EXAONE-4.0-1.2B": _exaone(
        hidden=2048, layers=30, intermediate=4096, heads=32, head_dim=64, tied=True, context=65_536
    ),
    "LGAI-EXAONE/EXAONE-4.0-32B": _exaone(
        hidden=5120,
        layers=64,
        intermediate=27_392,
        heads=40,
        head_dim=128,
        tied=False,
        context=131_072,
        local_layers=48,
    ),
    # arXiv 2505.09388, table 1, and the models' config.json.
    "Qwen/Qwen3-0.6B": _qwen3(hidden=1024, layers=28, intermediate=3072, heads=16, tied=True),
    "Qwen/Qwen3-1.7B": _qwen3(hidden=2048, layers=28, intermediate=6144, heads=16, tied=True),
    "Qwen/Qwen3-4B": _qwen3(hidden=2560, layers=36, intermediate=9728, heads=32, tied=True),
    "Qwen/Qwen3-8B": _qwen3(hidden=4096, layers=36, intermediate=12_288, heads=32, tied=False),
    "Qwen/Qwen3-14B": _qwen3(hidden=5120, layers=40, intermediate=17_408, heads=40, tied=False),
    "Qwen/Qwen3-32B": _qwen3(hidden=5120, layers=64, intermediate=25_600, heads=64, tied=False),
}
"""Sizes of models on the hub, for where it cannot be reached."""


def published_sizes(name: str | Path, rope: Mapping[str, Any] | None = None) -> ModelSizes | None:
    """Return the sizes of a hub's model from the table, its context as `model.rope` makes it; None for others."""
    sizes = PUBLISHED.get(str(name))
    if not sizes or not rope:
        return sizes
    original = rope["original_max_position_embeddings"] or sizes.context
    return replace(sizes, context=rope["max_position_embeddings"] or round(original * rope["factor"]))


def config_sizes(config: Any) -> ModelSizes:
    """Return the sizes of the model that a config describes. Raises UserError where it is not of this kind."""
    import torch
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    if not heads or not getattr(text, "intermediate_size", None):
        raise UserError(f"the sizes of a '{text.model_type}' are not in its config under the usual names")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    kinds = getattr(text, "layer_types", None) or []
    return ModelSizes(
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        intermediate=text.intermediate_size,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocabulary=text.vocab_size,
        tied=bool(text.tie_word_embeddings),
        context=text.max_position_embeddings,
        local_layers=sum(kind == "sliding_attention" for kind in kinds),
        counted=sum(parameter.numel() for parameter in model.parameters()),
    )
