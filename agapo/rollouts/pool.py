"""The rollout actors' supervisor: it gives fixed chunks of prompts to whichever actor is free.

What a chunk's samples are depends on the weights, the chunk and its seeds, never on the actor or the moment. So a
dead or hung actor costs nothing but time: it is replaced, its chunk is done again, and the result is the same.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError

from agapo.cluster import fetch
from agapo.errors import Interrupted, UserError
from agapo.model.weights import WeightLayout
from agapo.rollouts.actor import EngineSettings, RolloutActor
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.schema import Group

POLL_S = 0.5
"""How often a wait looks up, to notice Ctrl-C and hung actors."""
MOST_TRIES = 3
"""A chunk that ends so many actors is itself the reason."""


@dataclass
class _Work:
    """A chunk in the hands of an actor."""

    chunk: int
    actor: int
    started: float = field(default_factory=time.monotonic)


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
        self._weights: tuple[Any, WeightLayout, int] | None = None
        self._actors = [self._start() for _ in range(actors)]

    @property
    def version(self) -> int:
        """The weights that the next chunk is sampled with."""
        return self._weights[2] if self._weights else 0

    @property
    def actors(self) -> list[Any]:
        """The actors' handles, for tests that end one."""
        return list(self._actors)

    def wait_ready(self) -> None:
        """Return once every actor has loaded its model."""
        fetch([actor.ready.remote() for actor in self._actors])

    def set_weights(self, buffer: Any, layout: WeightLayout, version: int) -> None:
        """Hand a flat buffer (an array, or a reference to one) to all actors; calls made later see the new weights."""
        reference = buffer if isinstance(buffer, ray.ObjectRef) else ray.put(buffer)
        self._weights = (reference, layout, version)
        for number, taken in enumerate([self._hand_over(actor) for actor in self._actors]):
            try:
                fetch(taken)
            except RayActorError:
                self._replace(number)

    def generate(
        self, requests: Sequence[PromptRequest], params: SamplingParams, *, chunk_prompts: int
    ) -> Iterator[tuple[int, list[Group]]]:
        """Sample all requests in chunks; yield (chunk number, its groups) as chunks finish, in any order."""
        chunks = [requests[start : start + chunk_prompts] for start in range(0, len(requests), chunk_prompts)]
        waiting = deque(range(len(chunks)))
        tries = [0] * len(chunks)
        running: dict[Any, _Work] = {}
        while waiting or running:
            self._dispatch(chunks, waiting, running, params)
            done, _ = ray.wait(list(running), timeout=POLL_S)
            for reference in done:
                work = running.pop(reference)
                groups = self._collect(reference, work)
                if groups is not None:
                    yield work.chunk, groups
                else:
                    _count_try(tries, work.chunk)
                    waiting.appendleft(work.chunk)
            self._look_up(waiting, running)

    def _dispatch(
        self,
        chunks: list[Sequence[PromptRequest]],
        waiting: deque[int],
        running: dict[Any, _Work],
        params: SamplingParams,
    ) -> None:
        busy = {work.actor for work in running.values()}
        for number, actor in enumerate(self._actors):
            if waiting and number not in busy:
                chunk = waiting.popleft()
                running[actor.generate.remote(chunks[chunk], params, self.version)] = _Work(chunk, number)

    def _collect(self, reference: Any, work: _Work) -> list[Group] | None:
        """Return a finished chunk's groups, or None when its actor died, which is then replaced."""
        try:
            return fetch(reference)
        except RayActorError:
            self._replace(work.actor)
            return None

    def _look_up(self, waiting: deque[int], running: dict[Any, _Work]) -> None:
        if self.should_stop():
            raise Interrupted
        now = time.monotonic()
        for reference, work in list(running.items()):
            if now - work.started > self.chunk_timeout_s:
                del running[reference]
                ray.kill(self._actors[work.actor])
                self._replace(work.actor)
                waiting.appendleft(work.chunk)

    def _replace(self, number: int) -> None:
        """Put a new actor with the newest weights in the place of a dead one."""
        self._count_restart()
        actor = self._start()
        self._actors[number] = actor
        if self._weights:
            try:
                fetch(self._hand_over(actor))
            except RayActorError:
                self._replace(number)

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
        return actor.load_weights.remote(*self._weights)

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)


def _count_try(tries: list[int], chunk: int) -> None:
    tries[chunk] += 1
    if tries[chunk] >= MOST_TRIES:
        raise UserError(
            f"rollout.chunk_prompts: the same chunk of prompts ended {MOST_TRIES} rollout actors; "
            "lower rollout.chunk_prompts or rollout.max_new_tokens"
        )
