"""The section `rollout`: how responses are sampled."""

from typing import Literal

from pydantic import Field, model_validator

from agapo.recipe.section import Strict


class VLLMConfig(Strict):
    """What only vLLM reads (docs/engines.md)."""

    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that an actor's model is spread over: its `gpus_per_actor`."""
    in_flight: int = Field(default=256, ge=1)
    """Responses that an actor decodes together at most; more of them wait in its queue."""
    gpu_memory: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU's memory for weights and cache."""
    cache_gib: float = Field(default=2.0, gt=0)
    """Memory of an actor's key-value cache where there is no GPU."""


class MismatchConfig(Strict):
    """How far engine and learner may be apart on the same tokens, in RL (docs/engines.md)."""

    stop_above: float | None = Field(default=None, gt=0)
    """Mean |difference| of their log-probabilities over a step's tokens, in nats, past which the run stops; None: 0.002
    for a float32 model, 0.15 for bfloat16."""

    def bound(self, dtype: str) -> float:
        """Return the bound for a model's dtype."""
        return self.stop_above or MISMATCH_BOUNDS[dtype]


MISMATCH_BOUNDS = {"float32": 2e-3, "bfloat16": 0.15}
"""In float32, engines that compute the same differ by 1e-6 to 1e-4. In bfloat16 rounding decides, most in small
models: SmolLM2-135M differs by 0.042 with the transformers engine, and by 0.044 with vLLM; by 0.053 to 0.060 with vLLM
on a GPU, where random weights at Qwen3-0.6B's shape reach 0.09 (docs/gpu.md)."""


class RolloutConfig(Strict):
    """How responses are sampled."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """`transformers` runs anywhere and repeats itself to the bit; `vllm` is fast, and wants `make setup-vllm`."""
    actors: int = Field(default=1, ge=1)
    """Processes that sample, each with a copy of the model."""
    group_size: int = Field(default=8, ge=2)
    """G, the responses a prompt; leave-one-out needs at least 2."""
    temperature: float = Field(default=1.0, gt=0)
    """Of training's sampling; evaluations are greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability; in RL leave it at 1."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Tokens of a response, thinking included; see `reward.truncated` for those that are cut."""
    thinking_budget: int | None = Field(default=None, ge=1)
    """Tokens of thinking after which `</think>` is put behind them, in `reasoning` mode, so that an answer follows
    within `max_new_tokens`; the tag is not learned from. None: as long as the model likes."""
    stop: list[str] = Field(default_factory=list)
    """Texts that end a response, besides the end-of-turn token; kept in the response."""
    chunk_prompts: int = Field(default=8, ge=1)
    """Prompts that are dealt out to an actor at once. The transformers engine samples them together; they are the unit
    of work that is redone when an actor dies."""
    threads: int = Field(default=0, ge=0)
    """CPU threads an actor; 0 shares this machine's cores among the actors."""
    gpus_per_actor: float = Field(default=0.0, ge=0)
    """GPUs, or a share of one, for each actor; 0 samples on the CPU."""
    max_staleness: int = Field(default=0, ge=0)
    """Steps that the weights which sampled a token may be behind those that learn from it, in RL (docs/async.md): with
    1 or more, actors sample the next steps' prompts while the learner learns. 0: they take turns, and a run repeats
    itself to the bit."""
    oversample: bool = False
    """Begin a step with as many prompts as fill the batch at the rate at which groups were kept of late, and a standard
    deviation more, instead of drawing more once some were dropped, in RL (docs/async.md). The step takes the prompts
    that it would without; those beyond them are sampled anew in the next."""
    sleep_while_learning: bool = False
    """Actors that share GPUs with the learner's ranks leave the memory to them while they learn: weights go to the
    host, what vLLM caches is dropped. RL alone reads it."""
    chunk_timeout_s: float = Field(default=1800.0, gt=0)
    """An actor that gives no sign for so long is taken for hung, and replaced; it should every half second."""
    max_restarts: int = Field(default=10, ge=0)
    """Actor replacements a run; more says that something is wrong that a restart cannot mend."""
    weight_transport: Literal["host", "ipc", "broadcast"] = "host"
    """How RL's new weights reach the actors (docs/engines.md): through the `host`'s memory, anywhere; by `ipc`, where
    ranks and actors share GPUs (or, without GPUs, one machine); by `broadcast` to all at once (NCCL, or gloo)."""
    vllm: VLLMConfig = VLLMConfig()
    mismatch: MismatchConfig = MismatchConfig()

    @model_validator(mode="after")
    def _room_for_an_answer(self) -> "RolloutConfig":
        if self.thinking_budget is not None and self.thinking_budget >= self.max_new_tokens:
            raise ValueError(
                f"thinking_budget {self.thinking_budget}: leaves no room for an answer in max_new_tokens "
                f"({self.max_new_tokens}); lower the one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _gpus_for_tensor_parallelism(self) -> "RolloutConfig":
        gpus, parallel = self.gpus_per_actor, self.vllm.tensor_parallel
        # A share of one GPU is fine (`vllm.gpu_memory` keeps to it), and so is none.
        if self.engine == "vllm" and gpus != parallel and (gpus > 1 or (gpus and parallel > 1)):
            raise ValueError(
                f"gpus_per_actor {gpus:g}: an actor with vLLM has as many GPUs as vllm.tensor_parallel says "
                f"({parallel}); set them to the same number"
            )
        return self


def rollout_warnings(own: RolloutConfig) -> list[str]:
    """Return what is allowed in RL's sampling, and seldom meant; `agapo check` and `agapo rl` say it."""
    if own.top_p == 1:
        return []
    return [
        f"rollout.top_p {own.top_p:g}: responses are sampled from the likeliest tokens alone, and the learner's "
        "log-probabilities are over the whole vocabulary, so that neither gradient nor KL is of what was sampled; "
        "set it to 1"
    ]
