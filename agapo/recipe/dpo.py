"""The recipe of the preference stage: sample, judge, pair, train with SimPER or DPO."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from agapo.recipe.base import AbsolutePath, DataConfig, ModelConfig, Recipe, Strict, check_modes, check_once
from agapo.recipe.rl import RewardConfig, RolloutConfig
from agapo.recipe.sft import MeasureConfig
from agapo.recipe.trainer import TrainerConfig


class ReuseConfig(Strict):
    """Pairs of an earlier preference stage, trained on once more."""

    share: float = Field(default=0.2, gt=0, lt=1)
    """Their share of all pairs."""
    path: AbsolutePath | None = None
    """The earlier run's `pairs.jsonl`; None: that of the run that `model.start` names."""


class PairsConfig(Strict):
    """Which responses are sampled, and which is preferred to which (docs/dpo.md)."""

    prompts: int = Field(default=1024, ge=1)
    """Prompts that are sampled, each `rollout.group_size` times."""
    policy: Literal["concise", "preferred"] = "concise"
    """`concise`: the shortest correct response against an incorrect or a longer one (the report's first stage);
    `preferred`: by reward (its second)."""
    rejected: list[Literal["incorrect", "longer"]] = Field(
        default_factory=lambda: ["incorrect", "longer"], min_length=1
    )
    """`concise`: what the chosen response is set against, a pair of each kind where a prompt has one."""
    longer_by: float = Field(default=1.25, gt=1)
    """`concise`: how many times as long a correct response has to be, to be rejected."""
    min_margin: float = Field(default=0.1, gt=0)
    """`preferred`: how far the rewards have to lie apart."""
    correct_only: bool = True
    """`preferred`: never choose a response that the verdict calls wrong."""
    reuse: ReuseConfig | None = None

    _each_once = field_validator("rejected")(lambda kinds: check_once(kinds, "kind"))


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


class GuardsConfig(Strict):
    """How far the model may move before the run says that something is wrong. Nothing is stopped."""

    accuracy_drop: float = Field(default=0.02, ge=0, le=1)
    """Greedy accuracy, 0 to 1, that a mode may lose."""
    chosen_drop: float = Field(default=0.5, gt=0)
    """Nats a token that the chosen responses may become less likely than they were at the start."""
    length_growth: float = Field(default=1.25, gt=0)
    """How many times as long the responses of a mode may become."""
    leakage: float = Field(default=0.01, ge=0, le=1)
    """Share of responses that may think where they should not, or not where they should."""


class DPORecipe(Recipe):
    """`agapo dpo RECIPE`."""

    stage: Literal["dpo"] = "dpo"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: ModelConfig = ModelConfig()
    """Without `path` and `start`: what the last finished RL run made."""
    data: DataConfig
    """Prompts to sample from, and, as its test split, the questions for before and after."""
    reward: RewardConfig
    """What judges the responses, those sampled and those of the test questions alike."""
    rollout: RolloutConfig = RolloutConfig()
    pairs: PairsConfig = PairsConfig()
    training: PreferenceTrainingConfig = PreferenceTrainingConfig()
    evaluation: MeasureConfig = MeasureConfig()
    guards: GuardsConfig = GuardsConfig()

    _modes = field_validator("data")(lambda data: check_modes(data.modes) and data)

    @model_validator(mode="after")
    def _policy_has_what_it_needs(self) -> "DPORecipe":
        if self.model.path and self.model.start:
            raise ValueError("model: give 'path' (a model) or 'start' (a recipe whose run makes it), not both")
        if self.pairs.reuse and not (self.pairs.reuse.path or self.model.start):
            raise ValueError(
                "pairs.reuse: whose pairs? Give pairs.reuse.path, or as model.start the recipe of the stage before"
            )
        return self
