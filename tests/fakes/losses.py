"""Losses that a recipe names: AGAPO's once more, and what is none."""

from agapo.algorithm.kl import kl_coefficients
from agapo.algorithm.objective import importance_weights


def agapo(logprobs, tokens, objective, denominator):
    """The formula of `agapo.algorithm.objective`, its numbers in the same order."""
    trained = tokens.mask > 0
    weights = importance_weights(
        (logprobs.detach() - tokens.sampler_logprobs).where(trained, logprobs.new_zeros(())), tokens, objective
    )
    per_token = -weights * tokens.advantages * logprobs
    if objective.kl_coefficient:
        to_reference = (logprobs - tokens.reference_logprobs).where(trained, logprobs.new_zeros(()))
        found = kl_coefficients(to_reference.detach(), tokens.response, tokens.responses, objective.kl_estimator)
        kl = tokens.kl_weights * weights * (found - tokens.kl_baselines).to(logprobs.dtype) * logprobs
        per_token = per_token + objective.kl_coefficient * kl
    return (tokens.mask / denominator * per_token).sum()


def per_token(logprobs, tokens, objective, denominator):
    return -tokens.mask * tokens.advantages * logprobs / denominator


def constant(logprobs, tokens, objective, denominator):
    return (logprobs.detach() * tokens.mask).sum()
