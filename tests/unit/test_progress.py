"""What an RL run remembers of its verdicts, and when it says that none of them can ever count as correct."""

from dataclasses import replace

import pytest

from agapo.recipe import RLRecipe
from agapo.recipe.reward import RewardConfig
from agapo.schema import Group, Prompt, Response
from agapo.stages.rl.progress import Progress, doubts, unreached

REWARD = RewardConfig.model_validate({"terms": [{"name": "mine", "function": "a:b"}], "correct_at": 0.8})


def group(domain: str, *values: float | None) -> Group:
    responses = tuple(Response((), "", "stop", reward_parts={"mine": value}) for value in values)
    return Group(Prompt(domain, ({"role": "user", "content": "?"},), domain=domain), (), responses)


@pytest.mark.parametrize(
    ("values", "highest"),
    [
        ([0.1, 0.3], "0.3"),
        # A penalty, which is 0 at best, can no more be correct than one that is above it.
        ([-0.5, 0.0], "0"),
        ([-0.5, -0.25], "-0.25"),
        ([0.0, 0.0], None),  # not right yet
        ([None, None], None),
        ([0.1, 0.8], None),
    ],
)
def test_a_reward_of_which_nothing_is_correct_is_said(values: list[float | None], highest: str | None) -> None:
    progress = Progress()
    for value in values:
        progress.note_responses([group("math", value)], REWARD)
    said = unreached(progress, REWARD.correct_at)
    assert said.startswith(
        f"no response has counted as correct so far: the verdict's highest value is {highest}, and" if highest else ""
    )
    assert bool(said) == bool(highest)


def test_each_domain_is_looked_at() -> None:
    progress = Progress()
    progress.note_responses([group("math", 1.0), group("essays", 0.2, 0.4), group("code", 0.0)], REWARD)
    said = unreached(progress, REWARD.correct_at)
    assert said.startswith(
        "no response in the domain essays has counted as correct so far: the verdict's highest value is 0.4"
    )
    assert "accuracy says nothing there" in said


@pytest.mark.parametrize(("truncated", "says"), [("wrong", "count as wrong"), ("masked", "are not learned from")])
def test_responses_that_are_mostly_cut_are_said(truncated: str, says: str) -> None:
    content = {
        "steps": 1,
        "data": {"source": "a:b"},
        "reward": {"terms": [{"name": "mine", "function": "a:b"}], "truncated": truncated},
        "rollout": {"max_new_tokens": 7},
    }
    recipe, progress = RLRecipe.model_validate(content), Progress()
    whole = group("math", 0.0, 1.0)
    cut = replace(whole, responses=tuple(replace(one, finish="length") for one in whole.responses))
    progress.note_responses([whole, cut], recipe.reward)
    assert doubts(progress, recipe) == []
    progress.note_responses([cut], recipe.reward)
    (said,) = doubts(progress, recipe)
    assert said.startswith(f"67% of the responses so far were cut at rollout.max_new_tokens 7, and {says}")
