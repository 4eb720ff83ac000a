"""Where ranks and actors land on a described cluster, and what is refused."""

from typing import Any

import pytest

from agapo.errors import UserError
from agapo.preflight.planning.placement import Asked, Spot, place, spots_text
from agapo.recipe import DescribedCluster


def cluster(hosts: int = 1, gpus: int = 8) -> DescribedCluster:
    return DescribedCluster(hosts=hosts, gpus_per_host=gpus, gpu_gib=79, host_gib=500, cpus_per_host=64)


def asked(**given: Any) -> Asked:
    base: dict[str, Any] = {"section": "learner", "ranks": 1, "gpus_per_rank": 1, "actors": 1, "gpus_per_actor": 1}
    return Asked(**{**base, "by_turns": False, **given})


def test_ranks_are_packed_and_actors_whole_on_a_host() -> None:
    found = place(asked(ranks=8, actors=2, gpus_per_actor=4), cluster(hosts=2))
    assert found.ranks == [Spot(0, (gpu,)) for gpu in range(8)]
    assert found.actors == [Spot(1, (0, 1, 2, 3)), Spot(1, (4, 5, 6, 7))]
    assert (found.shared, found.hosts, found.gpus, found.rank_hosts) == (False, 2, 16, 1)
    assert found.gpus_an_actor == 4
    assert spots_text(found.ranks) == "host 1: GPU 0–7"
    assert spots_text(found.actors) == "host 2: GPU 0–3, 4–7"


def test_ranks_that_do_not_fill_a_host_leave_room_for_an_actor() -> None:
    found = place(asked(ranks=10, actors=1, gpus_per_actor=4), cluster(hosts=2))
    assert found.rank_hosts == 2
    assert found.actors == [Spot(1, (2, 3, 4, 5))]
    assert spots_text(found.ranks) == "host 1: GPU 0–7; host 2: GPU 0–1"


def test_halves_put_actor_i_beside_rank_i() -> None:
    found = place(asked(ranks=4, gpus_per_rank=0.5, actors=4, gpus_per_actor=0.5), cluster())
    assert found.shared and found.actors == found.ranks
    assert found.gpus == 4
    assert found.gpus_an_actor == 1
    quarters = place(asked(ranks=2, gpus_per_rank=0.5, actors=5, gpus_per_actor=0.25), cluster())
    assert [spot.gpus for spot in quarters.actors] == [(0,), (1,), (0,), (1,), (2,)]
    assert quarters.ranks == [Spot(0, (0,)), Spot(0, (1,))]
    assert quarters.gpus_an_actor == 3 / 5
    assert spots_text(quarters.actors) == "host 1: GPU 0–2 (5 of them)"


def test_by_turns_ranks_and_actors_have_the_same_gpus() -> None:
    found = place(asked(section="training", ranks=8, actors=2, gpus_per_actor=4, by_turns=True), cluster())
    assert (found.gpus, found.shared) == (8, False)
    assert found.actors == [Spot(0, (0, 1, 2, 3)), Spot(0, (4, 5, 6, 7))]


def test_actors_without_a_gpu_are_spread() -> None:
    found = place(asked(actors=3, gpus_per_actor=0), cluster(hosts=2, gpus=1))
    assert [spot.host for spot in found.actors] == [0, 1, 0]
    assert spots_text(found.actors) == "host 1: 2 on its CPUs; host 2: 1 on its CPUs"


@pytest.mark.parametrize(
    ("given", "hosts", "said"),
    [
        (
            {"ranks": 8, "actors": 2, "gpus_per_actor": 4},
            1,
            "learner.ranks 8 × gpus_per_rank 1 and rollout.actors 2 × gpus_per_actor 4: more GPUs than hosts 1 × "
            "gpus_per_host 8 can give them; lower learner.ranks or rollout.actors",
        ),
        ({"ranks": 9}, 1, "learner.ranks 9 × gpus_per_rank 1 and rollout.actors 1"),
        # The second host has room for one of them, and then none has.
        ({"ranks": 3, "actors": 3, "gpus_per_actor": 6}, 2, "rollout.actors 3 × gpus_per_actor 6: more GPUs than"),
        (
            {"ranks": 2, "actors": 1, "gpus_per_actor": 16},
            2,
            "an actor's GPUs lie on one host, which has gpus_per_host",
        ),
        ({"gpus_per_rank": 0}, 1, "learner.gpus_per_rank: 0, so that the recipe trains on CPUs"),
        ({"gpus_per_rank": 2}, 1, "learner.gpus_per_rank: 2, and a rank computes on one GPU; set it to 1"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], hosts: int, said: str) -> None:
    with pytest.raises(UserError) as caught:
        place(asked(**given), cluster(hosts=hosts))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
