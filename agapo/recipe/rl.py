"""The recipe of the RL stage."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from agapo.recipe.algorithm import AlgorithmConfig
from agapo.recipe.base import Recipe
from agapo.recipe.data import DataConfig
from agapo.recipe.evaluation import RLEvaluationConfig
from agapo.recipe.learner import LearnerConfig
from agapo.recipe.lora import VLLM_RANKS
from agapo.recipe.model import ModelConfig
from agapo.recipe.reward import RewardConfig
from agapo.recipe.rollout import RolloutConfig
from agapo.recipe.section import check_modes


class RLRecipe(Recipe):
    """`agapo rl RECIPE`."""

    stage: Literal["rl"] = "rl"  # pyright: ignore[reportIncompatibleVariableOverride]
    steps: int = Field(ge=1)
    """Steps: batches that are learned from. More of them than a finished run has made continue it."""
    max_sampled_tokens: int | None = Field(default=None, ge=1)
    """End after the step in which so many tokens have been sampled in all, where that comes before `steps`; more of
    them than a finished run has continue it. What `rollout.oversample` and `max_staleness` sample for no step does not
    count."""
    prompts_per_step: int = Field(default=16, ge=1)
    """N, the prompts whose groups make a step."""
    model: ModelConfig = ModelConfig()
    """Without `path` and `start`: what the last finished SFT run made."""
    data: DataConfig
    reward: RewardConfig
    algorithm: AlgorithmConfig = AlgorithmConfig()
    rollout: RolloutConfig = RolloutConfig()
    learner: LearnerConfig = LearnerConfig()
    evaluation: RLEvaluationConfig = RLEvaluationConfig()

    _modes = field_validator("data")(lambda data: check_modes(data.modes) and data)

    @model_validator(mode="after")
    def _engine_and_learner_have_one_support(self) -> "RLRecipe":
        if self.rollout.engine == "vllm" and self.rollout.top_p < 1:
            raise ValueError(
                f"rollout.top_p: {self.rollout.top_p:g} with vLLM, whose log-probabilities are then over the likeliest "
                "tokens alone, while the learner's are over all; set it to 1"
            )
        return self

    @model_validator(mode="after")
    def _attention_can_be_divided(self) -> "RLRecipe":
        if self.learner.sequence_parallel > 1 and self.model.attention != "sdpa":
            raise ValueError(
                f"learner.sequence_parallel: ranks share sequences with model.attention=sdpa, not "
                f"{self.model.attention}; change one of them"
            )
        return self

    @model_validator(mode="after")
    def _vllm_takes_the_adapters(self) -> "RLRecipe":
        lora, own = self.learner.lora, self.rollout
        if lora is None or own.engine != "vllm":
            return self
        if lora.rank > VLLM_RANKS[-1]:
            raise ValueError(f"learner.lora.rank: {lora.rank} with vLLM, which takes {VLLM_RANKS[-1]} at most")
        if own.gpus_per_actor and self.model.dtype == "float32":
            raise ValueError(
                "model.dtype: float32 with learner.lora and vLLM, whose adapters are of 16 bits on a GPU; "
                "set it to bfloat16, or rollout.engine to transformers"
            )
        return self

    @model_validator(mode="after")
    def _weights_can_travel_so(self) -> "RLRecipe":
        way, rank, actor = self.rollout.weight_transport, self.learner.gpus_per_rank, self.rollout.gpus_per_actor
        if way == "host":
            return self
        if self.learner.lora and self.rollout.engine == "vllm":
            reason = "vLLM takes adapters from the host"
        elif bool(rank) != bool(actor):
            reason = f"learner.gpus_per_rank is {rank:g} and rollout.gpus_per_actor {actor:g}"
        elif way == "ipc" and rank + actor > 1:
            reason = f"with {rank:g} of a GPU a rank and {actor:g} an actor, no two share one"
        elif way == "ipc" and not rank and self.cluster.address:
            reason = "hosts of a cluster share no memory"
        elif way == "broadcast" and rank and (rank < 1 or actor < 1):
            reason = "NCCL has one member a GPU; where they are shared, ipc does it"
        else:
            return self
        raise ValueError(f"rollout.weight_transport: {way}, but {reason}; set it to host")

    @model_validator(mode="after")
    def _oversampling_goes_with_the_rest(self) -> "RLRecipe":
        if self.rollout.oversample and self.rollout.max_staleness:
            raise ValueError(
                f"rollout.oversample: true with max_staleness {self.rollout.max_staleness}: the prompts that follow "
                "are under way already, and wait for the next step; set one of them to its default"
            )
        if self.rollout.oversample and self.algorithm.shuffle_rewards:
            raise ValueError(
                "rollout.oversample: true with algorithm.shuffle_rewards: which prompts a step takes would follow from "
                "rewards that it does not learn from; set one of them to false"
            )
        return self

    @model_validator(mode="after")
    def _ranks_are_awake_while_actors_sample(self) -> "RLRecipe":
        if self.learner.early_reference and self.rollout.sleep_while_learning:
            raise ValueError(
                "learner.early_reference: true with rollout.sleep_while_learning: while actors sample, they have the "
                "GPUs' memory; set one of them to false"
            )
        return self

    @model_validator(mode="after")
    def _sampling_ahead_goes_with_the_rest(self) -> "RLRecipe":
        own = self.rollout
        if not own.max_staleness:
            return self
        if own.sleep_while_learning:
            raise ValueError(
                f"rollout.max_staleness: {own.max_staleness} with sleep_while_learning: actors that sample while ranks "
                "learn do not sleep meanwhile; set one of them to its default"
            )
        if own.weight_transport == "broadcast":
            raise ValueError(
                f"rollout.max_staleness: {own.max_staleness} with weight_transport broadcast: an actor that comes "
                "later would ask a learner for its weights that is learning; set weight_transport to host or ipc"
            )
        if self.algorithm.importance.level == "none" and self.algorithm.clip is None:
            raise ValueError(
                f"rollout.max_staleness: {own.max_staleness} with algorithm.importance.level none: nothing would "
                "correct for the older weights; set the level to token, geometric or sequence"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "RLRecipe":
        responses = self.prompts_per_step * self.rollout.group_size
        if responses % self.learner.ranks:
            raise ValueError(
                f"learner.ranks: {self.learner.ranks} does not divide the batch of {responses} responses "
                f"(prompts_per_step {self.prompts_per_step} × rollout.group_size {self.rollout.group_size})"
            )
        if self.prompts_per_step % self.algorithm.updates_per_batch:
            raise ValueError(
                f"algorithm.updates_per_batch: {self.algorithm.updates_per_batch} does not divide "
                f"prompts_per_step {self.prompts_per_step}"
            )
        return self

    def is_enough(self, steps: int, tokens: int) -> bool:
        """Return whether a run that has made so many steps, of so many sampled tokens, is at its end."""
        return steps >= self.steps or (self.max_sampled_tokens is not None and tokens >= self.max_sampled_tokens)

    @property
    def max_grad_norm(self) -> float:
        """`learner.max_grad_norm`, or its default for the aggregation."""
        summed = self.algorithm.aggregation == "sequence"
        return self.learner.max_grad_norm or (float(self.rollout.max_new_tokens) if summed else 1.0)

    @property
    def nominal_responses(self) -> int:
        """Prompts a step × G: the constant denominator of the loss."""
        return self.prompts_per_step * self.rollout.group_size
