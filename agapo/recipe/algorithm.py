"""The `algorithm:` section: AGAPO's parts, each a key, and the presets that set them together."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from agapo.algorithm.presets import PRESETS
from agapo.recipe.section import Strict
from agapo.resolve import did_you_mean


class RefillConfig(Strict):
    """What to do when groups were dropped."""

    max_extra: float = Field(default=1.0, ge=0)
    """At most so many extra prompts a step, as a share of `prompts_per_step`; then the step goes on short."""


class AdvantageConfig(Strict):
    """How rewards become advantages."""

    group: Literal["loo", "mean", "none"] = "loo"
    """What is subtracted: the mean of the others (leave one out), the mean of all, or nothing."""
    group_std: bool = False
    """Divide by the standard deviation inside the group (GRPO)."""
    batch: Literal["batch", "none"] = Field(default="batch", alias="global")
    """Normalise over all responses of the step's batch to mean 0, std 1."""
    std_floor: float = Field(default=1e-4, gt=0)
    """The smallest standard deviation divided by: a batch without any difference stays at 0."""


class KLConfig(Strict):
    """The pull towards the reference policy (the model that RL starts from)."""

    coefficient: float = Field(default=0.0, ge=0)
    """β, in units of normalised advantage. At 0 no reference model is loaded."""
    estimator: Literal["reward_to_go", "sequence", "k2", "k3"] = "reward_to_go"
    """`sequence` and `reward_to_go` have the gradient of the KL of whole responses; k2 and k3 are the per-token
    penalties of the peers."""
    groups: Literal["kept", "all"] = "kept"
    """Estimate over the kept groups (biased by dropping), or over all that were sampled."""


class ImportanceConfig(Strict):
    """The detached, truncated weight min(π_θ/π_sampler, cap) of off-policy data (as in CISPO, arXiv 2506.13585)."""

    level: Literal["token", "sequence", "geometric", "none"] = "token"
    """Whose ratio: the token's, the whole response's (the product of its tokens': over thousands of tokens it is next
    to 0 or at the cap), or their geometric mean (as GSPO's, arXiv 2507.18071: every token of a response weighs alike,
    whatever its length)."""
    cap: float = Field(default=2.0, ge=1)
    """The largest weight."""
    band: tuple[float, float] | None = None
    """[low, high]: where the ratio is outside, the weight is 0 (as IcePop, and sequence masks, of the peers); off for
    AGAPO, which lets every token count."""

    @field_validator("band")
    @classmethod
    def _band_holds_one(cls, band: tuple[float, float] | None) -> tuple[float, float] | None:
        if band and not 0 <= band[0] < 1 < band[1]:
            raise ValueError(f"band {list(band)}: should be [low, high] around 1, such as [0.5, 5]")
        return band


class ClipConfig(Strict):
    """The PPO clip of the peers; AGAPO has none."""

    low: float = Field(default=0.2, gt=0, lt=1)
    """Ratios below 1 − low are clipped."""
    high: float = Field(default=0.2, gt=0)
    """Ratios above 1 + high are clipped."""


class AlgorithmConfig(Strict):
    """The objective. `preset` sets all of it; keys given beside it win."""

    preset: Literal["agapo", "grpo", "dapo", "rloo", "reinforce++"] = "agapo"
    """AGAPO, or a peer put together from the same pieces (docs/agapo.md)."""
    all_wrong_penalty: float = Field(default=0.1, ge=0)
    """δ ≥ 0, subtracted after normalisation from every response of an all-wrong group."""
    drop_all_correct: bool = True
    """Leave out groups in which every response is correct."""
    drop_all_wrong: bool = False
    """Leave out groups in which every response is wrong."""
    refill: RefillConfig = RefillConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    kl: KLConfig = KLConfig()
    importance: ImportanceConfig = ImportanceConfig()
    clip: ClipConfig | None = None
    aggregation: Literal["sequence", "token", "response_mean"] = "sequence"
    """`sequence`: sum over a response's tokens (the paper); `token`: that over the constant `max_new_tokens`;
    `response_mean`: each response averaged over its own length (GRPO)."""
    objective: str = ""
    """`package.module:function`, a loss of your own, called as `loss(logprobs, tokens, objective, denominator)`
    (docs/library.md); empty: AGAPO's, or the preset's, by the keys of this section."""
    updates_per_batch: int = Field(default=1, ge=1)
    """Optimizer updates a batch; each takes its share of the groups."""
    shuffle_rewards: bool = False
    """A control: rewards are permuted among the step's responses. A real gain must vanish."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("preset", "agapo")
        if name not in PRESETS:
            raise ValueError(f"preset {name!r} is unknown{did_you_mean(str(name), list(PRESETS))}")
        return _merge(PRESETS[name], given)


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
