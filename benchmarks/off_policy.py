"""Bias and spread of the policy gradient where older weights sampled, by exact enumeration of a small policy.

    python -m benchmarks.off_policy

All 81 responses of four tokens from a vocabulary of three, each token's distribution depending on those before it.
The sampler is the policy with its logits moved at random. For each level of `algorithm.importance` and each cap, the
table has the error of the expected gradient against the on-policy one, and the standard deviation of a response's, both
as shares of the latter's norm.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from agapo.algorithm.objective import Objective, TokenBatch, policy_loss

VOCABULARY, LENGTH = 3, 4
CAPS = (1.0, 1.5, 2.0, 5.0, math.inf)
LEVELS = ("none", "token", "geometric", "sequence")


@dataclass(frozen=True)
class Policy:
    """A table of logits for every prefix: [prefixes, VOCABULARY]."""

    logits: Tensor

    def logprobs(self, response: tuple[int, ...]) -> Tensor:
        """Return log π [LENGTH] of a response's tokens."""
        rows = [_row(response[:place]) for place in range(LENGTH)]
        return self.logits[rows].log_softmax(-1)[range(LENGTH), list(response)]


def _row(prefix: tuple[int, ...]) -> int:
    before = sum(VOCABULARY**length for length in range(len(prefix)))
    return before + sum(token * VOCABULARY**place for place, token in enumerate(prefix))


def draw_policies(step: float, seed: int = 0) -> tuple[Policy, Policy]:
    """Return the policy, and the sampler: the policy moved by `step` a logit, at random."""
    generator = torch.Generator().manual_seed(seed)
    size = (sum(VOCABULARY**length for length in range(LENGTH)), VOCABULARY)
    policy = torch.randn(size, generator=generator, dtype=torch.float64)
    sampler = policy + step * torch.randn(size, generator=generator, dtype=torch.float64)
    return Policy(policy.requires_grad_()), Policy(sampler)


def responses() -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield every response and its advantage: the reward is for a sum divisible by three; a third is the baseline."""
    for response in product(range(VOCABULARY), repeat=LENGTH):
        yield response, float(sum(response) % 3 == 0) - 1 / 3


def on_policy_gradient(policy: Policy) -> Tensor:
    """Return ∇ E_π[A], exactly."""
    value = torch.stack([advantage * policy.logprobs(item).sum().exp() for item, advantage in responses()]).sum()
    return torch.autograd.grad(value, policy.logits)[0]


def expected_gradient(policy: Policy, sampler: Policy, objective: Objective) -> tuple[Tensor, float]:
    """Return the mean, over responses that the sampler draws, of minus the loss's gradient, and its spread."""
    mean = torch.zeros_like(policy.logits)
    square = 0.0
    for response, advantage in responses():
        logprobs, drawn = policy.logprobs(response), sampler.logprobs(response).detach()
        zeros = torch.zeros(LENGTH, dtype=torch.float64)
        tokens = TokenBatch(zeros.long(), 1, zeros + 1, drawn, zeros, zeros + advantage, zeros, zeros)
        loss, _ = policy_loss(logprobs, tokens, objective, 1.0)
        gradient = -torch.autograd.grad(loss, policy.logits)[0]
        chance = float(drawn.sum().exp())
        mean += chance * gradient
        square += chance * float(gradient.square().sum())
    return mean, math.sqrt(max(0.0, square - float(mean.square().sum())))


@torch.no_grad()
def divergence(sampler: Policy, policy: Policy) -> float:
    """Return KL(sampler ‖ policy) of a response, in nats."""
    pairs = [(sampler.logprobs(response).sum(), policy.logprobs(response).sum()) for response, _ in responses()]
    return sum(float(drawn.exp() * (drawn - own)) for drawn, own in pairs)


def main() -> None:
    """Print the table for a sampler close by, and one further off."""
    for step in (0.1, 0.5):
        policy, sampler = draw_policies(step)
        exact = on_policy_gradient(policy)
        norm = float(exact.norm())
        print(f"\nsampler {divergence(sampler, policy):.3f} nats a response away: error of the mean, spread\n")
        print("| level | " + " | ".join(f"cap {cap:g}" for cap in CAPS) + " |")
        print("|---|" + "---|" * len(CAPS))
        for level in LEVELS:
            cells = []
            for cap in CAPS:
                found, spread = expected_gradient(policy, sampler, Objective(importance=level, importance_cap=cap))
                cells.append(f"{float((found - exact).norm()) / norm:.3f}, {spread / norm:.1f}")
            print(f"| {level} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
