"""One call of the pool: prompts are dealt out to the actors in chunks, and groups come back as they become whole.

    waiting chunks ──► an actor with room ──► a slice of work, again and again ──► pieces ──► groups

A repeatable engine has one chunk at a time, whole, whichever actor that is: what a chunk's samples are depends on the
weights, the chunk and its seeds alone, so that a chunk that is done again (its actor died or hung) gives the same
groups. Another engine has as many as its window takes, and only what is missing is done again.

An answer costs the same with eight actors and with five hundred: nobody looks through all of them over it.
"""

import heapq
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from ray.exceptions import ObjectLostError, RayActorError

from agapo.cluster import answer_of
from agapo.errors import Interrupted, UserError
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import Piece, PromptRequest, Request, SamplingParams
from agapo.rollouts.groups import GroupAssembly
from agapo.schema import Group

POLL_S = 0.5
"""How often a wait looks up, to notice Ctrl-C, hung actors and those that have become ready."""
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
        """The actors' handles."""
        ...

    def actor(self, number: int) -> Any:
        """One actor's handle; another one once it has been replaced."""
        ...

    def should_stop(self) -> bool:
        """Whether the user asked to stop."""
        ...

    def is_ready(self, number: int) -> bool:
        """Whether an actor has its model and the weights."""
        ...

    def wait_for_an_actor(self, timeout_s: float) -> None:
        """Wait till one more is ready, as far as `look` notices, `timeout_s` at most."""
        ...

    def look(self) -> None:
        """Note who has become ready; replace who died or hung before it was. Raises UserError where nobody comes."""
        ...

    def replace(self, number: int) -> None:
        """Put a new actor in the place of one that is dead or hung; it is not ready yet."""
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
        self._unfinished = len(self._waiting)
        self._held: list[list[_Chunk]] = [[] for _ in pool.actors]
        self._idle = set(range(len(self._held)))
        """Actors that hold nothing."""
        self._back: set[int] = set()
        """Actors that have answered, and hold something still."""
        self._calls: dict[Any, _Call] = {}
        self._answers: SimpleQueue[tuple[Any, Future[list[Piece]]]] = SimpleQueue()
        self._look_again = 0.0

    def run(self) -> Iterator[tuple[int, Group]]:
        """Yield (the request's place, its group) as groups become whole, in any order."""
        try:
            self._deal_out()
            while self._unfinished:
                groups = self._take_answer()
                # First, so that the actor does not wait for whoever takes the groups.
                self._deal_out()
                yield from groups
                self._look_up()
        finally:
            # Whoever asked may have left in the middle, and a chunk done again may have been whole before its end.
            for actor in self._pool.actors:
                actor.drop.remote()

    def _take_answer(self) -> list[tuple[int, Group]]:
        """Wait for an answer, POLL_S at most; return the groups that it makes whole."""
        if not self._calls:
            self._pool.wait_for_an_actor(POLL_S)
            return []
        try:
            reference, answer = self._answers.get(timeout=POLL_S)
        except Empty:
            return []
        call = self._calls.pop(reference, None)
        # None: the actor was taken for hung, and its chunks are others'.
        return self._take(answer, call.actor) if call else []

    def _take(self, answer: "Future[list[Piece]]", number: int) -> list[tuple[int, Group]]:
        """Return the groups that a slice has made whole, and note what its actor still holds."""
        pieces = self._collect(answer, number)
        whole = [(piece.id.number, group) for piece in pieces if (group := self._assembly.add(piece))]
        held = [chunk for chunk in self._held[number] if not self._is_done(chunk)]
        self._unfinished -= len(self._held[number]) - len(held)
        self._held[number] = held
        (self._back if held else self._idle).add(number)
        return whole

    def _is_done(self, chunk: _Chunk) -> bool:
        return all(map(self._assembly.is_whole, chunk.numbers))

    def _deal_out(self) -> None:
        """Give waiting chunks to the actors that have room, least loaded first, and let all go on working."""
        given = self._fill() if self._waiting else {}
        for number in self._back | given.keys():
            work = self._pool.actor(number).work
            reference = work.remote(given.get(number, []), self._params, self._pool.version)
            self._calls[reference] = _Call(number)
            reference.future().add_done_callback(partial(self._note, reference))
        self._back.clear()

    def _note(self, reference: Any, answer: "Future[list[Piece]]") -> None:
        """Runs in a thread of Ray's."""
        self._answers.put((reference, answer))

    def _fill(self) -> dict[int, list[Request]]:
        """Return the new requests of each actor that gets some."""
        able = [*self._back, *filter(self._pool.is_ready, self._idle)]
        room = [(self._load(number), number) for number in able if self._has_room(number)]
        heapq.heapify(room)
        given: dict[int, list[Request]] = {}
        while self._waiting and room:
            _, number = heapq.heappop(room)
            chunk = self._waiting.popleft()
            self._held[number].append(chunk)
            self._idle.discard(number)
            given.setdefault(number, []).extend(self._to_do(chunk))
            if self._has_room(number):
                heapq.heappush(room, (self._load(number), number))
        return given

    def _has_room(self, number: int) -> bool:
        if self._pool.settings.repeatable:
            return not self._held[number]
        return self._load(number) < self._pool.settings.vllm.in_flight

    def _load(self, number: int) -> int:
        """Responses that an actor has still to sample."""
        return sum(self._assembly.count_missing(prompt) for chunk in self._held[number] for prompt in chunk.numbers)

    def _to_do(self, chunk: _Chunk) -> list[Request]:
        whole = self._pool.settings.repeatable
        return [item for number in chunk.numbers for item in self._assembly.missing(number, whole_group=whole)]

    def _collect(self, answer: "Future[list[Piece]]", number: int) -> list[Piece]:
        """Return what finished in a slice; nothing where the actor, or its host with the answer, is gone."""
        try:
            return answer_of(answer)
        except (RayActorError, ObjectLostError):
            for chunk in self._held[number]:
                _count_try(chunk)
            self._give_up(number)
            return []

    def _give_up(self, number: int) -> None:
        """Replace an actor; what it held waits for others."""
        self._pool.replace(number)
        self._waiting.extendleft(reversed(self._held[number]))
        self._held[number] = []
        self._idle.add(number)

    def _look_up(self) -> None:
        now = time.monotonic()
        if now < self._look_again:
            return
        self._look_again = now + POLL_S
        if self._pool.should_stop():
            raise Interrupted
        self._pool.look()
        for reference, call in list(self._calls.items()):
            if now - call.started > self._pool.chunk_timeout_s:
                del self._calls[reference]
                self._give_up(call.actor)


def _count_try(chunk: _Chunk) -> None:
    chunk.tries += 1
    if chunk.tries >= MOST_TRIES:
        raise UserError(
            f"rollout.chunk_prompts: the same chunk of prompts ended {MOST_TRIES} rollout actors; "
            "lower rollout.chunk_prompts or rollout.max_new_tokens"
        )
