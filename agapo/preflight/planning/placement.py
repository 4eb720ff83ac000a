"""Where a recipe's ranks and actors land on a described cluster: the run's own bundles (`agapo.placement`), packed.

apart     ranks host after host, and then actors, each whole on a host
shared    shares of a GPU: actor i beside rank i
by turns  SFT and preference learning: ranks and actors have the same GPUs, one after the other
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from agapo.errors import UserError
from agapo.placement import Bundles, divide
from agapo.preflight.sampling import Trained
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


def shares(asked: Asked) -> bool:
    """Return whether an actor has room on the GPU of a rank, while that is there."""
    return not asked.by_turns and 0 < asked.gpus_per_actor < 1 and asked.gpus_per_rank + asked.gpus_per_actor <= 1


def place(asked: Asked, cluster: DescribedCluster) -> Placement:
    """Return where everything lands. Raises UserError where it cannot: the keys, and the mend."""
    _require_sensible(asked, cluster)
    ranks, actors = (asked.ranks, asked.gpus_per_rank), (asked.actors, asked.gpus_per_actor)
    try:
        if asked.by_turns:
            spots = _reserved(divide(*ranks, 0, 0), cluster).ranks, _reserved(divide(0, 0, *actors), cluster).actors
        else:
            spots = _reserved(divide(*ranks, *actors), cluster)
    except _NoRoom:
        raise UserError(_too_few(asked, cluster)) from None
    on_cpus = [] if asked.gpus_per_actor else [Spot(number % cluster.hosts, ()) for number in range(asked.actors)]
    return Placement(spots[0], spots[1] or on_cpus, asked.by_turns)


def _require_sensible(asked: Asked, cluster: DescribedCluster) -> None:
    key = f"{asked.section}.gpus_per_rank"
    if not asked.gpus_per_rank:
        raise UserError(f"{key}: 0, so that the recipe trains on CPUs, and a plan is about GPUs; set it to 1")
    if asked.gpus_per_rank > 1:
        raise UserError(f"{key}: {asked.gpus_per_rank:g}, and a rank computes on one GPU; set it to 1")
    if asked.gpus_per_actor > cluster.gpus_per_host:
        raise UserError(
            f"rollout.gpus_per_actor: {asked.gpus_per_actor:g}, and an actor's GPUs lie on one host, which has "
            f"gpus_per_host {cluster.gpus_per_host}; lower it and rollout.vllm.tensor_parallel"
        )


class _NoRoom(Exception):
    """A bundle that no host has the GPUs for."""


class _Spots(NamedTuple):
    ranks: list[Spot]
    actors: list[Spot]


def _reserved(bundles: Bundles, cluster: DescribedCluster) -> _Spots:
    """Give each bundle GPUs of one host: the first that has them, as Ray packs them. Raises _NoRoom."""
    free = [list(range(cluster.gpus_per_host)) for _ in range(cluster.hosts)]
    places = [_take(free, int(gpus)) for gpus in bundles.gpus]
    return _Spots([places[number] for number in bundles.ranks], [places[number] for number in bundles.actors])


def _take(free: list[list[int]], count: int) -> Spot:
    for host, gpus in enumerate(free):
        if len(gpus) >= count:
            return Spot(host, tuple(gpus.pop(0) for _ in range(count)))
    raise _NoRoom


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
