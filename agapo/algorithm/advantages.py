"""From rewards to advantages: inside the group, then over the batch, then the all-wrong signal.

AGAPO (arXiv 2507.11407 §2.4.2):

    A_loo,i    = r_i − mean_{j≠i} r_j
    A_global,i = (A_loo,i − mean_k A_loo,k) / std_k A_loo,k

Leave-one-out advantages of a complete group sum to zero, so an all-wrong group has A_loo = 0 and the batch
mean is 0 too: normalising alone gives such a group no signal at all. The report says it gets a small negative
one, hence −δ is *added after* normalising. Put in before, it would recentre the batch: wrong answers of mixed
groups would turn positive, and the signal would fade as more groups are all wrong.
"""

from typing import Literal

import torch
from torch import Tensor

ROUNDING = 1e-13
"""Advantages smaller than this are rounding (float64, of order 1)."""

GroupBaseline = Literal["loo", "mean", "none"]


def advantages(
    rewards: Tensor,
    valid: Tensor,
    all_wrong: Tensor,
    *,
    group: GroupBaseline = "loo",
    group_std: bool = False,
    batch: Literal["batch", "none"] = "batch",
    all_wrong_penalty: float = 0.0,
    std_floor: float = 1e-4,
) -> Tensor:
    """Return the advantages [N, G] (float64) of a step's N groups of G responses.

    rewards [N, G]; valid [N, G] bool, False where a response has no verdict: it takes no part and gets 0;
    all_wrong [N] bool. `all_wrong_penalty` is δ ≥ 0, in units of the result.
    """
    rewards = torch.where(valid, rewards.double(), 0.0)
    result = centre_groups(rewards, valid, group)
    if group_std:
        result = result / _std(rewards, valid, dim=1).clamp_min(std_floor)
    if batch == "batch":
        result = normalise_batch(result, valid, std_floor)
    # What is left of exact zeros by rounding carries no signal, and would cost a pass through the model.
    result = torch.where(result.abs() < ROUNDING, 0.0, result)
    result = result - all_wrong_penalty * all_wrong[:, None].double()
    return torch.where(valid, result, 0.0)


def centre_groups(rewards: Tensor, valid: Tensor, baseline: GroupBaseline) -> Tensor:
    """Subtract the group's baseline from each reward [N, G]; 0 where a response is alone in its group."""
    if baseline == "none":
        return rewards
    count = valid.sum(dim=1, keepdim=True)
    total = rewards.sum(dim=1, keepdim=True)
    if baseline == "mean":
        centred = rewards - total / count.clamp_min(1)
    else:
        centred = rewards - (total - rewards) / (count - 1).clamp_min(1)
    return torch.where(valid & (count > 1), centred, 0.0)


def normalise_batch(values: Tensor, valid: Tensor, std_floor: float) -> Tensor:
    """Shift and scale the valid values [N, G] to mean 0 and population std 1, each response counting once.

    The std is at least `std_floor`: in a batch without differences it is rounding noise, whose sign means nothing.
    """
    if not valid.any():
        return torch.zeros_like(values)
    mean = values[valid].mean()
    std = values[valid].std(correction=0).clamp_min(std_floor)
    return torch.where(valid, (values - mean) / std, 0.0)


def _std(values: Tensor, valid: Tensor, dim: int) -> Tensor:
    count = valid.sum(dim=dim, keepdim=True).clamp_min(1)
    mean = values.sum(dim=dim, keepdim=True) / count
    squares = torch.where(valid, (values - mean) ** 2, 0.0)
    return (squares.sum(dim=dim, keepdim=True) / count).sqrt()
