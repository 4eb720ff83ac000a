"""The rollout actors' supervisor: it starts them, hands them weights, and replaces those that die or hang."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from agapo.cluster import fetch
from agapo.errors import UserError
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
        self._actors = [self._start() for _ in range(actors)]

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

    def set_weights(self, weights: Any, version: int) -> None:
        """Hand `PackedWeights`, or a reference to them, to all actors; calls made later see the new weights."""
        reference = weights if isinstance(weights, ray.ObjectRef) else ray.put(weights)
        self._weights = (reference, version)
        for number, taken in enumerate([self._hand_over(actor) for actor in self._actors]):
            self._wait_taken(number, taken)

    def generate(
        self, requests: Sequence[PromptRequest], params: SamplingParams, *, chunk_prompts: int
    ) -> Iterator[tuple[int, Group]]:
        """Sample all requests; yield (the request's place, its group) as groups become whole, in any order.

        `chunk_prompts` of them are dealt out at once. One call at a time.
        """
        return Dispatch(self, requests, params, chunk_prompts).run()

    def replace(self, number: int) -> None:
        """Put a new actor with the newest weights in the place of a dead one."""
        self._count_restart()
        actor = self._start()
        self._actors[number] = actor
        if self._weights:
            self._wait_taken(number, self._hand_over(actor))

    def _wait_taken(self, number: int, taken: Any) -> None:
        """Wait till an actor has the weights; replace it where it dies meanwhile, or hangs."""
        try:
            fetch(taken, timeout_s=self.chunk_timeout_s)
        except RayActorError:
            self.replace(number)
        except GetTimeoutError:
            ray.kill(self._actors[number])
            self.replace(number)

    def _count_restart(self) -> None:
        self.restarts += 1
        if self.restarts > self.max_restarts:
            raise UserError(
                f"rollout.max_restarts: {self.restarts} rollout actors died or hung; often memory: lower "
                "rollout.chunk_prompts or rollout.max_new_tokens (their logs: /tmp/ray/session_latest/logs)"
            )

    def _start(self) -> Any:
        options = {"num_cpus": 0.1, "num_gpus": self.gpus_per_actor, "scheduling_strategy": "SPREAD"}
        return ray.remote(RolloutActor).options(**options).remote(self.settings)

    def _hand_over(self, actor: Any) -> Any:
        assert self._weights
        return actor.update_weights.remote(*self._weights)

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)
