"""Dealing requests out to actors, with actors that die, hang and take their time, and no Ray."""

import random
from collections import Counter
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import ObjectLostError, RayActorError

from agapo.errors import Interrupted, UserError
from agapo.recipe.rollout import VLLMConfig
from agapo.rollouts import dispatch
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.dispatch import MOST_TRIES, Dispatch
from agapo.rollouts.engine import Piece, PromptRequest, Request, SamplingParams
from agapo.schema import Prompt

PARAMS = SamplingParams(group_size=3, max_new_tokens=1)


class Remote:
    """A method of an actor, as Ray has it."""

    def __init__(self, method: Any):
        self.remote = method


class Reference:
    """What a call returns: its answer is there at once, is an error, or never comes."""

    def __init__(self, answer: list[Piece] | Exception | None):
        self.answer = answer

    def future(self) -> "Future[list[Piece]]":
        found: Future[list[Piece]] = Future()
        if isinstance(self.answer, Exception):
            found.set_exception(self.answer)
        elif self.answer is not None:
            found.set_result(self.answer)
        return found


class Actor:
    """Finishes a few responses a slice, in an order of its own; dies when its `lives` are used up."""

    def __init__(self, pool: "Pool", lives: int, death: Exception | None = None):
        self.pool, self.lives, self.held = pool, lives, list[Request]()
        self.death = death or RayActorError()
        self.work, self.drop = Remote(self._work), Remote(lambda: self.held.clear())
        self.pause = Remote(self._pause)

    def _work(self, requests: list[Request], params: SamplingParams, version: int) -> Reference:
        self.pool.given.append([request.id for request in requests])
        self.held += requests
        self.lives -= 1
        if self.lives < 0:
            return Reference(self.death)
        self.pool.most_held = max(self.pool.most_held, len(self.held))
        self.pool.draw.shuffle(self.held)
        done, self.held = self.held[:2], self.held[2:]
        return Reference([Piece(request.id, (), f"{request.id}", "stop") for request in done])

    def _pause(self) -> list[Piece]:
        paused, self.held = self.held, []
        return [Piece(request.id, (), "", "paused") for request in paused]


class Pool:
    """What a dispatch needs of a pool. An actor that takes another's place is ready after some looks."""

    chunk_timeout_s = 60.0
    version = 0

    def __init__(self, engine: Any, lives: list[int], seed: int = 0, in_flight: int = 8, replacements: int = 1000):
        self.settings = EngineSettings("m", engine=engine, vllm=VLLMConfig(in_flight=in_flight))
        self.draw = random.Random(seed)
        self.slices: list[tuple[int, float, float]] = []
        self.on_slice = lambda *slice_: self.slices.append(slice_)
        self.replacements, self.given, self.most_held, self.stopped = replacements, [], 0, False
        self.actors = [Actor(self, life) for life in lives]
        self.looks_until_ready = [0 for _ in lives]

    def should_stop(self) -> bool:
        return self.stopped

    def actor(self, number: int) -> Actor:
        return self.actors[number]

    def is_ready(self, number: int) -> bool:
        return self.looks_until_ready[number] <= 0

    def wait_for_an_actor(self, timeout_s: float) -> None:
        self.look()

    def look(self) -> None:
        self.looks_until_ready = [count - 1 for count in self.looks_until_ready]

    def replace(self, number: int) -> None:
        self.actors[number] = Actor(self, self.replacements)
        self.looks_until_ready[number] = self.draw.randrange(3)


def requests(count: int) -> list[PromptRequest]:
    return [PromptRequest(Prompt(id=f"p{n}", messages=()), (n,)) for n in range(count)]


@given(
    count=st.integers(0, 12),
    chunk=st.integers(1, 5),
    # Two at most: a third death in a row over the same chunk is an error, and rightly.
    lives=st.lists(st.integers(0, 4), min_size=1, max_size=2),
    engine=st.sampled_from(["transformers", "vllm"]),
    seed=st.integers(0, 100),
)
def test_every_group_comes_once_and_whole_whoever_dies(
    count: int, chunk: int, lives: list[int], engine: str, seed: int
):
    pool, asked = Pool(engine, lives, seed), requests(count)
    found = list(Dispatch(pool, asked, PARAMS, chunk).run())
    assert sorted(number for number, _ in found) == list(range(count))
    for number, group in found:
        assert group.prompt is asked[number].prompt
        assert [f"p{number}" in r.text and f"index={i}" in r.text for i, r in enumerate(group.responses)] == [True] * 3
    assert not any(actor.held for actor in pool.actors), "nothing stays in flight"


def test_a_repeatable_engine_has_one_whole_chunk_at_a_time_also_when_it_is_done_again() -> None:
    pool = Pool("transformers", [2])
    list(Dispatch(pool, requests(4), PARAMS, 2).run())
    chunks = [ids for ids in pool.given if ids]
    assert [sorted({item.number for item in ids}) for ids in chunks] == [[0, 1], [0, 1], [2, 3]]
    assert {len(ids) for ids in chunks} == {6}
    assert [[(i.number, i.index) for i in ids] for ids in chunks[:1]] == [[(n, i) for n in (0, 1) for i in range(3)]]


def test_another_engine_is_given_what_is_missing_and_as_much_as_its_window_takes() -> None:
    pool = Pool("vllm", [3], in_flight=8)
    list(Dispatch(pool, requests(9), PARAMS, 1).run())
    assert 8 <= pool.most_held < 8 + 3, "the window, by whole chunks"
    asked = Counter(item for ids in pool.given for item in ids)
    # Four responses had finished before the death, three of which may have been of one group.
    assert sum(count == 1 for count in asked.values()) >= 4
    assert max(asked.values()) == 2


def test_work_is_dealt_out_evenly() -> None:
    pool = Pool("vllm", [100, 100], in_flight=100)
    list(Dispatch(pool, requests(8), PARAMS, 1).run())
    assert [len(ids) for ids in pool.given[:2]] == [12, 12]


def test_a_chunk_that_ends_every_actor_is_the_reason() -> None:
    pool = Pool("transformers", [0], replacements=0)
    with pytest.raises(UserError, match=rf"the same chunk of prompts ended {MOST_TRIES} rollout actors"):
        list(Dispatch(pool, requests(2), PARAMS, 2).run())


def test_an_answer_that_is_lost_with_its_host_is_made_again() -> None:
    pool = Pool("transformers", [])
    pool.actors, pool.looks_until_ready = [Actor(pool, 1, ObjectLostError("00" * 28, None, ""))], [0]
    lost = pool.actors[0]
    assert len(list(Dispatch(pool, requests(1), PARAMS, 1).run())) == 1
    assert pool.actors[0] is not lost


def test_an_actor_that_gives_no_sign_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "POLL_S", 0.01)
    pool = Pool("transformers", [100])
    pool.chunk_timeout_s = 0.02
    hung = pool.actors[0]
    hung.work = Remote(lambda *_: Reference(None))
    assert len(list(Dispatch(pool, requests(1), PARAMS, 1).run())) == 1
    assert pool.actors[0] is not hung


def test_others_go_on_while_an_actor_finds_no_room() -> None:
    pool = Pool("transformers", [100, 100])
    pool.looks_until_ready = [10**9, 0]
    assert len(list(Dispatch(pool, requests(6), PARAMS, 2).run())) == 6
    assert not pool.actors[0].held and pool.actors[0].lives == 100


@given(
    seed=st.integers(0, 100),
    engine=st.sampled_from(["transformers", "vllm"]),
    lives=st.lists(st.integers(0, 4), min_size=1, max_size=2),
    told=st.lists(st.sampled_from(["feed", "pause", "weights", "poll"]), max_size=12),
)
def test_ahead_every_group_comes_once_whatever_is_asked_meanwhile(
    seed: int, engine: str, lives: list[int], told: list[str]
) -> None:
    """`weights`: new ones replace an actor that they do not reach, between two polls."""
    pool, found, fed = Pool(engine, lives, seed), list[int](), 0
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(dispatch, "fetch", lambda pieces, timeout_s: pieces)
    monkeypatch.setattr(dispatch, "MOST_TRIES", 100)
    monkeypatch.setattr(dispatch, "POLL_S", 0.01)
    stream = Dispatch(pool, [], PARAMS, 2, ahead=True)
    try:
        # Five slices a feed, twice as many looks for whoever dies: more than are ever needed; idle polls do nothing.
        for word in ["feed", *told, *["poll"] * 300]:
            if word == "poll" and stream.idle:
                continue
            if word == "feed":
                stream.feed(requests(3))
                fed += 3
            elif word == "weights":
                pool.replace(0)
            else:
                found += [number for number, _ in getattr(stream, word)()]
    finally:
        monkeypatch.undo()
    assert sorted(found) == list(range(fed)) and stream.idle
    assert not stream._assembly._requests, "it keeps nothing of what is done"
    assert engine == "vllm" or pool.most_held <= 2 * PARAMS.group_size, "a chunk an actor, after a pause too"


def test_an_actor_that_new_weights_have_replaced_is_not_replaced_again() -> None:
    pool = Pool("transformers", [0])
    stream = Dispatch(pool, requests(1), PARAMS, 1)
    stream._deal_out()
    pool.replace(0)
    newcomer = pool.actors[0]
    assert len(list(stream.run())) == 1
    assert pool.actors[0] is newcomer


def test_a_poll_ends_while_nobody_is_ready() -> None:
    pool = Pool("transformers", [100])
    pool.looks_until_ready = [10**9]
    assert not list(Dispatch(pool, requests(1), PARAMS, 1).poll())


def test_the_look_ups_do_not_grow_with_the_actors() -> None:
    """Counted: how often a run asks for anybody's state, over the answers that it takes."""
    asked = {}
    for actors in (4, 256):
        pool = Pool("vllm", [10**6] * actors)
        real, count = pool.is_ready, Counter[str]()

        def is_ready(number: int, real: Any = real, count: Any = count) -> bool:
            count["asked"] += 1
            return real(number)

        pool.is_ready = is_ready  # pyright: ignore[reportAttributeAccessIssue]
        list(Dispatch(pool, requests(8 * actors), PARAMS, 1).run())
        asked[actors] = count["asked"] / len(pool.given)
    assert asked[256] < 2 * asked[4] + 1


def test_who_leaves_in_the_middle_leaves_nothing_in_flight() -> None:
    pool = Pool("vllm", [100])
    stream = Dispatch(pool, requests(6), PARAMS, 1).run()
    next(stream)
    assert pool.actors[0].held
    stream.close()
    assert not pool.actors[0].held


def test_stops_when_asked_to() -> None:
    pool = Pool("vllm", [100])
    pool.stopped = True
    with pytest.raises(Interrupted):
        list(Dispatch(pool, requests(6), PARAMS, 1).run())
