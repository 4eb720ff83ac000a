"""Which ZeRO stage DeepSpeed runs, and which of them read the shards that another one wrote."""

from typing import Literal


def stage_run(zero_stage: int, *, bfloat16: bool) -> int:
    """Return the ZeRO stage that DeepSpeed is told: 1 for bfloat16 weights of which nothing should be sharded."""
    return max(zero_stage, 1) if bfloat16 else zero_stage


def can_be_divided_anew(then: int, now: int, section: Literal["learner", "training"]) -> bool:
    """Return whether ranks under ZeRO `now` read what others wrote under `then`, in its universal form or whole.

    ZeRO 1 and 2 share their files, and what is not sharded is whole. Under ZeRO 3 DeepSpeed 0.19 brings back the
    optimizer of a trainer (`training`) a little wrong: losses were 0.2 % off seven steps after going on with one rank.
    """
    if section == "training" and now == 3:
        return False
    return _files(then) == _files(now)


def _files(zero_stage: int) -> int:
    return 1 if zero_stage == 2 else zero_stage
