"""The recipe of the RL stage."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from agapo.errors import UserError
from agapo.recipe.algorithm import AlgorithmConfig
from agapo.recipe.base import DataConfig, ModelConfig, Recipe, Strict, check_modes
from agapo.resolve import did_you_mean
from agapo.schema import MODES, Mode

Combination = Literal["sum", "all"]
Truncated = Literal["wrong", "masked"]


class RewardTerm(Strict):
    """One reward function, what it is asked about, and how much it counts."""

    name: str
    function: str
    """`package.module:function` with the signature `score(prompts, completions, **columns)`, or
    `score_group(prompt, completions, scores, **columns)`, which judges a prompt's responses together."""
    weight: float = 1.0
    """0 shows the term's mean and does not count."""
    domains: list[str] = Field(default_factory=list)
    """The domains whose responses it judges; empty means all."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function that are the same for every response."""
    deadline_s: float | None = Field(default=None, gt=0)
    """Its own limit instead of `reward.deadline_s`."""
    form: Literal["auto", "messages", "text"] = "auto"
    """How it reads prompts and completions: both as lists of messages, or both as texts, as TRL has them. `auto` gives
    it the prompt's messages and the response's text, and one of TRL's forms where it is seen to read that."""

    def judges(self, domain: str) -> bool:
        """Whether it is asked about responses of a domain."""
        return not self.domains or domain in self.domains


class RewardConfig(Strict):
    """How responses are judged."""

    terms: list[RewardTerm] = Field(min_length=1)
    combine: Combination | dict[str, Combination] = "sum"
    """`sum`: weighted sum of the terms; `all`: their product (weights other than 0 do not matter). One for all
    domains, or by domain, where those that are not named have `sum`."""
    verdict: str | dict[str, str] = ""
    """The term that decides `correct` (from a value of `correct_at`), one for all or by domain; by default the first
    that judges the domain and has a weight."""
    correct_at: float = 1.0
    """The verdict's value from which a response is correct: lower it for a shaped reward that seldom reaches 1."""
    truncated: Truncated = "wrong"
    """Responses cut at `max_new_tokens`, in training, evaluation and filter alike: the lowest reward that the terms can
    give, or no reward (left out of advantages and loss)."""
    workers: int = Field(default=2, ge=1)
    """Verifier processes, shared out over the hosts of a Ray cluster."""
    deadline_s: float = Field(default=10.0, gt=0)
    """Wall-clock limit for a term on a sample; then its worker is killed and the term scores 0."""
    max_error_rate: float = Field(default=0.2, ge=0, le=1)
    """Stop the run when more than this share of a step's samples met an error."""

    def terms_for(self, domain: str) -> list[RewardTerm]:
        """Return the terms that judge a domain's responses."""
        return [term for term in self.terms if term.judges(domain)]

    def verdict_for(self, domain: str) -> str:
        """Return the name of the term that decides `correct` in a domain."""
        named = self.verdict.get(domain, "") if isinstance(self.verdict, dict) else self.verdict
        found = self.terms_for(domain)
        counting = [term for term in found if term.weight] or found
        return named or counting[0].name

    def combination_for(self, domain: str) -> Combination:
        """Return how a domain's terms become one reward."""
        return self.combine.get(domain, "sum") if isinstance(self.combine, dict) else self.combine

    @model_validator(mode="after")
    def _verdicts_are_terms(self) -> "RewardConfig":
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise ValueError(f"terms have the same name twice: {names}")
        by_domain = self.verdict if isinstance(self.verdict, dict) else {"": self.verdict} if self.verdict else {}
        for domain, name in by_domain.items():
            if name not in names:
                raise ValueError(f"verdict '{name}' is not one of the terms{did_you_mean(name, names)}")
            if domain and not self.terms[names.index(name)].judges(domain):
                raise ValueError(f"verdict '{name}' does not judge the domain '{domain}'; add it to the term's domains")
        return self

    @model_validator(mode="after")
    def _domains_are_known(self) -> "RewardConfig":
        known = {domain for term in self.terms for domain in term.domains}
        named = [
            *(self.verdict if isinstance(self.verdict, dict) else ()),
            *(self.combine if isinstance(self.combine, dict) else ()),
        ]
        for domain in named:
            if known and domain not in known and all(term.domains for term in self.terms):
                raise ValueError(f"no term judges the domain '{domain}'{did_you_mean(domain, sorted(known))}")
        return self


def require_terms(reward: RewardConfig, domains: Iterable[str]) -> None:
    """Raise UserError where the questions have a domain that no term judges, or whose verdict is not given there."""
    for domain in sorted(set(domains)):
        judging = [term.name for term in reward.terms_for(domain)]
        if not judging:
            known = sorted({name for term in reward.terms for name in term.domains})
            raise UserError(
                f"reward.terms: no term judges the domain '{domain}' of the questions{did_you_mean(domain, known)}; "
                "add it to a term's 'domains'"
            )
        if reward.verdict_for(domain) not in judging:
            raise UserError(
                f"reward.verdict: '{reward.verdict_for(domain)}' does not judge the domain '{domain}'; give a verdict "
                f"for it (verdict: {{{domain}: {judging[0]}}})"
            )


class RolloutConfig(Strict):
    """How responses are sampled."""

    engine: Literal["transformers"] = "transformers"
    actors: int = Field(default=1, ge=1)
    group_size: int = Field(default=8, ge=2)
    """G, the responses a prompt; leave-one-out needs at least 2."""
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=1024, ge=1)
    stop: list[str] = Field(default_factory=list)
    """Texts that end a response, besides the end-of-turn token; kept in the response."""
    chunk_prompts: int = Field(default=8, ge=1)
    """Prompts that one actor samples together; the unit of work that is redone when an actor dies."""
    threads: int = Field(default=0, ge=0)
    """CPU threads an actor; 0 shares this machine's cores among the actors."""
    gpus_per_actor: float = Field(default=0.0, ge=0)
    chunk_timeout_s: float = Field(default=1800.0, gt=0)
    """An actor that takes longer over a chunk is taken for hung, and replaced."""
    max_restarts: int = Field(default=10, ge=0)
    """Actor replacements a run; more says that something is wrong that a restart cannot mend."""


def rollout_warnings(own: RolloutConfig) -> list[str]:
    """Return what is allowed in RL's sampling, and seldom meant; `agapo check` and `agapo rl` say it."""
    if own.top_p == 1:
        return []
    return [
        f"rollout.top_p {own.top_p:g}: responses are sampled from the likeliest tokens alone, and the learner's "
        "log-probabilities are over the whole vocabulary, so that neither gradient nor KL is of what was sampled; "
        "set it to 1"
    ]


class LearnerConfig(Strict):
    """How the policy is updated."""

    ranks: int = Field(default=1, ge=1)
    """Data-parallel DeepSpeed ranks."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO: 1 shards the optimizer, 2 the gradients too, 3 the weights too; in bfloat16 0 runs as 1."""
    learning_rate: float = Field(default=1e-6, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=5, ge=0)
    min_learning_rate: float = Field(default=0.0, ge=0)
    """Where `linear` and `cosine` end."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float | None = Field(default=None, gt=0)
    """A larger gradient is shortened to this norm. By default 1 where `algorithm.aggregation` divides by tokens, and
    `rollout.max_new_tokens` where it is `sequence`: a sum over tokens is exactly so many times the `token` gradient,
    and is shortened at the same point. A bound that nearly every step meets makes all steps equally long, a step of
    few groups as long as a full one."""
    micro_batch_tokens: int = Field(default=16384, ge=16)
    """Tokens a rank puts through the model at once."""
    layout: Literal["packed", "right", "left"] = "packed"
    """How sequences become rows: several a row without padding, or one a row padded on a side."""
    threads: int = Field(default=0, ge=0)
    """CPU threads a rank; 0 shares this machine's cores among the ranks."""
    gpus_per_rank: float = Field(default=0.0, ge=0)


class EvaluationConfig(Strict):
    """Greedy accuracy on questions that are not trained on."""

    every: int = Field(default=20, ge=0)
    """Steps between evaluations on the validation questions; 0 never."""
    modes: list[Mode] = Field(default_factory=lambda: list(MODES), min_length=1)
    """Modes of the table before and after."""
    test_size: int = Field(default=512, ge=1)
    """Questions of the test split, for the table before and after."""
    validation_size: int = Field(default=128, ge=1)
    """Questions held out of training, for the curve and for choosing the best checkpoint."""
    chunk_prompts: int = Field(default=128, ge=1)
    pass_at: int = Field(default=0, ge=0)
    """Before training, sample so many responses a validation question and report pass@k; 0 skips it."""
    keep: Literal["best", "last"] = "best"
    """Which weights are exported: the best on the validation questions, or the last."""


class RLRecipe(Recipe):
    """`agapo rl RECIPE`."""

    stage: Literal["rl"] = "rl"  # pyright: ignore[reportIncompatibleVariableOverride]
    steps: int = Field(ge=1)
    prompts_per_step: int = Field(default=16, ge=1)
    model: ModelConfig = ModelConfig()
    """Without `path` and `start`: what the last finished SFT run made."""
    data: DataConfig
    reward: RewardConfig
    algorithm: AlgorithmConfig = AlgorithmConfig()
    rollout: RolloutConfig = RolloutConfig()
    learner: LearnerConfig = LearnerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    _modes = field_validator("data")(lambda data: check_modes(data.modes) and data)

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

    @property
    def max_grad_norm(self) -> float:
        """`learner.max_grad_norm`, or its default for the aggregation."""
        summed = self.algorithm.aggregation == "sequence"
        return self.learner.max_grad_norm or (float(self.rollout.max_new_tokens) if summed else 1.0)

    @property
    def nominal_responses(self) -> int:
        """Prompts a step × G: the constant denominator of the loss."""
        return self.prompts_per_step * self.rollout.group_size
