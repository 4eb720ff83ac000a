"""Sampling ahead over stops: no prompt is lost or seen twice, none is drawn again, none is staler than the bound."""

import random
import re
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agapo.errors import Interrupted, UserError
from agapo.learner.checkpoint import Saved, save_checkpoint
from agapo.recipe import RLRecipe
from agapo.recipe.rollout import VLLMConfig
from agapo.rollouts import ahead as ahead_module
from agapo.rollouts import dispatch
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.ahead import Ahead
from agapo.rollouts.dispatch import Dispatch
from agapo.rollouts.engine import Piece, PromptRequest, Request, ResponseId, SamplingParams
from agapo.rollouts.waiting import Begun, Waiting, load_waiting, save_waiting
from agapo.schema import Group, Prompt, Response, Segment
from agapo.stages.rl.progress import WAITING, Progress, begun_before, fresh_enough
from agapo.tracking import RunDirectory

GROUP, A_STEP, STEPS = 2, 3, 5
PARAMS = SamplingParams(group_size=GROUP, max_new_tokens=100)


@dataclass
class World:
    """What outlives a stop: who was asked for from the start, and how long each response was going to be."""

    draw: random.Random
    lengths: dict[tuple[str, int], int] = field(default_factory=dict)
    refills: dict[int, int] = field(default_factory=dict)
    """By step: how many prompts more it takes."""

    def begin(self, request: Request) -> None:
        """Draw the length of a response that begins; it may begin once."""
        key = (request.id.prompt, request.id.index)
        assert key not in self.lengths, "drawn a second time"
        self.lengths[key] = 1 + int(self.draw.expovariate(0.15))


class Remote:
    """A method of an actor, as Ray has it; what it returns is there at once."""

    def __init__(self, method: Any):
        self._method = method

    def remote(self, *given: Any) -> Any:
        return _Answer(self._method(*given))


@dataclass(frozen=True)
class _Answer:
    value: Any
    key: object = field(default_factory=object)

    def __hash__(self) -> int:
        return hash(self.key)

    def future(self) -> "Future[Any]":
        found: Future[Any] = Future()
        found.set_result(self.value)
        return found


class Actor:
    """Decodes a few tokens of every response a slice; what is paused goes on where it was."""

    def __init__(self, world: World):
        self.world, self.held = world, dict[ResponseId, tuple[Request, list[Segment]]]()
        self.work, self.pause, self.drop = Remote(self._work), Remote(self._pause), Remote(self.held.clear)

    def _work(self, requests: list[Request], params: SamplingParams, version: int) -> list[Piece]:
        for request in requests:
            if not request.prefix:
                self.world.begin(request)
            self.held[request.id] = (request, list(request.prefix))
        return [piece for item in list(self.held.values()) if (piece := self._advance(*item, version))]

    def _advance(self, request: Request, segments: list[Segment], version: int) -> Piece | None:
        wanted = self.world.lengths[request.id.prompt, request.id.index]
        made = sum(len(segment.token_ids) for segment in segments)
        count = min(wanted - made, self.world.draw.randrange(1, 6))
        segments.append(Segment(np.zeros(count), np.zeros(count), weights_version=version))
        if made + count < wanted:
            return None
        del self.held[request.id]
        return Piece(request.id, tuple(segments), "", "stop")

    def _pause(self) -> list[Piece]:
        paused = [Piece(name, tuple(segments), "", "paused") for name, (_, segments) in self.held.items()]
        self.held.clear()
        return paused


class Pool:
    """What `Ahead` and its dispatch need of a pool."""

    chunk_timeout_s = 60.0
    on_slice = staticmethod(lambda *_: None)

    def __init__(self, world: World, version: int, actors: int):
        self.settings = EngineSettings("m", engine="vllm", vllm=VLLMConfig(in_flight=4))
        self.actors, self.version, self.stopped = [Actor(world) for _ in range(actors)], version, False

    def dispatch_ahead(self, params: SamplingParams, *, chunk_prompts: int) -> Dispatch:
        return Dispatch(self, [], params, chunk_prompts, ahead=True)

    def actor(self, number: int) -> Actor:
        return self.actors[number]

    def should_stop(self) -> bool:
        return self.stopped

    def is_ready(self, number: int) -> bool:
        return True

    def wait_for_an_actor(self, timeout_s: float) -> None: ...

    def look(self) -> None: ...

    def replace(self, number: int) -> None:
        raise AssertionError("nobody dies here")


class LateJudge:
    """Judges in a thread of its own, so that groups are in all states when a run is stopped."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1)

    def submit(self, group: Group) -> "Future[Group]":
        judged = [replace(response, reward=1.0, correct=True) for response in group.responses]
        return self.thread.submit(lambda: replace(group, responses=tuple(judged)))

    def check(self, groups: Any) -> None: ...


def requests(position: int, count: int) -> list[PromptRequest]:
    return [PromptRequest(Prompt(id=f"p{n}", messages=()), (n,)) for n in range(position, position + count)]


@dataclass
class Run:
    """The loop in small, and what a checkpoint holds of it."""

    world: World
    bound: int
    actors: int
    file: Path
    learned: list[Group] = field(default_factory=list)
    step: int = 0
    cursor: int = 0
    killed: bool = False
    """Whether the last stop was a kill just after a checkpoint."""

    def go_on(self, stop_at: int, when: str) -> None:
        """Make steps; stop in step `stop_at` as `when` says. What a step that is stopped has taken is not learned."""
        begun = load_waiting(self.file) if self.file.exists() else Begun(PARAMS, 0, ())
        waiting = list(begun.waiting)
        self.forget_what_was_begun_after(waiting)
        recipe = recipe_of(self.bound)
        progress = Progress(step=self.step, cursor=self.cursor, updates=self.step)
        assert all(fresh_enough(item, recipe, progress, begun.asked) for item in waiting), "the bound allows all of it"
        pool = Pool(self.world, self.step, self.actors)
        ahead = Ahead(pool, LateJudge(), requests, PARAMS, chunk_prompts=1, start=self.cursor, begun=begun)
        try:
            while self.step < STEPS:
                stopping = self.step == stop_at
                self.killed = stopping and when != "asked to"
                if stopping and when == "killed":
                    break
                ahead.learned(self.cursor)
                further = min(self.bound, STEPS - self.step - 1) * A_STEP
                if stopping and when == "asked to":
                    pool.stopped = True
                # Some steps refill: then they take more prompts.
                refill = self.world.refills.setdefault(self.step, self.world.draw.randrange(A_STEP))
                try:
                    groups = ahead.groups(self.cursor, A_STEP, self.cursor + A_STEP + further)
                    if refill:
                        end = self.cursor + A_STEP + refill
                        groups += ahead.groups(self.cursor + A_STEP, refill, end + further)
                except Interrupted:
                    break
                if stopping and when == "killed before learning":
                    break
                self.learn(groups)
                with suppress(Interrupted):
                    ahead.call(lambda: setattr(pool, "version", self.step))
            save_waiting(self.file, Begun(PARAMS, ahead.asked, tuple(ahead.left(self.cursor))))
        finally:
            ahead.close()

    def forget_what_was_begun_after(self, waiting: list[Waiting]) -> None:
        """A kill takes what was begun after the checkpoint with it, whatever its length; a stop takes nothing."""
        known = {(group.prompt.id, index) for group in self.learned for index in range(GROUP)}
        for item in waiting:
            indices = range(GROUP) if item.group else [piece.id.index for piece in item.pieces]
            known |= {(f"p{item.position}", index) for index in indices}
        assert known <= self.world.lengths.keys()
        if not self.killed:
            assert known == self.world.lengths.keys(), "all that was begun is in the checkpoint"
        self.world.lengths = {key: length for key, length in self.world.lengths.items() if key in known}

    def learn(self, groups: list[Group]) -> None:
        for group in groups:
            for response in group.responses:
                assert response.correct, "it has been judged"
                assert list(response.versions) == sorted(response.versions)
                assert 0 <= self.step - response.versions[0] <= self.bound
        self.learned += groups
        self.step, self.cursor = self.step + 1, self.cursor + len(groups)


def recipe_of(bound: int, limit: int = PARAMS.max_new_tokens) -> RLRecipe:
    return RLRecipe.model_validate(
        {
            "steps": STEPS,
            "prompts_per_step": A_STEP,
            "data": {"source": "data.arithmetic:prompts"},
            "reward": {"terms": [{"name": "a", "function": "rewards.math_answer:score"}]},
            "rollout": {"max_staleness": bound, "group_size": GROUP, "max_new_tokens": limit},
        }
    )


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    bound=st.sampled_from([1, 2, 4]),
    actors=st.integers(1, 3),
    stops=st.lists(
        st.tuples(st.integers(0, STEPS - 1), st.sampled_from(["killed", "killed before learning", "asked to"])),
        max_size=4,
    ),
)
def test_over_any_stops_each_prompt_is_learned_from_once_as_it_was_first_drawn(
    seed: int, bound: int, actors: int, stops: list[tuple[int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A response that is drawn once, and whose length is then learned from, cannot be the shorter for a stop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "fetch", lambda answer, timeout_s: answer.value)
        patch.setattr(ahead_module, "LOOK_S", 0.01)
        run = Run(World(random.Random(seed)), bound, actors, tmp_path_factory.mktemp("run") / "waiting.pkl")
        for stop_at, when in [*sorted(stops), (STEPS, "never")]:
            run.go_on(stop_at, when)
    assert [group.prompt.id for group in run.learned] == [f"p{n}" for n in range(run.cursor)]
    for group in run.learned:
        lengths = [len(response.token_ids) for response in group.responses]
        assert lengths == [run.world.lengths[group.prompt.id, index] for index in range(GROUP)]
    assert len(run.world.lengths) == GROUP * run.cursor, "nothing was begun that was not learned from"


def test_what_was_begun_is_sampled_again_where_the_bound_or_the_token_limit_is_another_now(tmp_path: Path) -> None:
    places = [A_STEP * (5 + ahead) for ahead in (0, 1)]
    begun = [Waiting(place, *requests(place, 1), pieces=(piece(version=4),)) for place in places]

    def write(folder: Path) -> Saved:
        (folder / "weights").write_text("w")
        save_waiting(folder / WAITING, Begun(replace(PARAMS, max_new_tokens=100), A_STEP * 5, tuple(begun)))
        return Saved(1, 0, ["weights", WAITING])

    progress = Progress(step=5, cursor=A_STEP * 5, updates=5)
    save_checkpoint(tmp_path, 5, {"step": 5}, write, keep=1)
    run = cast(RunDirectory, SimpleNamespace(checkpoints=tmp_path))
    for bound, limit, kept, key in [
        (2, 100, begun, None),
        (1, 100, begun[:1], "1 of 2 .*rollout.max_staleness"),
        (0, 100, [], "2 of 2 .*rollout.max_staleness"),
        (2, 99, [], "2 of 2 .*rollout.max_new_tokens"),
    ]:
        said: list[str] = []
        found = begun_before(run, recipe_of(bound, limit), progress, lambda place: requests(place, 1)[0], said.append)
        assert found and [item.position for item in found.waiting] == [item.position for item in kept]
        assert re.search(key, said[0]) if key else not said
    # Rows that were put in front, say: what was sampled for one prompt is no other's response.
    said = []
    found = begun_before(run, recipe_of(2), progress, lambda place: requests(place - 1, 1)[0], said.append)
    assert found and not found.waiting and "2 of 2" in said[0] and "the data has other prompts there now" in said[0]


def test_a_step_that_was_stopped_in_a_refill_keeps_what_is_learned_from_after_it() -> None:
    recipe, progress = recipe_of(1), Progress(step=2, cursor=6, updates=2)
    beyond = [Waiting(place, *requests(place, 1), pieces=(piece(version=2),)) for place in (9, 11, 12, 14, 15)]
    fresh = [item.position for item in beyond if fresh_enough(item, recipe, progress, asked=12)]
    # The next step takes 6 to 11, the one after it 12 to 14.
    assert fresh == [9, 11, 12, 14]


def test_what_a_reward_failed_at_is_judged_again() -> None:
    def sampled(*errors: str | None) -> Any:
        judged: Future[Group] = Future()
        response = Response((), "x", "stop")
        judged.set_result(Group(Prompt("p", ()), (), tuple(replace(response, reward_error=item) for item in errors)))
        judging: Future[Future[Group]] = Future()
        judging.set_result(judged)
        return ahead_module._Sampled(judged.result(), judging)

    assert sampled(None, None).judged is not None
    assert sampled(None, "raised ValueError").judged is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / WAITING).write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"waiting.pkl: cannot be read .*delete it"):
        load_waiting(tmp_path / WAITING)


def piece(version: int) -> Piece:
    return Piece(ResponseId("p", 0, 0), (Segment(np.zeros(1), np.zeros(1), weights_version=version),), "", "paused")
