"""Where a recipe's ranks and actors land on a described cluster, as a placement group would put them (DESIGN §8).

    apart     ranks packed, host after host; each actor whole on the host with most GPUs left
    shared    halves of a GPU: actor i beside rank i
    by turns  SFT and preference learning: ranks and actors have the same GPUs, one after the other

A rank has a GPU to itself among ranks: two processes of a group cannot be on one (NCCL refuses).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from math import ceil

from agapo.errors import UserError
from agapo.preflight.sampling import Trained, actors_beside
from agapo.recipe import DescribedCluster, RLRecipe


@dataclass(frozen=True)
class Spot:
    """The GPUs of a rank or an actor, numbered within their host; none where it has none."""

    host: int
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """Where each rank and each actor is."""

    ranks: list[Spot]
    actors: list[Spot]
    by_turns: bool
    """Whether actors are gone while ranks are there."""

    @property
    def shared(self) -> bool:
        """Whether actors and ranks are on the same GPUs at the same time."""
        return not self.by_turns and bool(set(_each_gpu(self.ranks)) & set(_each_gpu(self.actors)))

    @property
    def hosts(self) -> int:
        """Hosts that have something to do."""
        return len({spot.host for spot in (*self.ranks, *self.actors)})

    @property
    def gpus(self) -> int:
        """GPUs that have something to do."""
        return len(set(_each_gpu([*self.ranks, *self.actors])))

    @property
    def gpus_an_actor(self) -> float:
        """GPUs for each actor; less than one where several are on the same."""
        return len(set(_each_gpu(self.actors))) / len(self.actors)

    @property
    def rank_hosts(self) -> int:
        """Hosts that have ranks."""
        return len({spot.host for spot in self.ranks})


def _each_gpu(spots: Iterable[Spot]) -> Iterator[tuple[int, int]]:
    return ((spot.host, gpu) for spot in spots for gpu in spot.gpus)


@dataclass(frozen=True)
class Asked:
    """What a recipe asks for."""

    section: str
    """`learner` or `training`."""
    ranks: int
    gpus_per_rank: float
    actors: int
    gpus_per_actor: float
    by_turns: bool


def asked_by(recipe: Trained) -> Asked:
    """Return what a recipe asks for."""
    own, rollout = recipe.learner if isinstance(recipe, RLRecipe) else recipe.training, recipe.rollout
    rl = isinstance(recipe, RLRecipe)
    section = "learner" if rl else "training"
    return Asked(section, own.ranks, own.gpus_per_rank, rollout.actors, rollout.gpus_per_actor, by_turns=not rl)


def place(asked: Asked, cluster: DescribedCluster) -> Placement:
    """Return where everything lands. Raises UserError where it cannot: the keys, and the mend."""
    _require_sensible(asked, cluster)
    free = [list(range(cluster.gpus_per_host)) for _ in range(cluster.hosts)]
    ranks = [_take(free, 1, packed=True) for _ in range(asked.ranks)]
    if None in ranks:
        raise UserError(_too_few(asked, cluster))
    taken = [spot for spot in ranks if spot]
    if asked.by_turns:
        free = [list(range(cluster.gpus_per_host)) for _ in range(cluster.hosts)]
    actors = [*_beside(asked, taken)]
    actors += _alone(asked, free, asked.actors - len(actors), cluster)
    return Placement(taken, actors, asked.by_turns)


def _require_sensible(asked: Asked, cluster: DescribedCluster) -> None:
    key = f"{asked.section}.gpus_per_rank"
    if not asked.gpus_per_rank:
        raise UserError(f"{key}: 0, so that the recipe trains on CPUs, and a plan is about GPUs; set it to 1")
    if asked.gpus_per_rank > 1:
        raise UserError(f"{key}: {asked.gpus_per_rank:g}, and a rank computes on one GPU; set it to 1")
    alone = asked.by_turns or not actors_beside(asked.gpus_per_rank, asked.gpus_per_actor)
    if alone and asked.ranks > 1 and asked.gpus_per_rank <= 0.5:
        raise UserError(f"{key}: {asked.gpus_per_rank:g}, so that ranks share a GPU, which NCCL refuses; set it to 1")
    if asked.gpus_per_actor > cluster.gpus_per_host:
        raise UserError(
            f"rollout.gpus_per_actor: {asked.gpus_per_actor:g}, and an actor's GPUs lie on one host, which has "
            f"gpus_per_host {cluster.gpus_per_host}; lower it and rollout.vllm.tensor_parallel"
        )


def _beside(asked: Asked, ranks: list[Spot]) -> list[Spot]:
    """Return the actors that are on the GPU of a rank: each rank's first one, then each rank's second one."""
    each = 0 if asked.by_turns else actors_beside(asked.gpus_per_rank, asked.gpus_per_actor)
    return (ranks * each)[: asked.actors]


def _alone(asked: Asked, free: list[list[int]], actors: int, cluster: DescribedCluster) -> list[Spot]:
    """Return actors on GPUs without a rank, several on one where they are asked by shares."""
    share = asked.gpus_per_actor
    if not share:
        return [Spot(number % cluster.hosts, ()) for number in range(actors)]
    each = max(1, int(1 / share))
    spots = [_take(free, ceil(share), packed=False) for _ in range(ceil(actors / each))]
    if None in spots:
        raise UserError(_too_few(asked, cluster))
    return [spot for spot in spots if spot for _ in range(each)][:actors]


def _take(free: list[list[int]], count: int, *, packed: bool) -> Spot | None:
    """Take GPUs of one host: the first that has them, or the one with most left."""
    hosts = [host for host, gpus in enumerate(free) if len(gpus) >= count]
    if not hosts:
        return None
    host = hosts[0] if packed else max(hosts, key=lambda host: len(free[host]))
    return Spot(host, tuple(free[host].pop(0) for _ in range(count)))


def _too_few(asked: Asked, cluster: DescribedCluster) -> str:
    ranks = f"{asked.section}.ranks {asked.ranks} × gpus_per_rank {asked.gpus_per_rank:g}"
    actors = f"rollout.actors {asked.actors} × gpus_per_actor {asked.gpus_per_actor:g}"
    return (
        f"{ranks} {'or' if asked.by_turns else 'and'} {actors}: more GPUs than hosts {cluster.hosts} × gpus_per_host "
        f"{cluster.gpus_per_host} can give them; lower {asked.section}.ranks or rollout.actors"
    )


# --- in words ---


def spots_text(spots: list[Spot]) -> str:
    """Return `host 1: GPU 0–7; host 2: GPU 0–3, 4–7`, hosts counted from 1."""
    by_host = groupby(sorted(spots, key=lambda spot: (spot.host, spot.gpus)), key=lambda spot: spot.host)
    return "; ".join(f"host {host + 1}: {_gpus_text([*found])}" for host, found in by_host)


def _gpus_text(spots: list[Spot]) -> str:
    if not spots[0].gpus:
        return f"{len(spots)} on its CPUs"
    if all(len(spot.gpus) == 1 for spot in spots):
        # One each: all of them as one range, and how often each is there.
        gpus = sorted({spot.gpus[0] for spot in spots})
        return f"GPU {_range(gpus)}" + (f" ({len(spots)} of them)" if len(spots) > len(gpus) else "")
    return f"GPU {', '.join(_range(list(spot.gpus)) for spot in spots)}"


def _range(gpus: list[int]) -> str:
    if gpus == list(range(gpus[0], gpus[-1] + 1)):
        return f"{gpus[0]}–{gpus[-1]}" if len(gpus) > 1 else str(gpus[0])
    return ", ".join(map(str, gpus))
