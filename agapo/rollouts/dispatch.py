"""One call of the pool: prompts are dealt out to the actors in chunks, and groups come back as they become whole.

    waiting chunks ──► an actor with room ──► a slice of work, again and again ──► pieces ──► groups

A repeatable engine has one chunk at a time, whole, whichever actor that is: what a chunk's samples are depends on the
weights, the chunk and its seeds alone, so that a chunk that is done again (its actor died or hung) gives the same
groups. Another engine has as many as its window takes, and only what is missing is done again.

Sampling ahead of the learner (`agapo.rollouts.ahead`) is one call without an end: prompts are fed to it as they may be
begun, weights change in the middle of it, and it can be paused.

An answer costs the same with eight actors and with five hundred: nobody looks through all of them over it.
"""

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from agapo.cluster import answer_of, fetch
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
    on_slice: Callable[[int, float, float], None]
    """Told of each slice of work: actor, start and end (`time.monotonic`)."""

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
        self._unfinished = 0
        self._held: list[list[_Chunk]] = [[] for _ in pool.actors]
        self._idle = set(range(len(self._held)))
        """Actors that hold nothing."""
        self._back: set[int] = set()
        """Actors that have answered, and hold something still."""
        self._calls: dict[Any, _Call] = {}
        self._answers: SimpleQueue[tuple[Any, Future[list[Piece]]]] = SimpleQueue()
        self._look_again = 0.0
        self.busy_s = 0.0
        """Seconds that actors have worked, all of them together."""
        self.feed(requests)

    def feed(self, requests: Sequence[PromptRequest]) -> range:
        """Take more prompts; return their places, which go on from those before."""
        places = self._assembly.expect(requests)
        starts = range(0, len(places), self._chunk_prompts)
        self._waiting.extend(_Chunk(places[start : start + self._chunk_prompts]) for start in starts)
        self._unfinished += len(starts)
        return places

    def keep(self, piece: Piece) -> None:
        """Take what there is already of a response of a prompt that was just fed."""
        self._assembly.keep(piece)

    def pieces(self, place: int) -> list[Piece]:
        """Return what there is of a prompt's responses while nothing is in flight, that is after `pause`."""
        return self._assembly.pieces(place)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._unfinished

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
        """Deal out what waits, wait for an answer, POLL_S at most, and yield what it has made whole."""
        self._deal_out()
        groups = self._take_answer()
        # First, so that the actor does not wait for whoever takes the groups.
        self._deal_out()
        yield from groups
        self._look_up()

    def pause(self, within_s: float = math.inf) -> Iterator[tuple[int, Group]]:
        """Take everything out of flight; what there is of it goes on from there with the next poll.

        Yields what has become whole meanwhile. A stop that the user asks for waits till this is done: what is in
        flight belongs into the checkpoint. `within_s`: who has not answered by then is left as he is, in flight.
        """
        until = time.monotonic() + within_s
        while self._calls and time.monotonic() < until:
            yield from self._take_answer()
            self._supervise()
        silent = {call.actor for call in self._calls.values()}
        for number in [number for number, held in enumerate(self._held) if held and number not in silent]:
            for piece in self._paused(number):
                self._assembly.keep(piece)
            self._take_back(number)

    def _paused(self, number: int) -> list[Piece]:
        """Return what there is of the responses that an actor has."""
        try:
            return fetch(self._pool.actor(number).pause.remote(), timeout_s=self._pool.chunk_timeout_s)
        except (RayActorError, ObjectLostError, GetTimeoutError):
            # It is found out, and replaced, when it is given work again.
            return []

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
        return self._take(answer, call) if call else []

    def _take(self, answer: "Future[list[Piece]]", call: _Call) -> list[tuple[int, Group]]:
        """Return the groups that a slice has made whole, and note what its actor still holds."""
        ended = time.monotonic()
        self.busy_s += ended - call.started
        self._pool.on_slice(call.actor, call.started, ended)
        pieces = self._collect(answer, call)
        whole = [(piece.id.number, group) for piece in pieces if (group := self._assembly.add(piece))]
        self._let_go(call.actor)
        if not self._held[call.actor]:
            self._idle.add(call.actor)
        elif self._is_replaced(call):
            self._take_back(call.actor)
        else:
            self._back.add(call.actor)
        return whole

    def _let_go(self, number: int) -> None:
        """Take the chunks that are done from an actor."""
        held: list[_Chunk] = []
        for chunk in self._held[number]:
            if not all(map(self._assembly.is_whole, chunk.numbers)):
                held.append(chunk)
                continue
            self._unfinished -= 1
            if self._ahead:
                self._assembly.forget(chunk.numbers)
        self._held[number] = held

    def _deal_out(self) -> None:
        """Give waiting chunks to the actors that have room, least loaded first, and let all go on working."""
        given = self._fill() if self._waiting else {}
        for number in self._back | given.keys():
            actor = self._pool.actor(number)
            reference = actor.work.remote(given.get(number, []), self._params, self._pool.version)
            self._calls[reference] = _Call(number, actor)
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
        whole = self._whole_groups
        return [item for number in chunk.numbers for item in self._assembly.missing(number, whole_group=whole)]

    def _collect(self, answer: "Future[list[Piece]]", call: _Call) -> list[Piece]:
        """Return what finished in a slice; nothing where the actor, or its host with the answer, is gone."""
        try:
            return answer_of(answer)
        except (RayActorError, ObjectLostError):
            for chunk in self._held[call.actor]:
                _count_try(chunk)
            self._give_up(call)
            return []

    def _give_up(self, call: _Call) -> None:
        """Replace an actor; what it held waits for others."""
        if not self._is_replaced(call):
            self._pool.replace(call.actor)
        self._take_back(call.actor)

    def _is_replaced(self, call: _Call) -> bool:
        """Whether the actor is another's by now: of one that new weights did not reach, say."""
        return self._pool.actor(call.actor) is not call.handle

    def _take_back(self, number: int) -> None:
        self._waiting.extendleft(reversed(self._held[number]))
        self._held[number] = []
        self._back.discard(number)
        self._idle.add(number)

    def _look_up(self) -> None:
        if self._pool.should_stop():
            raise Interrupted
        self._supervise()

    def _supervise(self) -> None:
        """Now and then, see who has come further and who hangs."""
        now = time.monotonic()
        if now < self._look_again:
            return
        self._look_again = now + POLL_S
        self._pool.look()
        for reference, call in list(self._calls.items()):
            if now - call.started > self._pool.chunk_timeout_s:
                del self._calls[reference]
                self._give_up(call)


def _count_try(chunk: _Chunk) -> None:
    chunk.tries += 1
    if chunk.tries >= MOST_TRIES:
        raise UserError(
            f"rollout.chunk_prompts: the same chunk of prompts ended {MOST_TRIES} rollout actors; "
            "lower rollout.chunk_prompts or rollout.max_new_tokens"
        )
