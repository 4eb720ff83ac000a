"""Which groups a step learns from: AGAPO's asymmetric sampling, and its batch.

All-correct groups teach nothing and are dropped; all-wrong groups stay, and push down what they did.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Literal

import torch
from torch import Tensor

from agapo.algorithm.advantages import GroupBaseline, advantages
from agapo.schema import Batch, Group, Response

LOWEST_RATE = 0.01
"""Of kept groups, as far as it is believed: where none was kept, the next may be."""


def select_groups(
    groups: Sequence[Group], *, drop_all_correct: bool, drop_all_wrong: bool = False
) -> tuple[list[Group], list[Group]]:
    """Split the groups into those to learn from and those to drop, each in the order given.

    A group without any verdict is dropped in any case: it says nothing.
    """
    kept: list[Group] = []
    dropped: list[Group] = []
    for group in groups:
        useless = not group.verdicts or (drop_all_correct and group.all_correct) or (drop_all_wrong and group.all_wrong)
        (dropped if useless else kept).append(group)
    return kept, dropped


def prompts_to_keep(count: int, rate: float) -> int:
    """Return how many prompts to sample so that `count` groups are kept, where each is with probability `rate`.

    The smallest n with n·p − √(n·p·(1 − p)) ≥ count: a standard deviation fewer than are to be expected are enough.
    """
    p = max(rate, LOWEST_RATE)
    spread = math.sqrt(p * (1 - p))
    root = (spread + math.sqrt(spread**2 + 4 * p * count)) / (2 * p)
    return math.ceil(root**2 - 1e-9)


def make_batch(
    kept: Sequence[Group],
    dropped: Sequence[Group],
    *,
    nominal_responses: int,
    group: GroupBaseline = "loo",
    group_std: bool = False,
    batch: Literal["batch", "none"] = "batch",
    all_wrong_penalty: float = 0.0,
    std_floor: float = 1e-4,
    kl_groups: Literal["kept", "all"] = "kept",
) -> Batch:
    """Return the step's batch: the kept groups with their advantages.

    With `kl_groups` "all" the dropped groups ride along with advantage 0, so that the KL is estimated over all
    responses that were sampled; their weights make it a mean over those rather than over the nominal batch.
    """
    rewards, valid, all_wrong = _tensors(kept)
    values = advantages(
        rewards,
        valid,
        all_wrong,
        group=group,
        group_std=group_std,
        batch=batch,
        all_wrong_penalty=all_wrong_penalty,
        std_floor=std_floor,
    )
    riders = list(dropped) if kl_groups == "all" else []
    sampled = sum(len(item.responses) for item in (*kept, *riders))
    weight = nominal_responses / sampled if kl_groups == "all" and sampled else 1.0
    groups = (*kept, *riders)
    own = (tuple(row[: len(item.responses)]) for item, row in zip(kept, values.tolist(), strict=True))
    return Batch(
        groups=groups,
        advantages=(*own, *((0.0,) * len(rider.responses) for rider in riders)),
        kl_weights=tuple(
            tuple(weight if response.reward is not None else 0.0 for response in item.responses) for item in groups
        ),
        nominal_responses=nominal_responses,
    )


def shuffle_rewards(groups: Sequence[Group], seed: str) -> list[Group]:
    """Return the groups with their verdicts permuted among all responses: a control that must not learn."""
    judged = [response for group in groups for response in group.responses]
    order = list(range(len(judged)))
    Random(seed).shuffle(order)
    donors = iter([judged[index] for index in order])
    return [
        replace(group, responses=tuple(_with_verdict_of(own, next(donors)) for own in group.responses))
        for group in groups
    ]


def _with_verdict_of(own: Response, donor: Response) -> Response:
    return replace(own, reward=donor.reward, correct=donor.correct)


def _tensors(groups: Sequence[Group]) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards [N, G], which of them count [N, G], and which groups are all wrong [N]."""
    size = max((len(group.responses) for group in groups), default=0)
    rewards = torch.zeros(len(groups), size, dtype=torch.float64)
    valid = torch.zeros(len(groups), size, dtype=torch.bool)
    for row, group in enumerate(groups):
        for column, response in enumerate(group.responses):
            if response.reward is not None:
                rewards[row, column] = response.reward
                valid[row, column] = True
    all_wrong = torch.tensor([group.all_wrong for group in groups], dtype=torch.bool)
    return rewards, valid, all_wrong
