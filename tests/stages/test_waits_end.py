"""Every wait has an end: a rank or an actor that hangs is named, or replaced."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray

from agapo.errors import ProcessDied, UserError
from agapo.learner.rl.group import LearnerGroup
from agapo.recipe.learner import LearnerConfig
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.pool import RolloutPool
from tests.fakes.hanging import Worker

pytestmark = pytest.mark.usefixtures("shared_ray")


def start(*, hangs: bool) -> Any:
    return ray.remote(Worker).options(num_cpus=0).remote(hangs)


@pytest.mark.parametrize(
    ("phase", "call"),
    [
        ("make its update", lambda group: group.update([], denominator=1.0, learning_rate=1.0)),
        ("hand over its weights", lambda group: group.weights()),
    ],
)
def test_a_hanging_rank_is_named_with_the_phase(phase: str, call: Any) -> None:
    group = LearnerGroup.__new__(LearnerGroup)
    group._settings = cast(Any, SimpleNamespace(learner=LearnerConfig(timeout_s=2)))
    group._ranks = [start(hangs=False), start(hangs=True)]
    ray.get([worker.drop.remote() for worker in group._ranks])
    try:
        with pytest.raises(ProcessDied, match=rf"learner rank 1 did not {phase} within 2 s \(learner.timeout_s\)"):
            call(group)
    finally:
        group.close()


class Actors(RolloutPool):
    """A pool whose first so many actors hang."""

    def __init__(self, hanging: int, **settings: Any):
        self.hanging = hanging
        super().__init__(cast(Any, None), actors=1, **settings)

    def _start(self, number: int, node: str | None) -> Any:
        self.hanging -= 1
        return start(hangs=self.hanging >= 0)


def test_an_actor_that_hangs_over_new_weights_is_replaced() -> None:
    pool = Actors(hanging=1, chunk_timeout_s=5)
    pool.wait_ready()
    pool.set_weights("weights", 1)
    assert pool.restarts == 1
    assert pool.version == 1
    pool.wait_ready()
    assert pool.is_ready(0)
    pool.close()


def test_actors_that_all_hang_end_the_run() -> None:
    pool = Actors(hanging=9, chunk_timeout_s=5, max_restarts=1)
    pool.wait_ready()
    pool.set_weights("weights", 1)
    with pytest.raises(UserError, match=r"rollout\.max_restarts: 2 rollout actors died or hung"):
        pool.wait_ready()
    pool.close()


def test_actors_that_no_host_has_room_for_end_the_run() -> None:
    pool = RolloutPool(EngineSettings("none"), actors=1, gpus_per_actor=1000, chunk_timeout_s=1)
    with pytest.raises(UserError, match=r"no host of the cluster has had room for a rollout actor for 1 s"):
        pool.wait_ready()
    pool.close()


def test_what_stops_an_actor_from_loading_is_said_as_it_is() -> None:
    pool = RolloutPool(EngineSettings("/nowhere/model"), actors=1)
    with pytest.raises(UserError, match=r"^model\.path: /nowhere/model: no such folder; .*hub name$"):
        pool.wait_ready()
    pool.close()
