"""The reference's log-probabilities, asked for while others of the step are sampled."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError

from agapo.learner.rl.batching import Example, examples_of
from agapo.learner.rl.reference import Reference, _without_advantages
from agapo.recipe import RLRecipe
from agapo.schema import Group, Response
from agapo.stages.rl.progress import Progress
from tests.builders import group
from tests.unit.test_oversample import collector_of, recipe_of


class Ranks:
    """Say of each example how long it is, in the order that they were asked in."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.answered: list[int] = []

    def begin_reference(self, examples: Sequence[Example]) -> list[np.ndarray]:
        self.asked.append(len(examples))
        return [np.full(len(item.token_ids), float(item.prompt_ids[0])) for item in examples]

    def end_reference(self, begun: list[np.ndarray]) -> list[np.ndarray]:
        self.answered.append(len(begun))
        return begun


def named(number: int, *rewards: float | None) -> Group:
    made = group(*rewards, name=str(number))
    return Group(made.prompt, (number, 4), made.responses)


def wanted(groups: Sequence[Group]) -> tuple[list[Response], list[Example]]:
    """What the step learns from: responses that have a reward."""
    responses = [response for group in groups for response in group.responses]
    pairs = zip(responses, examples_of(_without_advantages(groups)), strict=True)
    chosen = [(response, example) for response, example in pairs if response.reward is not None]
    return [response for response, _ in chosen], [example for _, example in chosen]


@pytest.mark.parametrize(("early", "asked"), [(True, [3, 4, 3]), (False, [10])])
def test_each_response_is_asked_once_and_has_its_own(early: bool, asked: list[int]) -> None:
    ranks = Ranks()
    # A response has two tokens of prompt and one of its own.
    reference = Reference(ranks, early=early, tokens=9)
    groups = [named(1, 0.0, 1.0, None), named(2, 1.0), named(3, 0.0, 1.0), named(4, 1.0, 0.0), named(5, 0.0, 1.0)]
    for item in groups:
        reference.add([item])
    strange = named(6, 1.0)  # nobody told of it
    found = reference.of(*wanted([*groups, strange]))
    assert ranks.asked == ranks.answered == asked
    assert [float(item[0]) for item in found] == [1, 1, 2, 3, 3, 4, 4, 5, 5, 6]
    # The next step begins with nothing.
    assert [float(item[0]) for item in reference.of(*wanted([named(7, 1.0)]))] == [7]
    assert ranks.asked == [*asked, 1]


def test_ranks_without_memory_are_asked_nothing() -> None:
    recipe = recipe_of().model_dump(by_alias=True)
    recipe["learner"]["early_reference"] = recipe["rollout"]["sleep_while_learning"] = True
    with pytest.raises(ValidationError, match=r"early_reference: true with rollout\.sleep_while_learning"):
        type(recipe_of()).model_validate(recipe)


@pytest.mark.parametrize(("shuffled", "told"), [(False, 2), (True, 0)])
def test_of_shuffled_verdicts_nothing_is_asked_early(shuffled: bool, told: int) -> None:
    """The step learns from other responses then, of other groups, and would ask for all of them again."""
    content = recipe_of().model_dump(by_alias=True)
    content["algorithm"]["shuffle_rewards"] = shuffled
    collector = collector_of(RLRecipe.model_validate(content), None, None, Progress())
    heard: list[Group] = []
    collector.reference = cast(Any, SimpleNamespace(add=heard.extend))
    collector._tell_reference([named(1, 0.0, 1.0), named(2, 0.0, 0.0)])
    assert len(heard) == told
