"""The reference policy's log-probabilities of a step's responses, also while others of the step are sampled.

    judged groups ──► a micro-batch a rank of them ──► ranks, which have nothing else to do yet ──► the step's batch

Which responses share a micro-batch follows from the order of the groups alone, and not from who came first: a run
repeats itself.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from agapo.learner.rl.batching import Example, examples_of
from agapo.schema import Batch, Group, Response


class Ranks(Protocol):
    """The learner's ranks, as `agapo.learner.rl.group.LearnerGroup`."""

    def begin_reference(self, examples: Sequence[Example]) -> Any:
        """Have the ranks compute log π_ref of the examples when they come to it."""
        ...

    def end_reference(self, begun: Any) -> list[np.ndarray]:
        """Return log π_ref [T] of each of these examples."""
        ...


class Reference:
    """log π_ref of the responses of the step at hand."""

    def __init__(self, ranks: Ranks, *, early: bool, tokens: int):
        """`early`: begin while others are sampled, with so many `tokens` at a time at least."""
        self._ranks, self._early, self._tokens = ranks, early, tokens
        self._held: list[tuple[Response, Example]] = []
        self._begun: list[tuple[list[Response], Any]] = []

    def add(self, groups: Sequence[Group]) -> None:
        """Take groups that the step will want, in order; returns at once."""
        if not self._early:
            return
        responses = [response for group in groups for response in group.responses]
        examples = examples_of(_without_advantages(groups))
        self._held += [
            (response, example)
            for response, example in zip(responses, examples, strict=True)
            if response.reward is not None
        ]
        if sum(example.length for _, example in self._held) >= self._tokens:
            self._begin(self._held)
            self._held = []

    def of(self, responses: Sequence[Response], examples: Sequence[Example]) -> list[np.ndarray]:
        """Return log π_ref [T] of each response, and forget what was begun; `examples`: the responses as such."""
        under_way = {id(response) for begun, _ in self._begun for response in begun}
        pairs = zip(responses, examples, strict=True)
        if late := [(response, example) for response, example in pairs if id(response) not in under_way]:
            self._begin(late)
        begun, self._begun, self._held = self._begun, [], []
        found: dict[int, np.ndarray] = {}
        for those, work in begun:
            found |= zip(map(id, those), self._ranks.end_reference(work), strict=True)
        return [found[id(response)] for response in responses]

    def _begin(self, items: Sequence[tuple[Response, Example]]) -> None:
        work = self._ranks.begin_reference([example for _, example in items])
        self._begun.append(([response for response, _ in items], work))


def _without_advantages(groups: Sequence[Group]) -> Batch:
    zeros, ones = (tuple((value,) * len(group.responses) for group in groups) for value in (0.0, 1.0))
    return Batch(groups=tuple(groups), advantages=zeros, kl_weights=ones, nominal_responses=1)
