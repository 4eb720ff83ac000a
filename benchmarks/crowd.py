"""Rollout actors without a model, many to a process: what the pool and its dispatch cost is measured with them.

A handle looks to `RolloutPool` as Ray's does, and each of its calls is a real call of Ray's, of a process that holds
many of them. In place of an engine an actor waits, and then has some responses finished.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import ray

from agapo.cluster import own_node
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import Piece, Request, ResponseId, SamplingParams
from agapo.rollouts.pool import RolloutPool
from agapo.schema import Segment

TOKENS = 256
"""Tokens of each response, with a log-probability each; as many characters."""
A_SLICE = 4
"""Responses that finish in a slice of work."""
A_PROCESS = 64
"""Actors that share a process."""


class Crowd:
    """A process of actors; each call's first argument says which one it is for."""

    def __init__(self, slice_s: float):
        self._slice_s = slice_s
        self._held: dict[int, list[Request]] = {}
        self._tokens = np.arange(TOKENS, dtype=np.int32)
        self._logprobs = np.full(TOKENS, -1.0, np.float32)

    async def place(self, number: int) -> str:
        return own_node()

    async def load(self, number: int) -> None:
        self._held[number] = []

    async def update_weights(self, number: int, weights: Any, version: int) -> None:
        """Take weights, which nothing here is sampled with."""

    async def work(self, number: int, requests: Sequence[Request], params: SamplingParams, version: int) -> list[Piece]:
        self._held[number] += requests
        await asyncio.sleep(self._slice_s)
        held = self._held[number]
        done, self._held[number] = held[:A_SLICE], held[A_SLICE:]
        return [self._piece(request.id) for request in done]

    async def drop(self, number: int) -> None:
        self._held[number] = []

    async def cpu_s(self) -> float:
        """Return the CPU seconds of this process."""
        times = psutil.Process().cpu_times()
        return times.user + times.system

    def _piece(self, response: ResponseId) -> Piece:
        # Every second one is right.
        text = "We add the two. " * (TOKENS // 16) + f"\\boxed{{{response.index % 2}}}"
        return Piece(response, (Segment(self._tokens, self._logprobs),), text, "stop")


class Handle:
    """One actor of a crowd, as the pool calls it."""

    def __init__(self, crowd: Any, number: int):
        self._crowd, self._number = crowd, number

    def __getattr__(self, method: str) -> "_Method":
        return _Method(getattr(self._crowd, method), self._number)


class _Method:
    def __init__(self, method: Any, number: int):
        self._method, self._number = method, number

    def remote(self, *given: Any) -> Any:
        return self._method.remote(self._number, *given)


class CrowdPool(RolloutPool):
    """The pool as it is, but for who its actors are. Engines like vLLM's: each has a window of responses in flight."""

    def __init__(self, settings: EngineSettings, crowd: type[Crowd], *given: Any, actors: int):
        """`crowd`, made of what is `given`, is a process of actors."""
        self._crowds: list[Any] = []
        self._crowd, self._given, self._count = crowd, given, 0
        super().__init__(settings, actors=actors)

    def _start(self, number: int, node: str | None) -> Handle:
        if self._count % A_PROCESS == 0:
            options = {"num_cpus": 0.1, "max_concurrency": 4 * A_PROCESS}
            self._crowds.append(ray.remote(self._crowd).options(**options).remote(*self._given))
        self._count += 1
        return Handle(self._crowds[-1], self._count)

    def actors_cpu_s(self) -> float:
        """Return the CPU seconds of the actors' processes."""
        return sum(ray.get([crowd.cpu_s.remote() for crowd in self._crowds]))

    def close(self) -> None:
        """End the crowds."""
        for crowd in self._crowds:
            ray.kill(crowd)
