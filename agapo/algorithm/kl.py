"""The sequence-level cumulative KL to the reference policy.

For a response o of T tokens sampled from π_θ:

    R    = Σ_t log π_θ(o_t)/π_ref(o_t)                 KL(π_θ ‖ π_ref) = E[R]
    ∇KL  = E[ R · ∇log π_θ(o) ]                        plain ("sequence")
         = E[ Σ_t (Σ_{s≥t} r_s) · ∇log π_θ(o_t) ]      reward to go: r_s with s < t cannot depend on o_t

so the coefficient of ∇log π_θ(o_t) is R, or its tail from t on. This is *not* the gradient of a per-token
penalty added to the loss: on-policy, the summed k1 penalty in the loss has zero expected gradient
(arXiv 2506.09477). Both estimators take a leave-one-out baseline, which must not depend on the response itself.
"""

from typing import Literal

import torch
from torch import Tensor

SequenceEstimator = Literal["sequence", "reward_to_go"]


def kl_coefficients(log_ratio: Tensor, response: Tensor, responses: int, estimator: SequenceEstimator) -> Tensor:
    """Return what multiplies ∇log π_θ(o_t) for each token, before the baseline: R, or its tail.

    log_ratio [T]: log π_θ/π_ref of the tokens of several responses, each response's tokens in order and next
    to each other; response [T]: which response each token belongs to, non-decreasing, in 0..responses-1.
    """
    ratio = log_ratio.double()
    total = torch.zeros(responses, dtype=torch.float64, device=ratio.device).index_add_(0, response, ratio)
    if estimator == "sequence":
        return total[response]
    inclusive = ratio.cumsum(0)
    before = total.cumsum(0) - total
    within = inclusive - before[response]
    return total[response] - within + ratio


def kl_baseline(log_ratio: Tensor, mask: Tensor, valid: Tensor, estimator: SequenceEstimator) -> Tensor:
    """Return the leave-one-out baseline [G, T] of one group's KL coefficients.

    log_ratio [G, T] log π/π_ref under the sampling policy, padded on the right; mask [G, T] the trained tokens;
    valid [G] bool, the responses that count. A response that has ended has a reward to go of 0, which counts.
    """
    ratio = torch.where(mask, log_ratio.double(), 0.0)
    if estimator == "sequence":
        coefficients = ratio.sum(dim=1, keepdim=True).expand_as(ratio)
    else:
        coefficients = ratio.flip(1).cumsum(1).flip(1)
    coefficients = torch.where(valid[:, None], coefficients, 0.0)
    others = (valid.sum() - valid.long()).clamp_min(1)[:, None]
    return (coefficients.sum(dim=0, keepdim=True) - coefficients) / others
