"""The LoRA adapter that vLLM samples with: one at a time, each update another one under an id of its own.

vLLM takes an adapter from a folder, which is written to memory where the machine has such a place, and removed as soon
as vLLM's workers have read it. What was cached for another adapter is not found under the new name.
"""

import tempfile
from pathlib import Path
from typing import Any

from agapo.model.adapters import write_adapter
from agapo.model.weights import Weights
from agapo.recipe.lora import VLLM_RANKS, LoRAConfig

IN_MEMORY = Path("/dev/shm")


def adapter_arguments(lora: LoRAConfig) -> dict[str, Any]:
    """Return the part of vLLM's `EngineArgs` that makes room for the adapter."""
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": next(rank for rank in VLLM_RANKS if rank >= lora.rank),
    }


class AdapterSlot:
    """The adapter that requests are to be sampled with."""

    def __init__(self, engine: Any, lora: LoRAConfig, model_path: str):
        """`engine`: vLLM's `LLMEngine`, with `WeightReceiver` in its workers."""
        self.engine, self.lora, self.model_path = engine, lora, model_path
        self.request: Any = None
        """vLLM's `LoRARequest`; None before the first update, where an adapter adds nothing."""
        self._number = 0

    def replace(self, weights: Weights) -> list[str]:
        """Put an adapter in the place of the one before; return the names of weights that did not arrive.

        No request with the one before may be in flight.
        """
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        if self.request:
            self.engine.remove_lora(self.request.lora_int_id)
        self._number += 1
        with tempfile.TemporaryDirectory(prefix="agapo-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as place:
            folder = Path(place) / "adapter"
            write_adapter(folder, dict(weights.named()), self.lora, self.model_path)
            self.request = LoRARequest(f"update-{self._number}", self._number, str(folder))
            self.engine.add_lora(self.request)
        scaling = self.lora.alpha / self.lora.rank
        found = self.engine.collective_rpc("check_adapter", args=(weights, self._number, scaling))
        return sorted(set().union(*found))
