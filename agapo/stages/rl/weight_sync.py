"""How new weights get from the learner to the rollout actors: `rollout.weight_transport`.

    host        first rank ──► the host's memory, Ray's object store ──► actors, wherever they are
    ipc         rank i ──► the actor on its GPU
    broadcast   first rank ──► all actors at once

Whichever it is, an actor proves that it has the weights (`agapo.model.weights.require_loaded`), and one that comes
later, in the place of a dead one, gets them too.
"""

from collections.abc import Callable
from typing import Any, Literal

from agapo.learner.rl.group import LearnerGroup
from agapo.rollouts.pool import RolloutPool


class WeightSync:
    """Brings the learner's weights to the pool's actors."""

    def __init__(
        self,
        transport: Literal["host", "ipc", "broadcast"],
        learner: LearnerGroup,
        pool: RolloutPool,
        announce: Callable[[str], None],
    ):
        self.transport, self.learner, self.pool, self.announce = transport, learner, pool, announce
        self._met: list[Any] = []
        """The actors that the learner has met for broadcasts."""

    def __call__(self, version: int) -> None:
        """Bring the weights after `version` optimizer updates."""
        if self.transport == "ipc":
            # The ranks' buffers are written over.
            self.pool.finish_hand_overs()
            self.pool.set_weights(self.learner.shared_weights(), version)
        elif self.transport == "host" or not self._broadcast(version):
            self.pool.set_weights(self.learner.weights(), version)

    def _broadcast(self, version: int) -> bool:
        """Return whether the actors could be met; one that the weights did not reach has been replaced then."""
        if self._met != self.pool.actors and not self._meet():
            self.announce(f"weights {version} go through the host: a rollout actor did not come to the broadcast")
            return False
        weights, sending = self.learner.start_broadcast()
        self.pool.set_weights(weights, version, again=self.learner.weights)
        if not self.learner.all_well(sending):
            self._met = []
        return True

    def _meet(self) -> bool:
        self.pool.look()
        if not self.pool.all_ready:
            # Who starts, or finds no room yet, would be waited for by all.
            return False
        actors = self.pool.actors
        meeting, waiting = self.learner.start_meeting(self.pool.members)
        came, well = self.pool.meet(meeting), self.learner.all_well([waiting])
        self._met = actors if came and well else []
        return came and well
