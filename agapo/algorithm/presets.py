"""Named algorithms, each a setting of the same pieces. A recipe's own keys override its preset's.

agapo       EXAONE 4.0, arXiv 2507.11407 §2.4.2: no clipping, all-wrong groups kept, leave-one-out then
            batch-normalised advantages, sequence-level cumulative KL.
grpo        DeepSeekMath, arXiv 2402.03300: group mean and std, PPO clip, per-token k3 penalty in the loss,
            each response averaged over its own tokens.
dapo        arXiv 2503.14476: GRPO with a wider upper clip, no KL, uniform groups dropped, token-level loss
            (with a constant denominator here, so that it does not depend on how the batch is split).
rloo        arXiv 2402.14740: leave-one-out baseline, sequence-level policy gradient and KL.
reinforce++ arXiv 2501.03262, the variant with a group baseline: group mean, then batch normalisation,
            PPO clip, per-token k2 penalty in the loss.

This file imports no torch: recipes read it.
"""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "agapo": {
        "all_wrong_penalty": 0.1,
        "drop_all_correct": True,
        "drop_all_wrong": False,
        "advantage": {"group": "loo", "group_std": False, "global": "batch"},
        "kl": {"coefficient": 0.01, "estimator": "reward_to_go", "groups": "kept"},
        "importance": {"level": "token", "cap": 2.0},
        "clip": None,
        "aggregation": "sequence",
    },
    "grpo": {
        "all_wrong_penalty": 0.0,
        "drop_all_correct": False,
        "drop_all_wrong": False,
        "advantage": {"group": "mean", "group_std": True, "global": "none"},
        "kl": {"coefficient": 0.04, "estimator": "k3", "groups": "kept"},
        "clip": {"low": 0.2, "high": 0.2},
        "aggregation": "response_mean",
    },
    "dapo": {
        "all_wrong_penalty": 0.0,
        "drop_all_correct": True,
        "drop_all_wrong": True,
        "advantage": {"group": "mean", "group_std": True, "global": "none"},
        "kl": {"coefficient": 0.0},
        "clip": {"low": 0.2, "high": 0.28},
        "aggregation": "token",
    },
    "rloo": {
        "all_wrong_penalty": 0.0,
        "drop_all_correct": False,
        "drop_all_wrong": False,
        "advantage": {"group": "loo", "group_std": False, "global": "none"},
        "kl": {"coefficient": 0.05, "estimator": "sequence", "groups": "kept"},
        "clip": None,
        "aggregation": "sequence",
    },
    "reinforce++": {
        "all_wrong_penalty": 0.0,
        "drop_all_correct": False,
        "drop_all_wrong": False,
        "advantage": {"group": "mean", "group_std": False, "global": "batch"},
        "kl": {"coefficient": 0.01, "estimator": "k2", "groups": "kept"},
        "clip": {"low": 0.2, "high": 0.2},
        "aggregation": "token",
    },
}
