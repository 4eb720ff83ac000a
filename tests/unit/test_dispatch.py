"""Dealing requests out to actors, with actors that die, hang and take their time, and no Ray."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RayActorError

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


class Actor:
    """Finishes a few responses a slice, in an order of its own; dies when its `lives` are used up."""

    def __init__(self, pool: "Pool", lives: int):
        self.pool, self.lives, self.held = pool, lives, list[Request]()
        self.work, self.drop = Remote(self._work), Remote(lambda: self.held.clear())

    def _work(self, requests: list[Request], params: SamplingParams, version: int) -> list[Piece] | Exception:
        self.pool.given.append([request.id for request in requests])
        self.held += requests
        self.lives -= 1
        if self.lives < 0:
            return RayActorError()
        self.pool.most_held = max(self.pool.most_held, len(self.held))
        self.pool.draw.shuffle(self.held)
        done, self.held = self.held[:2], self.held[2:]
        return [Piece(request.id, (), f"{request.id}", "stop") for request in done]


class Pool:
    """What a dispatch needs of a pool."""

    chunk_timeout_s = 60.0
    version = 0

    def __init__(self, engine: Any, lives: list[int], seed: int = 0, in_flight: int = 8, replacements: int = 1000):
        self.settings = EngineSettings("m", engine=engine, vllm=VLLMConfig(in_flight=in_flight))
        self.draw = random.Random(seed)
        self.replacements, self.given, self.most_held, self.stopped = replacements, [], 0, False
        self.actors = [Actor(self, life) for life in lives]

    def should_stop(self) -> bool:
        return self.stopped

    def replace(self, number: int) -> None:
        self.actors[number] = Actor(self, self.replacements)


@pytest.fixture(autouse=True, scope="module")
def no_ray() -> Iterator[None]:
    def fetch(reference: Any) -> Any:
        if isinstance(reference, Exception):
            raise reference
        return reference.pieces

    class Reference:
        def __init__(self, pieces: Any):
            self.pieces = pieces

    class Ray:
        @staticmethod
        def wait(references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
            return references, []

        @staticmethod
        def kill(actor: Any) -> None: ...

    work = Actor._work

    def wrapped(self: Actor, *given: Any) -> Any:
        found = work(self, *given)
        return found if isinstance(found, Exception) else Reference(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "ray", Ray)
        patch.setattr(dispatch, "fetch", fetch)
        patch.setattr(Actor, "_work", wrapped)
        yield


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


def test_an_actor_that_gives_no_sign_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool("transformers", [100])
    pool.chunk_timeout_s = 0.0
    waits = iter([False, True, True, True, True, True, True])
    monkeypatch.setattr(dispatch.ray, "wait", lambda refs, timeout: (refs, []) if next(waits) else ([], refs))
    hung = pool.actors[0]
    assert len(list(Dispatch(pool, requests(1), PARAMS, 1).run())) == 1
    assert pool.actors[0] is not hung


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
