"""What the stages that TRL trains have in common: optimizer, ranks, ZeRO, adapters."""

from typing import Literal

from pydantic import Field, model_validator

from agapo.recipe.base import Strict


class LoRAConfig(Strict):
    """Low-rank adapters (arXiv 2106.09685) instead of all weights; merged into the exported model."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the modules that get adapters."""


class TrainerConfig(Strict):
    """How a model is trained by TRL on Ray Train workers."""

    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    ranks: int = Field(default=1, ge=1)
    """Data-parallel workers (Ray Train)."""
    gpus_per_rank: float = Field(default=0.0, ge=0)
    gpu_gib: float | None = Field(default=None, gt=0)
    """Memory of a GPU, which `agapo check` compares its estimate with; nothing else reads it."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO: 1 shards the optimizer, 2 the gradients too, 3 the weights too; 0 goes without DeepSpeed."""
    offload: bool = False
    """Keep the optimizer, and under ZeRO-3 the weights, in the hosts' memory."""
    lora: LoRAConfig | None = None
    max_restarts: int = Field(default=3, ge=0)
    """Times that dead workers are replaced; training goes on from the last checkpoint."""
    threads: int = Field(default=0, ge=0)
    """CPU threads a rank; 0 shares this machine's cores among the ranks."""

    @model_validator(mode="after")
    def _offload_has_something_to_move(self) -> "TrainerConfig":
        if self.offload and not self.zero_stage:
            raise ValueError("offload: needs zero_stage 1, 2 or 3")
        return self

    def require_even_parts(self, unit: str, per_step: int, micro: int) -> None:
        """Raise ValueError unless the ranks share a step's rows or pairs (`unit`) evenly, in micro-batches of `micro`.

        A `micro` of 0 is a rank's whole share.
        """
        if per_step % (self.ranks * (micro or 1)):
            parts = f"ranks {self.ranks}" + (f" × micro_batch_{unit} {micro}" if micro else "")
            raise ValueError(f"{unit}_per_step: {per_step} is not a multiple of {parts}")
