"""The rollout actors' supervisor: it starts them, hands them weights, and replaces those that die or hang."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from agapo.cluster import fetch
from agapo.errors import TransferFailed, UserError
from agapo.model.transports import MeetingPlace
from agapo.placement import Placement, anywhere
from agapo.rollouts.actor import EngineSettings, RolloutActor
from agapo.rollouts.dispatch import Dispatch
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.schema import Group


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
        self._options = placement.actor if placement else lambda _: anywhere(gpus_per_actor)
        self.chunk_timeout_s = chunk_timeout_s
        self.max_restarts = max_restarts
        self.should_stop = should_stop
        self.restarts = 0
        self._weights: tuple[Any, int] | None = None
        self._again: Callable[[], Any] | None = None
        self._actors = [self._start(number) for number in range(actors)]

    @property
    def version(self) -> int:
        """The weights that the next chunk is sampled with."""
        return self._weights[1] if self._weights else 0

    @property
    def actors(self) -> list[Any]:
        """The actors' handles, for tests that end one."""
        return list(self._actors)

    def wait_ready(self) -> None:
        """Return once every actor has loaded its model."""
        fetch([actor.ready.remote() for actor in self._actors])

    def set_weights(self, weights: Any, version: int, again: Callable[[], Any] | None = None) -> None:
        """Hand `Weights`, or a reference to them, to all actors; calls made later see the new weights.

        `again`: how an actor that comes later gets them, where it could not get those.
        """
        reference = weights if isinstance(weights, ray.ObjectRef) else ray.put(weights)
        self._weights, self._again = (reference, version), again
        for number, taken in enumerate([self._hand_over(actor) for actor in self._actors]):
            self._well(number, taken)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Have the actors leave their GPUs' memory to others meanwhile; nothing may be sampled."""
        for number, slept in enumerate([actor.sleep.remote() for actor in self._actors]):
            while not self._well(number, slept):
                slept = self._actors[number].sleep.remote()
        yield
        for number, woken in enumerate([actor.wake.remote() for actor in self._actors]):
            self._well(number, woken)

    @property
    def members(self) -> int:
        """Processes with an engine's weights: of the actors, or with tensor parallelism several an actor."""
        return len(self._actors) * self._members_an_actor

    def meet(self, meeting: MeetingPlace) -> bool:
        """Let all of them meet the learner for broadcasts; return whether they came."""
        each = self._members_an_actor
        try:
            fetch([actor.meet.remote(meeting, 1 + number * each) for number, actor in enumerate(self._actors)])
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
        return Dispatch(self, requests, params, chunk_prompts).run()

    def dispatch_ahead(self, params: SamplingParams, *, chunk_prompts: int) -> Dispatch:
        """Return a call without an end, for `agapo.rollouts.ahead`."""
        return Dispatch(self, [], params, chunk_prompts, ahead=True)

    def replace(self, number: int) -> None:
        """Put a new actor with the newest weights in the place of a dead one."""
        self._count_restart()
        actor = self._start(number)
        self._actors[number] = actor
        if self._weights:
            if self._again:
                self._weights, self._again = (self._again(), self.version), None
            self._well(number, self._hand_over(actor))

    def _well(self, number: int, told: Any) -> bool:
        """Wait till an actor has done what it was told; where it dies meanwhile, or hangs, replace it, and say no."""
        try:
            fetch(told, timeout_s=self.chunk_timeout_s)
            return True
        except RayActorError:
            self.replace(number)
        except (GetTimeoutError, TransferFailed):
            ray.kill(self._actors[number])
            self.replace(number)
        return False

    def _count_restart(self) -> None:
        self.restarts += 1
        if self.restarts > self.max_restarts:
            raise UserError(
                f"rollout.max_restarts: {self.restarts} rollout actors died or hung; often memory: lower "
                "rollout.chunk_prompts or rollout.max_new_tokens (their logs: /tmp/ray/session_latest/logs)"
            )

    def _start(self, number: int) -> Any:
        return ray.remote(RolloutActor).options(**self._options(number)).remote(self.settings)

    def _hand_over(self, actor: Any) -> Any:
        assert self._weights
        return actor.update_weights.remote(*self._weights)

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)
