"""One call of the pool: prompts are dealt out to the actors in chunks, and groups come back as they become whole.

    waiting chunks ──► an actor with room ──► a slice of work, again and again ──► pieces ──► groups

A repeatable engine has one chunk at a time, whole, whichever actor that is: what a chunk's samples are depends on the
weights, the chunk and its seeds alone, so that a chunk that is done again (its actor died or hung) gives the same
groups. Another engine has as many as its window takes, and only what is missing is done again.

Sampling ahead of the learner (`agapo.rollouts.ahead`) is one call without an end: prompts are fed to it as they may be
begun, weights change in the middle of it, and it can be paused.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError

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
    handle: Any
    """The actor's, which may have been replaced since."""
    started: float = field(default_factory=time.monotonic)


class Dispatch:
    """The chunks of a call: which wait, who has which, and what has come of them."""

    def __init__(
        self,
        pool: Actors,
        requests: Sequence[PromptRequest],
        params: SamplingParams,
        chunk_prompts: int,
        *,
        ahead: bool = False,
    ):
        """`ahead`: weights may change in the middle; nothing is repeatable then."""
        self._pool, self._params, self._chunk_prompts = pool, params, chunk_prompts
        self._whole_groups = pool.settings.repeatable and not ahead
        self._ahead = ahead
        self._assembly = GroupAssembly([], params)
        self._waiting: deque[_Chunk] = deque()
        self._held: list[list[_Chunk]] = [[] for _ in pool.actors]
        self._calls: dict[Any, _Call] = {}
        self.busy_s = 0.0
        """Seconds that actors have worked, all of them together."""
        self.feed(requests)

    def feed(self, requests: Sequence[PromptRequest]) -> None:
        """Take more prompts; their places go on from those before."""
        places = self._assembly.expect(requests)
        starts = range(0, len(places), self._chunk_prompts)
        self._waiting.extend(_Chunk(places[start : start + self._chunk_prompts]) for start in starts)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not any(self._held)

    def run(self) -> Iterator[tuple[int, Group]]:
        """Yield (the request's place, its group) as groups become whole, in any order."""
        try:
            while not self.idle:
                yield from self.poll()
        finally:
            self.drop()

    def drop(self) -> None:
        """Let the actors forget what they have; a chunk done again may have been whole before its end, too."""
        for actor in self._pool.actors:
            actor.drop.remote()

    def poll(self) -> Iterator[tuple[int, Group]]:
        """Deal out what waits, wait a little, and yield what has become whole."""
        self._deal_out()
        yield from self._finished_slices()

    def pause(self) -> Iterator[tuple[int, Group]]:
        """Take everything out of flight; what there is of it goes on from there with the next poll.

        Yields what has become whole meanwhile.
        """
        while self._calls:
            yield from self._finished_slices()
        for number, actor in enumerate(self._pool.actors):
            if self._held[number]:
                try:
                    pieces: list[Piece] = fetch(actor.pause.remote(), timeout_s=self._pool.chunk_timeout_s)
                except (RayActorError, GetTimeoutError):
                    # It is found out, and replaced, when it is given work again.
                    pieces = []
                for piece in pieces:
                    self._assembly.keep(piece)
                self._take_back(number)

    def _finished_slices(self) -> Iterator[tuple[int, Group]]:
        done, _ = ray.wait(list(self._calls), timeout=POLL_S)
        for reference in done:
            call = self._calls.pop(reference)
            for piece in self._collect(reference, call):
                if group := self._assembly.add(piece):
                    yield piece.id.number, group
            self.busy_s += time.monotonic() - call.started
            self._let_go(call.actor)
        self._look_up()

    def _let_go(self, actor: int) -> None:
        """Take the chunks that are done from an actor."""
        done = [chunk for chunk in self._held[actor] if self._is_done(chunk)]
        self._held[actor] = [chunk for chunk in self._held[actor] if chunk not in done]
        if self._ahead:
            for chunk in done:
                self._assembly.forget(chunk.numbers)

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
            given[number] += self._to_do(chunk, whole_group=self._whole_groups)
        actors = self._pool.actors
        for number in free:
            if self._held[number]:
                work = actors[number].work.remote(given[number], self._params, self._pool.version)
                self._calls[work] = _Call(number, actors[number])

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
            self._replace(call)
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
                ray.kill(call.handle)
                self._replace(call)
                self._take_back(call.actor)

    def _replace(self, call: _Call) -> None:
        """Replace a call's actor, unless that was done when new weights did not reach it."""
        if self._pool.actors[call.actor] == call.handle:
            self._pool.replace(call.actor)


def _count_try(chunk: _Chunk) -> None:
    chunk.tries += 1
    if chunk.tries >= MOST_TRIES:
        raise UserError(
            f"rollout.chunk_prompts: the same chunk of prompts ended {MOST_TRIES} rollout actors; "
            "lower rollout.chunk_prompts or rollout.max_new_tokens"
        )
