"""The rollout actors' supervisor: it starts them, hands them weights, and replaces those that die or hang.

    start ──► placed on a host ──► model loaded ──► newest weights taken: ready ──► gets work

Nobody waits for an actor that starts while others work. One that finds no room, because its host is gone and the GPUs
with it, starts when the host is back. Where actors had room elsewhere meanwhile, some move back.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agapo.cluster import cluster_nodes, fetch, room_on_nodes
from agapo.errors import ProcessDied, TransferFailed, UserError
from agapo.model.transports import MeetingPlace
from agapo.placement import CPUS, Placement, anywhere
from agapo.rollouts.actor import EngineSettings, RolloutActor
from agapo.rollouts.dispatch import POLL_S, Dispatch
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.spreading import moves
from agapo.schema import Group


@dataclass(eq=False)
class _Member:
    """An actor, as far as it has come."""

    actor: Any
    to_come: list[Any]
    """References to what it has still to answer: where it is, that it has its model, that it has weights."""
    version: int = 0
    """The weights that it was last told to take; 0 are those of the model as it is loaded."""
    since: float = field(default_factory=time.monotonic)
    """When it was started; once it has a host, when it was last told to load something."""
    node: str | None = None
    """Its host, once it has one."""


class RolloutPool:
    """Rollout actors, and the weights that they sample with."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        actors: int,
        gpus_per_actor: float = 0.0,
        placement: Placement | None = None,
        chunk_timeout_s: float = 1800.0,
        max_restarts: int = 10,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        """Start the actors; they load the model at `settings.model_path` (weights version 0) meanwhile.

        `placement` says which GPUs they get; without it, Ray chooses. `should_stop` is asked now and then while
        waiting; when it says yes, Interrupted is raised.
        """
        self.settings = settings
        self.gpus_per_actor = gpus_per_actor
        self._options = placement.actor if placement else lambda _: anywhere(gpus_per_actor)
        self._may_move = not (placement and gpus_per_actor)
        """Who has a place in a placement group stays there."""
        self.chunk_timeout_s = chunk_timeout_s
        self.max_restarts = max_restarts
        self.should_stop = should_stop
        self.on_slice: Callable[[int, float, float], None] = lambda *_: None
        self.restarts = 0
        self._weights: tuple[Any, int] | None = None
        self._again: Callable[[], Any] | None = None
        self._members = [self._begin(number) for number in range(actors)]
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
        return self._has_all(self._members[number])

    @property
    def all_ready(self) -> bool:
        """Whether every actor is ready, also who is on the way to another host."""
        return all(map(self._has_all, self._everyone()))

    def wait_ready(self) -> None:
        """Return once every actor is ready. Raises UserError where one finds no room for too long."""
        while starting := [member for member in self._members if not self._has_all(member)]:
            self._require_room(starting)
            _wait_for(starting, POLL_S)
            self.look()

    def wait_for_an_actor(self, timeout_s: float) -> None:
        """Wait till one more has come further, `timeout_s` at most."""
        _wait_for([member for member in self._members if not self._has_all(member)], timeout_s, how_many=1)
        self.look()

    def set_weights(self, weights: Any, version: int, again: Callable[[], Any] | None = None) -> None:
        """Hand `Weights`, or a reference to them, to all actors; calls made later see the new weights.

        Returns when those that were ready have them. `again`: how an actor that comes later gets them, where it could
        not get those.
        """
        takers = [member for member in self._members if self._has_all(member)]
        reference = weights if isinstance(weights, ray.ObjectRef) else ray.put(weights)
        self._weights, self._again = (reference, version), again
        for member in takers:
            self._hand_over(member, self._weights)
        while waiting := [one for one in takers if one in self._members and not self._has_all(one)]:
            _wait_for(waiting, POLL_S)
            self.look()

    def finish_hand_overs(self) -> None:
        """Return when nobody is taking weights: some are read where they will be written over."""
        while taking := [member for member in self._everyone() if member.to_come and member.version]:
            _wait_for(taking, POLL_S)
            self.look()

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Have the actors leave their GPUs' memory to others meanwhile; nothing may be sampled.

        Those that are starting are waited for: they would take the memory meanwhile.
        """
        sleeping: list[_Member] = []
        while awake := [member for member in self._members if member not in sleeping]:
            self.wait_ready()
            sleeping += self._tell(awake, "sleep")
        yield
        self._tell(sleeping, "wake")

    @property
    def members(self) -> int:
        """Processes with an engine's weights: of the actors, or with tensor parallelism several an actor."""
        return len(self._members) * self._members_an_actor

    def meet(self, meeting: MeetingPlace) -> bool:
        """Let all of them, who are to be ready, meet the learner for broadcasts; return whether they came."""
        each = self._members_an_actor
        try:
            fetch([actor.meet.remote(meeting, 1 + number * each) for number, actor in enumerate(self.actors)])
        except (RayActorError, TransferFailed):
            return False
        return True

    @property
    def _members_an_actor(self) -> int:
        return self.settings.vllm.tensor_parallel if self.settings.engine == "vllm" else 1

    def generate(
        self, requests: Sequence[PromptRequest], params: SamplingParams, *, chunk_prompts: int
    ) -> Iterator[tuple[int, Group]]:
        """Sample all requests; yield (the request's place, its group) as groups become whole, in any order.

        `chunk_prompts` of them are dealt out at once. One call at a time.
        """
        self._spread_out()
        return Dispatch(self, requests, params, chunk_prompts).run()

    def dispatch_ahead(self, params: SamplingParams, *, chunk_prompts: int) -> Dispatch:
        """Return a call without an end, for `agapo.rollouts.ahead`."""
        return Dispatch(self, [], params, chunk_prompts, ahead=True)

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
        self._members[number] = self._moving.pop(number, None) or self._begin(number)

    def close(self) -> None:
        """End the actors."""
        for member in self._everyone():
            ray.kill(member.actor)

    def _everyone(self) -> list[_Member]:
        return [*self._members, *self._moving.values()]

    def _begin(self, number: int, node: str | None = None) -> _Member:
        actor = self._start(number, node)
        return _Member(actor, [actor.place.remote(), actor.load.remote()])

    def _start(self, number: int, node: str | None) -> Any:
        """Start an actor, on a certain host where it has room."""
        options = dict(self._options(number))
        if node:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
        return ray.remote(RolloutActor).options(**options).remote(self.settings)

    def _hand_over(self, member: _Member, weights: tuple[Any, int]) -> None:
        member.to_come.append(member.actor.update_weights.remote(*weights))
        member.version, member.since = weights[1], time.monotonic()

    def _newest(self) -> tuple[Any, int]:
        """Return the weights as one takes them who was not there when they were set."""
        assert self._weights
        if self._again:
            self._weights, self._again = (self._again(), self.version), None
        return self._weights

    def _has_all(self, member: _Member) -> bool:
        return not member.to_come and member.version == self.version

    def _gets_on(self, member: _Member) -> bool:
        """Note how far an actor has come, and tell it what is next; return False where it is dead, or hangs."""
        try:
            while not self._has_all(member):
                if not member.to_come:
                    self._hand_over(member, self._newest())
                if not ray.wait(member.to_come[:1], timeout=0)[0]:
                    # Without a host it can do nothing about it.
                    return member.node is None or time.monotonic() - member.since <= self.chunk_timeout_s
                found = fetch(member.to_come[0])
                del member.to_come[0]
                if member.node is None:
                    member.node, member.since = found, time.monotonic()
        except (RayActorError, TransferFailed):
            return False
        except ObjectLostError:
            raise ProcessDied("the host that had the newest weights is gone, and the learner with it") from None
        return True

    def _tell(self, members: Sequence[_Member], what: str) -> list[_Member]:
        """Have actors do something; return who did. Who dies over it, or hangs, is replaced."""
        told = [(member, getattr(member.actor, what).remote()) for member in members]
        return [member for member, done in told if self._well(member, done)]

    def _well(self, member: _Member, told: Any) -> bool:
        try:
            fetch(told, timeout_s=self.chunk_timeout_s)
        except (RayActorError, GetTimeoutError):
            if member in self._members:
                self.replace(self._members.index(member))
            return False
        return True

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
        for number in [number for number, newcomer in self._moving.items() if self._has_all(newcomer)]:
            ray.kill(self._members[number].actor)
            self._members[number] = self._moving.pop(number)
        hosts = [member.node for member in self._members if member.node]
        settled = not self._moving and len(hosts) == len(self._members)
        if self._may_move and settled and len(cluster_nodes()) > 1:
            room = room_on_nodes(cpus=CPUS, gpus=self.gpus_per_actor)
            self._moving = {number: self._begin(number, node) for number, node in moves(hosts, room)}


def _wait_for(members: Sequence[_Member], timeout_s: float, how_many: int | None = None) -> None:
    """Wait till so many, by default all, have answered everything that they were told so far."""
    last = [member.to_come[-1] for member in members if member.to_come]
    if last:
        ray.wait(last, num_returns=how_many or len(last), timeout=timeout_s)
