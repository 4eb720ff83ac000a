"""The section `lora`: low-rank adapters instead of all weights, in SFT, RL and preference learning."""

from typing import Literal

from pydantic import Field

from agapo.recipe.section import Strict

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `max_lora_rank` may be."""


class LoRAConfig(Strict):
    """Low-rank adapters (arXiv 2106.09685) instead of all weights; merged into the exported model."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapters' matrices."""
    alpha: float = Field(default=32, gt=0)
    """What an adapter adds is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of an adapter's input; 0 in RL, where engine and learner would differ."""
    targets: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the modules that get adapters."""
    quantize: Literal["nf4"] | None = None
    """Hold the frozen weights of linear maps in 4 bits (QLoRA, arXiv 2305.14314): 4.5 bits a weight, and a slower step.
    What is exported has the rounded weights, with the adapters merged into them, in `model.dtype`."""


def quantizes(lora: LoRAConfig | None) -> bool:
    """Return whether the weights beneath a recipe's adapters, if it has any, are held in 4 bits."""
    return lora is not None and lora.quantize is not None
