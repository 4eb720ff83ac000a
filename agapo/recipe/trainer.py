"""What the stages that TRL trains have in common: optimizer, ranks, ZeRO, adapters."""

from typing import Literal

from pydantic import Field, model_validator

from agapo.recipe.lora import LoRAConfig, quantizes
from agapo.recipe.section import AbsolutePath, Strict, check_offload, check_quantize


class TrainerConfig(Strict):
    """How a model is trained by TRL."""

    learning_rate: float = Field(gt=0)
    """The peak, reached after the warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How it falls after the warm-up: not, or to 0 at the last step."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps over which it rises linearly."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """A larger gradient is shortened to this norm."""
    ranks: int = Field(default=1, ge=1)
    """Data-parallel ranks."""
    gpus_per_rank: float = Field(default=0.0, ge=0)
    """GPUs for each rank; 0 trains on the CPU."""
    gpu_gib: float | None = Field(default=None, gt=0)
    """Memory of a GPU, which `agapo check` compares its estimate with; nothing else reads it."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO: 1 shards the optimizer, 2 the gradients too, 3 the weights too; 0 goes without DeepSpeed."""
    offload: bool = False
    """Keep the optimizer, and under ZeRO-3 the weights, in the hosts' memory."""
    offload_folder: AbsolutePath | None = None
    """With `offload`: a folder of a fast disk (NVMe) of each rank's host. What is offloaded lies there, and in memory
    as far as there is room."""
    lora: LoRAConfig | None = None
    max_restarts: int = Field(default=3, ge=0)
    """Times that dead workers are replaced; training goes on from the last checkpoint."""
    threads: int = Field(default=0, ge=0)
    """CPU threads a rank; 0 shares this machine's cores among the ranks."""

    @model_validator(mode="after")
    def _sharding_can_be(self) -> "TrainerConfig":
        check_offload(self.offload, self.zero_stage, self.offload_folder)
        check_quantize(quantizes(self.lora), self.zero_stage)
        return self

    def require_even_parts(self, unit: str, per_step: int, micro: int) -> None:
        """Raise ValueError unless the ranks share a step's rows or pairs (`unit`) evenly, in micro-batches of `micro`.

        A `micro` of 0 is a rank's whole share.
        """
        if per_step % (self.ranks * (micro or 1)):
            parts = f"ranks {self.ranks}" + (f" × micro_batch_{unit} {micro}" if micro else "")
            raise ValueError(f"{unit}_per_step: {per_step} is not a multiple of {parts}")


class SFTTrainingConfig(TrainerConfig):
    """How the model is fine-tuned. These defaults are for random weights (`create`).

    For a model that is there already they are learning_rate 2e-5 (2e-4 with `lora`), row_tokens 2048, warmup_steps 5
    and micro_batch_rows 1 (`sft.PRETRAINED`).
    """

    learning_rate: float = Field(default=5e-3, gt=0)
    rows_per_step: int = Field(default=8, ge=1)
    """Packed rows a step, over all ranks."""
    micro_batch_rows: int = Field(default=0, ge=0)
    """Rows that a rank puts through the model at once; 0 takes its whole share of the step."""
    row_tokens: int = Field(default=128, ge=16)
    """Tokens a packed row, and so the longest dialogue."""

    @property
    def micro_rows(self) -> int:
        """Rows a rank puts through the model at once."""
        return self.micro_batch_rows or self.rows_per_step // self.ranks

    @property
    def accumulation(self) -> int:
        """Micro-batches of a rank a step."""
        return self.rows_per_step // (self.ranks * self.micro_rows)

    @model_validator(mode="after")
    def _parts_fit(self) -> "SFTTrainingConfig":
        self.require_even_parts("rows", self.rows_per_step, self.micro_batch_rows)
        return self


class PreferenceTrainingConfig(TrainerConfig):
    """How the model is trained on pairs."""

    learning_rate: float = Field(default=5e-7, gt=0)
    warmup_steps: int = Field(default=5, ge=0)
    loss: Literal["simper", "dpo"] = "simper"
    """SimPER (arXiv 2502.00883) needs no reference and no β; DPO (arXiv 2305.18290) both."""
    beta: float = Field(default=0.1, gt=0)
    """`dpo`: how strongly the policy is held to where it started."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the pairs; whole steps only."""
    pairs_per_step: int = Field(default=32, ge=1)
    """Pairs a step, over all ranks."""
    micro_batch_pairs: int = Field(default=0, ge=0)
    """Pairs that a rank puts through the model at once; 0 takes its whole share of the step."""
    start_logprobs: bool = True
    """Take the starting model's log-probabilities first, which DPO needs, and SimPER only to show how far it has moved;
    false saves a forward pass over all pairs."""

    @property
    def micro_rows(self) -> int:
        """Pairs a rank puts through the model at once."""
        return self.micro_batch_pairs or self.pairs_per_step // self.ranks

    @property
    def accumulation(self) -> int:
        """Micro-batches of a rank a step."""
        return self.pairs_per_step // (self.ranks * self.micro_rows)

    @model_validator(mode="after")
    def _parts_fit(self) -> "PreferenceTrainingConfig":
        self.require_even_parts("pairs", self.pairs_per_step, self.micro_batch_pairs)
        if self.loss == "dpo" and not self.start_logprobs:
            raise ValueError("start_logprobs: loss 'dpo' needs them; leave it true, or take loss 'simper'")
        return self
