"""The rollout actors' supervisor: it starts them, hands them weights, and replaces those that die or hang.

    start ──► placed on a host ──► model and weights loaded: ready ──► gets work

Nobody waits for an actor that starts while others work. One that finds no room, because its host is gone and the GPUs
with it, starts when the host is back. Where actors had room elsewhere meanwhile, some move back.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agapo.cluster import cluster_nodes, fetch, room_on_nodes
from agapo.errors import ProcessDied, UserError
from agapo.rollouts.actor import EngineSettings, RolloutActor
from agapo.rollouts.dispatch import POLL_S, Dispatch
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.spreading import moves
from agapo.schema import Group

CPUS_PER_ACTOR = 0.1
"""What Ray counts; threads are the recipe's."""


@dataclass(eq=False)
class _Member:
    """An actor, as far as it has come."""

    actor: Any
    to_come: list[Any]
    """References to what it has still to answer before it is ready: where it is, that it has its model, its weights."""
    since: float = field(default_factory=time.monotonic)
    """When it was started; once it has a host, when it was last told to load something."""
    node: str | None = None
    """Its host, once it has one."""

    @property
    def is_ready(self) -> bool:
        return not self.to_come


class RolloutPool:
    """Rollout actors, and the weights that they sample with."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        actors: int,
        gpus_per_actor: float = 0.0,
        chunk_timeout_s: float = 1800.0,
        max_restarts: int = 10,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        """Start the actors; they load the model at `settings.model_path` (weights version 0) meanwhile.

        `should_stop` is asked now and then while waiting; when it says yes, Interrupted is raised.
        """
        self.settings = settings
        self.gpus_per_actor = gpus_per_actor
        self.chunk_timeout_s = chunk_timeout_s
        self.max_restarts = max_restarts
        self.should_stop = should_stop
        self.restarts = 0
        self._weights: tuple[Any, int] | None = None
        self._members = [self._begin() for _ in range(actors)]
        self._moving: dict[int, _Member] = {}
        """Who starts on another host, and takes the place of the one with that number when it is ready."""

    @property
    def version(self) -> int:
        """The weights that the next chunk is sampled with."""
        return self._weights[1] if self._weights else 0

    @property
    def actors(self) -> list[Any]:
        """The actors' handles."""
        return [member.actor for member in self._members]

    def actor(self, number: int) -> Any:
        """One actor's handle; another one once it has been replaced, or has moved."""
        return self._members[number].actor

    @property
    def nodes(self) -> list[str | None]:
        """The id of each actor's host; None for one that has none."""
        return [member.node for member in self._members]

    def is_ready(self, number: int) -> bool:
        """Whether an actor has its model and the newest weights."""
        return self._members[number].is_ready

    def wait_ready(self) -> None:
        """Return once every actor is ready. Raises UserError where one finds no room for too long."""
        while starting := [member for member in self._members if not member.is_ready]:
            self._require_room(starting)
            _wait_for(starting, POLL_S)
            self.look()

    def wait_for_an_actor(self, timeout_s: float) -> None:
        """Wait till one more is ready, `timeout_s` at most."""
        _wait_for([member for member in self._members if not member.is_ready], timeout_s, how_many=1)
        self.look()

    def set_weights(self, weights: Any, version: int) -> None:
        """Hand `PackedWeights`, or a reference to them, to all actors; calls made later see the new weights.

        Returns when those that were ready have them.
        """
        reference = weights if isinstance(weights, ray.ObjectRef) else ray.put(weights)
        self._weights = (reference, version)
        takers = [member for member in self._members if member.is_ready]
        for member in [*self._members, *self._moving.values()]:
            self._hand_over(member)
        while waiting := [one for one in takers if not one.is_ready and one in self._members]:
            _wait_for(waiting, POLL_S)
            self.look()

    def generate(
        self, requests: Sequence[PromptRequest], params: SamplingParams, *, chunk_prompts: int
    ) -> Iterator[tuple[int, Group]]:
        """Sample all requests; yield (the request's place, its group) as groups become whole, in any order.

        `chunk_prompts` of them are dealt out at once. One call at a time.
        """
        self._spread_out()
        return Dispatch(self, requests, params, chunk_prompts).run()

    def look(self) -> None:
        """Note who has become ready; replace who died or hung on the way.

        Raises UserError where too many do, and where no host has had room for any actor for `chunk_timeout_s`, and
        ProcessDied where the weights are lost.
        """
        for number, member in enumerate(self._members):
            if not self._gets_on(member):
                self.replace(number)
        for number, member in list(self._moving.items()):
            if not self._gets_on(member):
                ray.kill(self._moving.pop(number).actor)  # the one that was to be relieved stays
        self._require_room(self._members)

    def replace(self, number: int) -> None:
        """Put a new actor, which will have the newest weights, in the place of one that is dead or hung."""
        self.restarts += 1
        if self.restarts > self.max_restarts:
            raise UserError(
                f"rollout.max_restarts: {self.restarts} rollout actors died or hung; often memory: lower "
                "rollout.chunk_prompts or rollout.max_new_tokens (their logs: /tmp/ray/session_latest/logs)"
            )
        ray.kill(self._members[number].actor)
        self._members[number] = self._moving.pop(number, None) or self._begin()

    def close(self) -> None:
        """End the actors."""
        for member in [*self._members, *self._moving.values()]:
            ray.kill(member.actor)

    def _begin(self, node: str | None = None) -> _Member:
        """Start an actor, on a certain host where it has room."""
        actor = self._start(NodeAffinitySchedulingStrategy(node, soft=True) if node else "SPREAD")
        member = _Member(actor, [actor.place.remote(), actor.load.remote()])
        self._hand_over(member)
        return member

    def _start(self, strategy: Any) -> Any:
        options = {"num_cpus": CPUS_PER_ACTOR, "num_gpus": self.gpus_per_actor, "scheduling_strategy": strategy}
        return ray.remote(RolloutActor).options(**options).remote(self.settings)

    def _hand_over(self, member: _Member) -> None:
        if self._weights:
            member.to_come.append(member.actor.update_weights.remote(*self._weights))
        if member.node:
            member.since = time.monotonic()

    def _gets_on(self, member: _Member) -> bool:
        """Note how far an actor has come; return False where it is dead, or hangs."""
        try:
            while member.to_come and ray.wait(member.to_come[:1], timeout=0)[0]:
                found = fetch(member.to_come[0])
                del member.to_come[0]
                if member.node is None:
                    member.node, member.since = found, time.monotonic()
        except RayActorError:
            return False
        except ObjectLostError:
            raise ProcessDied("the host that had the newest weights is gone, and the learner with it") from None
        # Without a host it can do nothing about it.
        return member.is_ready or member.node is None or time.monotonic() - member.since <= self.chunk_timeout_s

    def _require_room(self, members: Sequence[_Member]) -> None:
        latest = max(member.since for member in members)
        if all(member.node is None for member in members) and time.monotonic() - latest > self.chunk_timeout_s:
            raise UserError(
                f"rollout.actors: no host of the cluster has had room for a rollout actor for {self.chunk_timeout_s:g} "
                "s (rollout.chunk_timeout_s): hosts are gone, or others use them; the same command goes on from what "
                "is saved"
            )

    def _spread_out(self) -> None:
        """Between two calls: let those who have come to a better host take over, and see who else should move."""
        for number in [number for number, newcomer in self._moving.items() if newcomer.is_ready]:
            ray.kill(self._members[number].actor)
            self._members[number] = self._moving.pop(number)
        hosts = [member.node for member in self._members if member.node]
        settled = not self._moving and len(hosts) == len(self._members)
        if settled and len(cluster_nodes()) > 1:
            room = room_on_nodes(cpus=CPUS_PER_ACTOR, gpus=self.gpus_per_actor)
            self._moving = {number: self._begin(node) for number, node in moves(hosts, room)}


def _wait_for(members: Sequence[_Member], timeout_s: float, how_many: int | None = None) -> None:
    """Wait till so many, by default all, have answered everything they are to."""
    last = [member.to_come[-1] for member in members if member.to_come]
    if last:
        ray.wait(last, num_returns=how_many or len(last), timeout=timeout_s)
