"""Which GPU each process of a run is given: one placement group of Ray's a run, where there are GPUs.

    apart     rank 0 │ rank 1 │ … │ actor 0 │ actor 1 │ …     each with GPUs of its own
    shared    rank 0, actor 0 │ rank 1, actor 1 │ …           a GPU for both (`gpus_per_rank` + `gpus_per_actor` ≤ 1)

Ranks come first and are packed on few hosts; no two of them are ever on one GPU, whatever their share of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from agapo.errors import UserError
from agapo.recipe import DPORecipe, RLRecipe, SFTRecipe

CPUS = 0.1
"""Of a process, as Ray counts them: small, so that they do not decide what fits."""
PATIENCE_S = 60.0
"""A cluster that starts hosts when they are wanted does so in longer; it says so itself."""


@dataclass(frozen=True)
class Bundles:
    """What is reserved together: GPUs of one host."""

    gpus: tuple[float, ...]
    """Of each bundle."""
    ranks: tuple[int, ...]
    """Each rank's bundle."""
    actors: tuple[int, ...]
    """Each actor's bundle."""


def divide(ranks: int, gpus_per_rank: float, actors: int, gpus_per_actor: float) -> Bundles:
    """Return a run's bundles; processes without a GPU are in none."""
    gpus: list[float] = []
    room: list[float] = []
    """Left for actors."""

    def opened(used: float) -> int:
        gpus.append(float(math.ceil(used)))
        room.append(math.ceil(used) - used)
        return len(gpus) - 1

    places = [opened(gpus_per_rank) for _ in range(ranks)] if gpus_per_rank else []
    found: list[int] = []
    for _ in range(actors if gpus_per_actor else 0):
        # An actor of one share goes to the GPU with the most room, so that each rank has one before any has two.
        best = max(range(len(room)), key=lambda bundle: room[bundle], default=None)
        if gpus_per_actor < 1 and best is not None and room[best] >= gpus_per_actor - 1e-9:
            room[best] -= gpus_per_actor
            found.append(best)
        else:
            found.append(opened(gpus_per_actor))
    return Bundles(tuple(gpus), tuple(places), tuple(found))


def gpus_needed(recipe: RLRecipe | SFTRecipe | DPORecipe) -> list[tuple[float, str]]:
    """Return the GPUs that a run reserves at a time, each count with the keys that say so.

    In RL ranks and actors are there together; in the other stages they take turns.
    """
    rollout = recipe.rollout
    if isinstance(recipe, RLRecipe):
        own = recipe.learner
        gpus = sum(divide(own.ranks, own.gpus_per_rank, rollout.actors, rollout.gpus_per_actor).gpus)
        return [(gpus, "learner.gpus_per_rank, rollout.gpus_per_actor")]
    own = recipe.training
    return [
        (own.ranks * own.gpus_per_rank, "training.ranks × gpus_per_rank"),
        (rollout.actors * rollout.gpus_per_actor, "rollout.actors × gpus_per_actor"),
    ]


def anywhere(gpus: float = 0) -> dict[str, Any]:
    """Return the options of an actor that Ray may put where it likes, on another host than the one before."""
    return {"num_cpus": CPUS, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}


class Placement:
    """A run's reserved GPUs, and what Ray is told of each process."""

    def __init__(self, *, ranks: int = 0, gpus_per_rank: float = 0, actors: int = 0, gpus_per_actor: float = 0):
        """Reserve GPUs for them. Raises UserError where the cluster does not have them so."""
        self._gpus_per_rank, self._gpus_per_actor = gpus_per_rank, gpus_per_actor
        self._bundles = divide(ranks, gpus_per_rank, actors, gpus_per_actor)
        self._group: PlacementGroup | None = _reserve(self._bundles) if self._bundles.gpus else None

    def rank(self, number: int) -> Mapping[str, Any]:
        """Return the options of a rank's actor."""
        if not self._gpus_per_rank:
            return {"num_cpus": CPUS}
        return self._options(self._bundles.ranks, number, self._gpus_per_rank)

    def actor(self, number: int) -> Mapping[str, Any]:
        """Return the options of a rollout actor; one that is started in another's place gets its GPU."""
        if not self._gpus_per_actor:
            return anywhere()
        return self._options(self._bundles.actors, number, self._gpus_per_actor)

    def _options(self, places: Sequence[int], number: int, gpus: float) -> dict[str, Any]:
        assert self._group
        where = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=places[number])
        return {"num_cpus": CPUS, "num_gpus": gpus, "scheduling_strategy": where}

    def close(self) -> None:
        """Give the GPUs back; what still runs on them is ended."""
        if self._group:
            remove_placement_group(self._group)


def _reserve(bundles: Bundles) -> PlacementGroup:
    processes = [bundles.ranks.count(number) + bundles.actors.count(number) for number in range(len(bundles.gpus))]
    wanted = [{"GPU": gpus, "CPU": CPUS * count} for gpus, count in zip(bundles.gpus, processes, strict=True)]
    group = placement_group(wanted, strategy="PACK")
    try:
        ray.get(group.ready(), timeout=PATIENCE_S)
    except GetTimeoutError:
        remove_placement_group(group)
        hosts = ", ".join(f"{node['Resources'].get('GPU', 0):g}" for node in ray.nodes() if node["Alive"])
        raise UserError(
            f"gpus_per_rank, gpus_per_actor: no room for {_listed(bundles.gpus)} together on hosts with {hosts} GPUs, "
            "of which others may use some; lower ranks, actors or vllm.tensor_parallel"
        ) from None
    return group


def _listed(gpus: Sequence[float]) -> str:
    counts = {size: gpus.count(size) for size in sorted(set(gpus), reverse=True)}
    return " and ".join(
        f"{count} × {size:g} GPU{'s on one host' if size > 1 else ''}" for size, count in counts.items()
    )
