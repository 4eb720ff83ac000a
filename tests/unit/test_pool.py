"""The supervisor of the rollout actors, with actors that come when the test says so, and no Ray."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ObjectLostError, RayActorError

from agapo.errors import ProcessDied, UserError
from agapo.rollouts import pool as supervisor
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import SamplingParams
from agapo.rollouts.pool import RolloutPool

PENDING = object()
PARAMS = SamplingParams(group_size=2, max_new_tokens=1)


class Reference:
    """What a call returns; its answer is there when its actor has come so far."""

    def __init__(self, answer: Any):
        self.answer = answer

    def get(self) -> Any:
        return self.answer() if callable(self.answer) else self.answer


class Actor:
    """An actor that has no host until the test gives it one."""

    def __init__(self, node: str | None):
        self.node, self.host, self.death = node, PENDING, None
        self.versions, self.killed = list[int](), False
        self.place = SimpleNamespace(remote=lambda: Reference(lambda: self.death or self.host))
        self.load = SimpleNamespace(remote=lambda: Reference(lambda: self.death or self.done()))
        self.update_weights = SimpleNamespace(remote=self._update)
        self.drop = SimpleNamespace(remote=lambda: None)
        self.sleep, self.wake = (SimpleNamespace(remote=lambda to=to: self._turn(to)) for to in ("asleep", "awake"))
        self.state = "awake"

    def done(self) -> Any:
        return PENDING if self.host is PENDING else None

    def _turn(self, to: str) -> Reference:
        self.state = to
        return Reference(lambda: self.death)

    def _update(self, weights: Any, version: int) -> Reference:
        self.weights = weights
        self.versions.append(version)
        return Reference(lambda: self.death or self.done())


class Pool(RolloutPool):
    def _start(self, number: int, node: str | None) -> Actor:
        return Actor(node)


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Hosts `a` and `b` with room for two actors each, as far as they are there."""
    there = SimpleNamespace(hosts=["a", "b"])

    def wait(references: list[Reference], timeout: float, num_returns: int = 1) -> tuple[list[Reference], list[Any]]:
        return [item for item in references if item.get() is not PENDING], []

    def fetch(reference: Reference, timeout_s: float | None = None) -> Any:
        found = reference.get()
        if isinstance(found, Exception):
            raise found
        return found

    def kill(actor: Actor) -> None:
        actor.killed = True

    ray = SimpleNamespace(wait=wait, kill=kill, ObjectRef=str, put=lambda weights: weights)
    monkeypatch.setattr(supervisor, "ray", ray)
    monkeypatch.setattr(supervisor, "fetch", fetch)
    monkeypatch.setattr(supervisor, "cluster_nodes", lambda: there.hosts)
    monkeypatch.setattr(supervisor, "room_on_nodes", lambda **_: dict.fromkeys(there.hosts, 2))
    yield there


def start(*hosts: str) -> Pool:
    """A pool whose actors are ready, one on each of the hosts."""
    pool = Pool(EngineSettings("m"), actors=len(hosts))
    for actor, host in zip(pool.actors, hosts, strict=True):
        actor.host = host
    pool.wait_ready()
    return pool


def between_two_calls(pool: Pool) -> None:
    list(pool.generate([], PARAMS, chunk_prompts=1))


def test_nobody_waits_for_an_actor_that_finds_no_room() -> None:
    pool = start("a", "b")
    pool.replace(1)
    pool.set_weights("weights", 1)
    pool.look()
    assert (pool.is_ready(0), pool.is_ready(1)) == (True, False)
    assert pool.nodes == ["a", None]
    pool.actors[1].host = "b"
    pool.look()
    assert pool.is_ready(1) and pool.nodes == ["a", "b"]
    assert pool.actors[1].versions == [1]
    assert pool.restarts == 1


def test_a_replaced_actor_is_ended_and_the_new_one_gets_the_newest_weights() -> None:
    pool = start("a")
    pool.set_weights("weights", 7)
    old = pool.actors[0]
    pool.replace(0)
    assert old.killed and pool.actors[0].node is None
    pool.actors[0].host = "b"
    pool.look()
    assert pool.is_ready(0) and pool.actors[0].versions == [7]


def test_an_actor_moves_to_a_host_that_is_back_and_works_till_then(cluster: SimpleNamespace) -> None:
    cluster.hosts = ["a"]
    pool = start("a", "a")
    between_two_calls(pool)
    assert not pool._moving, "there is nowhere to go"
    cluster.hosts = ["a", "b"]
    old = pool.actors[1]
    between_two_calls(pool)
    newcomer = pool._moving[1].actor
    assert newcomer.node == "b"
    pool.set_weights("weights", 3)
    between_two_calls(pool)
    assert pool.actors[1] is old and pool.is_ready(1) and not old.killed
    newcomer.host = "b"
    pool.look()
    between_two_calls(pool)
    assert pool.actors[1] is newcomer and old.killed
    assert newcomer.versions[-1] == 3
    assert pool.nodes == ["a", "b"] and not pool._moving and pool.restarts == 0


def test_a_newcomer_that_dies_leaves_the_old_one_where_it_is(cluster: SimpleNamespace) -> None:
    pool = start("a", "a")
    between_two_calls(pool)
    old = pool.actors[1]
    pool._moving[1].actor.death = RayActorError()
    pool.look()
    assert not pool._moving and pool.actors[1] is old and pool.restarts == 0


def test_who_dies_while_another_is_on_the_way_is_followed_by_that_one() -> None:
    pool = start("a", "a")
    between_two_calls(pool)
    newcomer = pool._moving[1].actor
    pool.replace(1)
    assert pool.actors[1] is newcomer and not pool._moving


def test_an_actor_that_dies_over_new_weights_is_replaced() -> None:
    pool = start("a", "b")
    dead = pool.actors[1]
    dead.death = RayActorError()
    pool.set_weights("weights", 1)
    assert pool.actors[1] is not dead and pool.is_ready(0)


def test_weights_that_are_lost_with_their_host_are_the_learners_death() -> None:
    pool = start("a")
    pool.actors[0].death = ObjectLostError("00" * 28, None, "")
    with pytest.raises(ProcessDied, match="the host that had the newest weights is gone"):
        pool.set_weights("weights", 1)


def test_a_run_that_no_host_has_room_for_ends() -> None:
    pool = start("a")
    pool.chunk_timeout_s = 0.0
    pool.replace(0)
    with pytest.raises(UserError, match=r"rollout\.actors: no host of the cluster has had room"):
        while True:
            pool.look()


def test_who_comes_later_gets_weights_that_were_sent_once_in_another_way() -> None:
    pool, made = start("a", "b"), list[str]()

    def again() -> str:
        made.append("made")
        return "again"

    pool.replace(1)
    pool.set_weights("sent", 1, again)
    assert pool.actors[0].weights == "sent" and not made
    pool.actors[1].host = "b"
    pool.look()
    assert pool.is_ready(1) and pool.actors[1].weights == "again"
    pool.replace(0)
    pool.actors[0].host = "a"
    pool.look()
    assert pool.is_ready(0) and pool.actors[0].weights == "again" and made == ["made"]


def test_who_is_told_of_new_weights_before_it_has_loaded_gets_the_newest_alone() -> None:
    pool = start("a", "b")
    pool.replace(1)
    for version in (1, 2, 3):
        pool.set_weights("weights", version)
    assert not pool.all_ready
    pool.actors[1].host = "b"
    pool.look()
    assert pool.all_ready and pool.actors[1].versions == [3]


def test_an_actor_with_a_place_in_a_placement_group_does_not_move(cluster: SimpleNamespace) -> None:
    placement: Any = SimpleNamespace(actor=lambda number: {"place": number})
    pool = Pool(EngineSettings("m"), actors=2, gpus_per_actor=1, placement=placement)
    for actor in pool.actors:
        actor.host = "a"
    pool.wait_ready()
    between_two_calls(pool)
    assert not pool._moving


def test_who_dies_over_going_to_sleep_is_followed_by_one_that_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = start("a", "b")
    dead = pool.actors[1]
    dead.death = RayActorError()
    real = pool._start

    def start_on_b(number: int, node: str | None) -> Actor:
        actor = real(number, node)
        actor.host = "b"
        return actor

    monkeypatch.setattr(pool, "_start", start_on_b)
    with pool.asleep():
        assert pool.actors[1] is not dead
        assert [actor.state for actor in pool.actors] == ["asleep", "asleep"]
    assert [actor.state for actor in pool.actors] == ["awake", "awake"] and pool.restarts == 1


def test_weights_that_somebody_still_reads_are_waited_for() -> None:
    pool, reading = start("a", "b"), [True] * 3
    pool.set_weights("weights", 1)
    pool.replace(1)
    late = pool.actors[1]
    late.host = "b"
    late.update_weights.remote = lambda *_: Reference(lambda: PENDING if reading and reading.pop() else None)
    pool.look()
    assert not pool.is_ready(1)
    pool.finish_hand_overs()
    assert pool.is_ready(1) and not reading
