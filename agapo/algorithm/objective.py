"""The loss: its gradient is minus the gradient of

    J(θ) = E[ 1/G Σ_i ( A_i · log π_θ(o_i|q) − β · KL(π_θ ‖ π_ref) ) ]       (arXiv 2507.11407, AGAPO)

There is no clipping: low-probability tokens keep their gradient. Where data is off-policy (later updates of a
batch, stale weights), each token is multiplied by the truncated, detached weight min(ρ, cap), where ρ = π_θ/π_sampler
of the token, of its whole response (unbiased, but a product of thousands of ratios is 0 or the cap), or the geometric
mean of the response's ratios (the sequence ratio of GSPO, arXiv 2507.18071).

Tokens come flat: the response tokens of a micro-batch, one after another, whatever the rows looked like, so the
result cannot depend on padding or packing. Denominators are constants of the step: the sum over micro-batches
and ranks is the loss of the batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from agapo.algorithm.kl import kl_coefficients
from agapo.errors import UserError


@dataclass(frozen=True)
class Objective:
    """The settings of the loss. The defaults are the bare policy gradient."""

    kl_coefficient: float = 0.0
    kl_estimator: Literal["sequence", "reward_to_go", "k2", "k3"] = "reward_to_go"
    importance: Literal["token", "sequence", "geometric", "none"] = "token"
    importance_cap: float = 2.0
    importance_band: tuple[float, float] | None = None
    """Outside of which a ratio's weight is 0."""
    clip: tuple[float, float] | None = None
    """(low, high) of a PPO clip, for the peers' presets; None for AGAPO."""
    aggregation: Literal["sequence", "token", "response_mean"] = "sequence"
    max_new_tokens: int = 1
    """The constant that `token` aggregation divides by."""
    function: str = ""
    """`package.module:function`, a loss instead of this module's (`OwnLoss`); empty: this module's."""


@dataclass(frozen=True)
class TokenBatch:
    """The response tokens of a micro-batch, flat: T tokens of R responses."""

    response: Tensor
    """[T] which response each token belongs to, non-decreasing, in 0..R-1."""
    responses: int
    """R."""
    mask: Tensor
    """[T] 1 for tokens in the loss; 0 for a tool's result and for dummies that only equalise ranks."""
    sampler_logprobs: Tensor
    """[T] under the policy that sampled."""
    reference_logprobs: Tensor
    """[T] under the reference policy; anything when β = 0."""
    advantages: Tensor
    """[T] the response's advantage, on each of its tokens."""
    kl_weights: Tensor
    """[T] the response's weight in the KL term."""
    kl_baselines: Tensor
    """[T] what is subtracted from the KL coefficient (`kl.kl_baseline`)."""
    fresh: Tensor | None = None
    """[T] 1 for tokens that the weights at hand sampled, on which engine and learner are compared; None: all."""


OwnLoss = Callable[[Tensor, TokenBatch, Objective, float], Tensor]
"""`loss(logprobs, tokens, objective, denominator) -> Tensor`, what they are in `policy_loss`, a scalar with gradient.

It is asked for each micro-batch, and the sum of its answers, over ranks too, is the loss of the update: it divides by
`denominator` and by nothing that it counts itself, and leaves tokens with `tokens.mask` 0 out.
"""


def policy_loss(
    logprobs: Tensor, tokens: TokenBatch, objective: Objective, denominator: float, own: OwnLoss | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss (a scalar), by `own` where it is given, and sums for the metrics.

    logprobs [T] under the policy being trained, with gradient. `denominator` is the nominal number of responses
    of the *whole* update, not of this micro-batch: a step with fewer groups takes a smaller step.

    Raises UserError where `own` returns something else.
    """
    log_ratio = _log_ratio(logprobs.detach(), tokens.sampler_logprobs, tokens)
    if own:
        loss = own(logprobs, tokens, objective, denominator)
        if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
            raise UserError(f"algorithm.objective: '{objective.function}' should return a scalar tensor with gradient")
        return loss, _sums(log_ratio, logprobs.detach(), tokens, objective)
    weights = importance_weights(log_ratio, tokens, objective)
    per_token = _policy_term(logprobs, tokens, weights, objective)
    if objective.kl_coefficient:
        per_token = per_token + objective.kl_coefficient * _kl_term(logprobs, tokens, weights, objective)
    scale = tokens.mask * _aggregation(tokens, objective) / denominator
    return (scale * per_token).sum(), _sums(log_ratio, logprobs.detach(), tokens, objective)


def importance_weights(log_ratio: Tensor, tokens: TokenBatch, objective: Objective) -> Tensor:
    """Return min(ρ, cap) for each token [T]; ρ is the ratio of the token, or the product or mean of its response's.

    0 where ρ is outside the band, if there is one.
    """
    if objective.importance == "none":
        return torch.ones_like(log_ratio)
    level = _at_level(log_ratio, tokens, objective)
    # The cap is applied to the logarithm, so that nothing overflows on the way to it.
    weights = level.clamp(max=math.log(objective.importance_cap)).exp()
    if objective.importance_band is None:
        return weights
    low, high = objective.importance_band
    return torch.where((level >= math.log(max(low, 1e-30))) & (level <= math.log(high)), weights, 0.0)


def _at_level(log_ratio: Tensor, tokens: TokenBatch, objective: Objective) -> Tensor:
    """Return log ρ [T]: 0 counts for untrained tokens, so sums and means are over the trained ones."""
    if objective.importance in ("token", "none"):
        return log_ratio
    total = _per_response(log_ratio, tokens)
    if objective.importance == "geometric":
        total = total / _per_response(tokens.mask, tokens).clamp_min(1)
    return total[tokens.response]


def _policy_term(logprobs: Tensor, tokens: TokenBatch, weights: Tensor, objective: Objective) -> Tensor:
    if objective.clip is None:
        return -weights * tokens.advantages * logprobs
    low, high = objective.clip
    ratio = _log_ratio(logprobs, tokens.sampler_logprobs, tokens).exp()
    clipped = ratio.clamp(1 - low, 1 + high)
    return -torch.minimum(ratio * tokens.advantages, clipped * tokens.advantages)


def _kl_term(logprobs: Tensor, tokens: TokenBatch, weights: Tensor, objective: Objective) -> Tensor:
    log_ratio = _log_ratio(logprobs, tokens.reference_logprobs, tokens)
    if objective.kl_estimator == "k2":
        return tokens.kl_weights * log_ratio**2 / 2
    if objective.kl_estimator == "k3":
        return tokens.kl_weights * ((-log_ratio).exp() - 1 + log_ratio)
    coefficients = kl_coefficients(log_ratio.detach(), tokens.response, tokens.responses, objective.kl_estimator)
    centred = (coefficients - tokens.kl_baselines).to(logprobs.dtype)
    return tokens.kl_weights * weights * centred * logprobs


def _log_ratio(logprobs: Tensor, others: Tensor, tokens: TokenBatch) -> Tensor:
    """0 at untrained tokens: there the ratio may overflow, and infinity times a mask of 0 is not 0."""
    return torch.where(tokens.mask > 0, logprobs - others, 0.0)


def _aggregation(tokens: TokenBatch, objective: Objective) -> Tensor:
    if objective.aggregation == "sequence":
        return torch.ones_like(tokens.mask)
    if objective.aggregation == "token":
        return torch.full_like(tokens.mask, 1 / objective.max_new_tokens)
    lengths = _per_response(tokens.mask, tokens).clamp_min(1)
    return 1 / lengths[tokens.response]


def _per_response(values: Tensor, tokens: TokenBatch) -> Tensor:
    total = torch.zeros(tokens.responses, dtype=values.dtype, device=values.device)
    return total.index_add_(0, tokens.response, values)


def _sums(log_ratio: Tensor, logprobs: Tensor, tokens: TokenBatch, objective: Objective) -> dict[str, Tensor]:
    """Sums over this micro-batch (and one maximum), from which the step's metrics are made."""
    ratio = log_ratio.clamp(max=20).exp()
    outside = (_at_level(log_ratio, tokens, objective) > math.log(objective.importance_cap)).to(ratio.dtype)
    if objective.clip:
        low, high = objective.clip
        outside = ((ratio < 1 - low) | (ratio > 1 + high)).to(ratio.dtype)
    # The log-ratio is 0 at untrained tokens, and so is all that is summed of it; ratios there are 1.
    sums = {
        "tokens": tokens.mask.sum(),
        "ratio": (ratio * tokens.mask).sum(),
        "ratio_square": (ratio**2 * tokens.mask).sum(),
        **_fresh_sums(log_ratio, ratio, tokens),
        "ratio_max": torch.where(tokens.mask > 0, ratio, 0.0).max(),
        "ratio_outside": (outside * tokens.mask).sum(),
    }
    if objective.kl_coefficient:
        to_reference = (logprobs - tokens.reference_logprobs) * tokens.mask
        sums["kl"] = to_reference.sum()
        sums["kl_k3"] = (((-to_reference).exp() - 1 + to_reference) * tokens.mask).sum()
    return sums


def _fresh_sums(log_ratio: Tensor, ratio: Tensor, tokens: TokenBatch) -> dict[str, Tensor]:
    """Sums over the tokens that the weights at hand sampled: there the two should be the same."""
    fresh = tokens.mask if tokens.fresh is None else tokens.mask * tokens.fresh
    gap = (log_ratio * fresh).abs()
    return {
        "fresh": fresh.sum(),
        "fresh_ratio": (ratio * fresh).sum(),
        "fresh_ratio_square": (ratio**2 * fresh).sum(),
        "gap": gap.sum(),
        "gap_max": gap.max(),
        "gap_kl": ((ratio - 1 - log_ratio) * fresh).sum(),
    }
