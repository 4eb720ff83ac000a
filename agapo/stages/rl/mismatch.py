"""Engine against learner: are the tokens' log-probabilities the same in both?

Both are of the same tokens, at the sampling temperature. Where they differ by more than rounding, what was sampled is
not from the policy that learns: the field's worst fault, since nothing else shows it. Every step measures it, at its
first update (later ones of a batch have moved on by design), from what the update computes anyway, and on the tokens
that the weights at hand sampled (others are off-policy by design). A step without such tokens measures nothing.
"""

from collections.abc import Mapping, Sequence

from agapo.errors import UserError


def mismatch_metrics(sums: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the difference over the fresh tokens of a step's first update; empty where there were none.

    With r = π_learner / π_engine of a token: `mean` and `max` of |log r| in nats; `kl`, the estimate
    E[r − 1 − log r] of KL(engine ‖ learner) a token; `ess`, the effective sample size (Σr)² / Σr² as a share of the
    tokens.
    """
    if not sums:
        return {}
    first = sums[0]
    if not (tokens := first["fresh"]):
        return {}
    return {
        "mismatch/mean": first["gap"] / tokens,
        "mismatch/max": first["gap_max"],
        "mismatch/kl": first["gap_kl"] / tokens,
        "mismatch/ess": first["fresh_ratio"] ** 2 / max(1e-9, first["fresh_ratio_square"]) / tokens,
    }


def require_same_policy(metrics: Mapping[str, float], bound: float, agreed: int, *, adapters: bool = False) -> None:
    """Raise UserError, with the likely cause, where `mismatch/mean` is past the bound (or is no number).

    `agreed`: how many steps were within it before; `adapters`: whether LoRA adapters are what is updated.
    """
    mean = metrics.get("mismatch/mean")
    if mean is None or mean <= bound:
        return
    # Before the first update an adapter adds nothing, so that one which is not loaded agrees at first.
    adapter = ", or an adapter that is not loaded" if adapters else ""
    cause = (
        f"they agreed over {agreed} steps, so weights are the likely cause: stale, or some did not reach the engine"
        f"{adapter}"
        if agreed
        else "they never agreed: likely another temperature, dtype, attention, RoPE or chat template, or another model"
    )
    raise UserError(
        f"rollout.mismatch: rollout engine and learner differ by {mean:.3g} nats a token on the same tokens (largest "
        f"{metrics['mismatch/max']:.3g}), and {bound:g} is the bound; {cause}. The step was not saved. Where so much "
        "is right, raise rollout.mismatch.stop_above"
    )
