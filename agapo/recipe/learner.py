"""The section `learner` of an RL recipe: how the policy is updated."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from agapo.recipe.lora import LoRAConfig, quantizes
from agapo.recipe.section import AbsolutePath, Strict, check_offload, check_quantize


class LearnerConfig(Strict):
    """How the policy is updated."""

    ranks: int = Field(default=1, ge=1)
    """Data-parallel DeepSpeed ranks."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO: 1 shards the optimizer, 2 the gradients too, 3 the weights too; in bfloat16 0 runs as 1."""
    offload: bool = False
    """Keep the optimizer, and under ZeRO-3 the weights, in the host's memory; the reference policy too, which is
    brought to the GPU while it computes."""
    offload_folder: AbsolutePath | None = None
    """With `offload`: a folder of a fast disk (NVMe) of each rank's host. What is offloaded lies there, and in memory
    as far as there is room, but for a reference policy that is not in shards."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """The peak, reached after the warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How it falls after the warm-up."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps over which it rises linearly."""
    min_learning_rate: float = Field(default=0.0, ge=0)
    """Where `linear` and `cosine` end."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's."""
    max_grad_norm: float | None = Field(default=None, gt=0)
    """A larger gradient is shortened to this norm. By default 1 where `algorithm.aggregation` divides by tokens, and
    `rollout.max_new_tokens` where it is `sequence`: a sum over tokens is exactly so many times the `token` gradient,
    and is shortened at the same point. A bound that nearly every step meets makes all steps equally long, a step of
    few groups as long as a full one."""
    lora: LoRAConfig | None = None
    """Train adapters instead of all weights; the reference policy is the model with its adapters off."""
    micro_batch_tokens: int = Field(default=16384, ge=16)
    """Tokens a rank puts through the model at once."""
    layout: Literal["packed", "right", "left"] = "packed"
    """How sequences become rows: several a row without padding, or one a row padded on a side."""
    shared_prompts: bool = False
    """Put a prompt through the model once for all responses of its group, instead of once each, where the layout is
    `packed` and `model.attention` is `sdpa`; other rows repeat it. The gradient is the same."""
    sequence_parallel: int = Field(default=1, ge=1)
    """Ranks that share each sequence, for those too long for one (DeepSpeed Ulysses): each has its part of the tokens,
    and in attention its part of the heads. With `model.attention: sdpa`."""
    early_reference: bool = False
    """Have ranks compute the reference's log-probabilities of the groups that are judged while the rest of the step is
    sampled, instead of after it (docs/async.md). Results differ by rounding: other responses share a micro-batch."""
    threads: int = Field(default=0, ge=0)
    """CPU threads a rank; 0 shares this machine's cores among the ranks."""
    gpus_per_rank: float = Field(default=0.0, ge=0)
    """GPUs, or a share of one, for each rank; 0 trains on the CPU."""
    gpu_gib: float | None = Field(default=None, gt=0)
    """Memory of a GPU, which `agapo check` compares its estimate with; nothing else reads it."""
    max_restarts: int = Field(default=3, ge=0)
    """Times that the run starts its processes anew, from the last checkpoint, when a rank died or hung."""
    timeout_s: float = Field(default=1800.0, gt=0)
    """A rank that has not done what it was told to (load, update, hand over its weights, save) after so long is taken
    for hung."""

    @model_validator(mode="after")
    def _sharding_can_be(self) -> "LearnerConfig":
        check_offload(self.offload, self.zero_stage, self.offload_folder)
        check_quantize(quantizes(self.lora), self.zero_stage)
        return self

    @model_validator(mode="after")
    def _ranks_can_share_sequences(self) -> "LearnerConfig":
        if self.ranks % self.sequence_parallel:
            raise ValueError(f"sequence_parallel: {self.sequence_parallel} ranks a sequence do not divide {self.ranks}")
        if self.sequence_parallel > 1 and self.shared_prompts:
            raise ValueError("sequence_parallel: not with shared_prompts, whose rows are laid out otherwise")
        return self

    @field_validator("lora")
    @classmethod
    def _engine_and_learner_drop_the_same(cls, lora: LoRAConfig | None) -> LoRAConfig | None:
        if lora and lora.dropout:
            raise ValueError(
                f"dropout {lora.dropout:g}: what the learner drops is not dropped where responses are sampled, so that "
                "the two are not one policy; set it to 0"
            )
        return lora
