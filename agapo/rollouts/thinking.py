"""A bound on thinking: after so many tokens `</think>` is put behind them, and the model goes on to its answer.

It needs nothing of an engine but what the protocol has: the response is cut at the budget, and goes on behind a prefix
that ends in the closing tag. The tag was not sampled, so it is a segment that is not trained.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agapo.chat import END_THINK
from agapo.model.transports import MeetingPlace
from agapo.model.weights import Weights
from agapo.rollouts.engine import Engine, Piece, Request, ResponseId, SamplingParams, resumed
from agapo.schema import Segment

CLOSING = f"\n{END_THINK}\n\n"
"""As templates write the end of a thinking block."""


@dataclass
class _Added:
    """Requests that were added together, and go on together."""

    params: SamplingParams
    thinking: dict[ResponseId, Request]
    """Those that are not at their budget yet, as they were asked for."""
    cut: dict[ResponseId, tuple[Request, Piece]]
    """Those that are, and wait to go on."""


class ThinkingBudget:
    """An engine with another one inside, whose requests have a `thinking_budget`.

    Where the inner engine is repeatable, the responses of an `add` go on when all of them have come to their budget or
    their end, so that what they are decoded with does not depend on how fast it went.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.repeatable = engine.repeatable
        self.tokenizer = engine.tokenizer
        self._closing = np.array(self.tokenizer.encode(CLOSING, add_special_tokens=False), np.int32)
        self._added: list[_Added] = []

    @property
    def version(self) -> int:
        """Optimizer updates behind the weights."""
        return self.engine.version

    @property
    def busy(self) -> bool:
        """Whether responses are in flight."""
        return self.engine.busy or any(added.cut for added in self._added)

    def add(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Take requests; those with a budget are sampled up to it first."""
        budgets = {request.id: budget for request in requests if (budget := self._budget_left(request)) is not None}
        self.engine.add(
            [replace(item, max_new_tokens=budgets.get(item.id, item.max_new_tokens)) for item in requests], params
        )
        if budgets:
            thinking = {request.id: request for request in requests if request.id in budgets}
            self._added.append(_Added(params, thinking, {}))

    def _budget_left(self, request: Request) -> int | None:
        """Return how many tokens a response may still think; None where that does not matter."""
        if request.thinking_budget is None or END_THINK in self.tokenizer.decode(request.prefix_ids):
            return None
        left = max(1, request.thinking_budget - len(request.prefix_ids))
        # Behind the tag must be room for an answer.
        return left if left + len(self._closing) < request.max_new_tokens else None

    def step(self) -> list[Piece]:
        """Let the engine make a step; return the responses that finished, and go on with those at their budget."""
        pieces = self.engine.step() if self.engine.busy else []
        finished = [piece for piece in pieces if not self._is_cut(piece)]
        for added in self._added:
            if added.cut and not (self.repeatable and added.thinking):
                self._go_on(added)
        self._added = [added for added in self._added if added.thinking or added.cut]
        return finished

    def _is_cut(self, piece: Piece) -> bool:
        """Note that a response has come out of its first part; return whether it is to go on."""
        added = next((added for added in self._added if piece.id in added.thinking), None)
        if added is None:
            return False
        request = added.thinking.pop(piece.id)
        if piece.finish == "length":
            added.cut[piece.id] = (request, piece)
        return piece.finish == "length"

    def _go_on(self, added: _Added) -> None:
        going_on = [resumed(request, self._closed(piece)) for request, piece in added.cut.values()]
        added.cut = {}
        self.engine.add(sorted(going_on, key=lambda request: (request.id.number, request.id.index)), added.params)

    def _closed(self, piece: Piece) -> Piece:
        """Return a piece with the closing tag behind it, where it thinks still."""
        if END_THINK in piece.text:
            return piece
        closing = Segment(self._closing, np.zeros(len(self._closing)), trained=False)
        return replace(piece, segments=(*piece.segments, closing))

    def abort(self, ids: Collection[ResponseId]) -> list[Piece]:
        """Take these out of flight; return what there is of them, without a tag behind it."""
        gone = set(ids)
        waiting: list[Piece] = []
        for added in self._added:
            waiting += [replace(piece, finish="paused") for name, (_, piece) in added.cut.items() if name in gone]
            added.cut = {name: item for name, item in added.cut.items() if name not in gone}
            added.thinking = {name: item for name, item in added.thinking.items() if name not in gone}
        return waiting + self.engine.abort(gone)

    def meet(self, meeting: MeetingPlace, member: int) -> None:
        """See the engine's."""
        self.engine.meet(meeting, member)

    def update_weights(self, weights: Weights, version: int) -> None:
        """See the engine's."""
        self.engine.update_weights(weights, version)

    def sleep(self) -> None:
        """See the engine's."""
        self.engine.sleep()

    def wake(self) -> None:
        """See the engine's."""
        self.engine.wake()
