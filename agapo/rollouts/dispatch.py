"""One call of the pool: prompts are dealt out to the actors in chunks, and groups come back as they become whole.

    waiting chunks ──► an actor with room ──► a slice of work, again and again ──► pieces ──► groups

A repeatable engine has one chunk at a time, whole, whichever actor that is: what a chunk's samples are depends on the
weights, the chunk and its seeds alone, so that a chunk that is done again (its actor died or hung) gives the same
groups. Another engine has as many as its window takes, and only what is missing is done again.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.exceptions import RayActorError

from agapo.cluster import fetch
from agapo.errors import Interrupted, UserError
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import Piece, PromptRequest, Request, SamplingParams
from agapo.rollouts.groups import GroupAssembly
from agapo.schema import Group

POLL_S = 0.5
"""How often a wait looks up, to notice Ctrl-C and hung actors."""
MOST_TRIES = 3
"""A chunk that ends so many actors is itself the reason."""


class Actors(Protocol):
    """The actors and their supervision, as `agapo.rollouts.pool.RolloutPool` has them."""

    settings: EngineSettings
    chunk_timeout_s: float

    @property
    def version(self) -> int:
        """The weights to sample with."""
        ...

    @property
    def actors(self) -> list[Any]:
        """The actors' handles; a replaced one's changes."""
        ...

    def should_stop(self) -> bool:
        """Whether the user asked to stop."""
        ...

    def replace(self, number: int) -> None:
        """Put a new actor in the place of one that is dead or hung."""
        ...


@dataclass
class _Chunk:
    """Prompts that are sampled together."""

    numbers: range
    """Which of the call's requests."""
    tries: int = 0


@dataclass
class _Call:
    """A slice of work in the hands of an actor."""

    actor: int
    started: float = field(default_factory=time.monotonic)


class Dispatch:
    """The chunks of a call: which wait, who has which, and what has come of them."""

    def __init__(self, pool: Actors, requests: Sequence[PromptRequest], params: SamplingParams, chunk_prompts: int):
        self._pool, self._params = pool, params
        self._assembly = GroupAssembly(requests, params)
        everything = range(len(requests))
        starts = range(0, len(requests), chunk_prompts)
        self._waiting = deque(_Chunk(everything[start : start + chunk_prompts]) for start in starts)
        self._held: list[list[_Chunk]] = [[] for _ in pool.actors]
        self._calls: dict[Any, _Call] = {}

    def run(self) -> Iterator[tuple[int, Group]]:
        """Yield (the request's place, its group) as groups become whole, in any order."""
        try:
            while self._waiting or any(self._held):
                self._deal_out()
                done, _ = ray.wait(list(self._calls), timeout=POLL_S)
                for reference in done:
                    call = self._calls.pop(reference)
                    for piece in self._collect(reference, call):
                        if group := self._assembly.add(piece):
                            yield piece.id.number, group
                    held = self._held[call.actor]
                    self._held[call.actor] = [chunk for chunk in held if not self._is_done(chunk)]
                self._look_up()
        finally:
            # Whoever asked may have left in the middle, and a chunk done again may have been whole before its end.
            for actor in self._pool.actors:
                actor.drop.remote()

    def _is_done(self, chunk: _Chunk) -> bool:
        return all(map(self._assembly.is_whole, chunk.numbers))

    def _deal_out(self) -> None:
        """Give waiting chunks to the actors that have room, least loaded first, and let all go on working."""
        busy = {call.actor for call in self._calls.values()}
        free = [number for number in range(len(self._held)) if number not in busy]
        given: dict[int, list[Request]] = {number: [] for number in free}
        while self._waiting and (roomy := [number for number in free if self._has_room(number)]):
            number = min(roomy, key=self._load)
            chunk = self._waiting.popleft()
            self._held[number].append(chunk)
            given[number] += self._to_do(chunk, whole_group=self._pool.settings.repeatable)
        for number in free:
            if self._held[number]:
                work = self._pool.actors[number].work
                self._calls[work.remote(given[number], self._params, self._pool.version)] = _Call(number)

    def _has_room(self, number: int) -> bool:
        if self._pool.settings.repeatable:
            return not self._held[number]
        return self._load(number) < self._pool.settings.vllm.in_flight

    def _load(self, number: int) -> int:
        """Responses that an actor has still to sample."""
        return sum(len(self._to_do(chunk)) for chunk in self._held[number])

    def _to_do(self, chunk: _Chunk, *, whole_group: bool = False) -> list[Request]:
        return [item for number in chunk.numbers for item in self._assembly.missing(number, whole_group=whole_group)]

    def _collect(self, reference: Any, call: _Call) -> list[Piece]:
        """Return what finished in a slice; nothing where the actor died, which is then replaced."""
        try:
            return fetch(reference)
        except RayActorError:
            self._pool.replace(call.actor)
            for chunk in self._held[call.actor]:
                _count_try(chunk)
            self._take_back(call.actor)
            return []

    def _take_back(self, number: int) -> None:
        self._waiting.extendleft(reversed(self._held[number]))
        self._held[number] = []

    def _look_up(self) -> None:
        if self._pool.should_stop():
            raise Interrupted
        now = time.monotonic()
        for reference, call in list(self._calls.items()):
            if now - call.started > self._pool.chunk_timeout_s:
                del self._calls[reference]
                ray.kill(self._pool.actors[call.actor])
                self._pool.replace(call.actor)
                self._take_back(call.actor)


def _count_try(chunk: _Chunk) -> None:
    chunk.tries += 1
    if chunk.tries >= MOST_TRIES:
        raise UserError(
            f"rollout.chunk_prompts: the same chunk of prompts ended {MOST_TRIES} rollout actors; "
            "lower rollout.chunk_prompts or rollout.max_new_tokens"
        )
