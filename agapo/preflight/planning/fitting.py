"""Whether a recipe fits a described cluster: each GPU, each host, and what an engine spread over GPUs asks for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agapo.errors import UserError
from agapo.model.memory import GIB, FineTuningSetup, Memory, training_memory
from agapo.model.rl_memory import handed_over
from agapo.model.sizes import ModelSizes
from agapo.preflight import model, rl
from agapo.preflight.model import Change
from agapo.preflight.planning.placement import Placement, asked_by, place
from agapo.preflight.sampling import (
    Trained,
    actor_memory,
    actor_verdict,
    fewer_prompts,
    number_bytes,
    room_for_actor,
    vllm_lacks,
    vllm_weights,
)
from agapo.recipe import DescribedCluster, DPORecipe, RLRecipe, SFTRecipe


@dataclass(frozen=True)
class Case:
    """A recipe on a described cluster, whose GPUs it takes for its own."""

    recipe: Trained
    sizes: ModelSizes
    cluster: DescribedCluster
    placement: Placement

    @property
    def setup(self) -> FineTuningSetup:
        """What the memory and the work of the ranks depend on."""
        if isinstance(self.recipe, RLRecipe):
            return rl.learner_setup(self.recipe, self.sizes)
        return model.setup_of(self.recipe, self.sizes)

    @property
    def rank_memory(self) -> Memory:
        """Of a rank."""
        if isinstance(self.recipe, RLRecipe):
            return rl.rank_memory(self.recipe, self.sizes, self.setup)
        return training_memory(self.sizes, self.setup)

    @property
    def sleeps(self) -> bool:
        """Whether actors leave the GPUs that they share to the ranks, and come back."""
        return self.recipe.rollout.sleep_while_learning and self.placement.shared


def case_of(recipe: Trained, sizes: ModelSizes, cluster: DescribedCluster) -> Case:
    """Return the case with everything placed. Raises UserError where it cannot be."""
    own = recipe.rollout
    if own.engine == "vllm" and sizes.heads % own.vllm.tensor_parallel:
        raise UserError(
            f"rollout.vllm.tensor_parallel: {own.vllm.tensor_parallel} does not divide the {sizes.heads} heads of the "
            "model; set it to a number that does"
        )
    placement = place(asked_by(recipe), cluster)
    if placement.hosts > 1 and recipe.cluster.address is None:
        raise UserError(
            f"cluster.address: null starts Ray on one machine, and the recipe takes {placement.hosts} hosts; set it to "
            "auto"
        )
    return Case(on_gpus_of(recipe, cluster.gpu_gib), sizes, cluster, placement)


def on_gpus_of(recipe: Trained, gib: float) -> Trained:
    """Return the recipe for GPUs with another memory."""
    name = asked_by(recipe).section
    section = getattr(recipe, name).model_copy(update={"gpu_gib": gib})
    return recipe.model_copy(update={name: section})


def misfits(case: Case) -> list[str]:
    """Return what does not fit, one line each with the mend."""
    gpu = f"a GPU of {case.cluster.gpu_gib:g} GiB"
    return [*(f"{gpu}: {text}" for text in _gpu_misfits(case.recipe, case.sizes)), *_host_misfits(case)]


def _gpu_misfits(recipe: Trained, sizes: ModelSizes) -> Iterator[str]:
    if isinstance(recipe, RLRecipe):
        if vllm_lacks(recipe, sizes) > 0 or rl.room_left(recipe, sizes) < 0:
            yield rl.gpu_verdict(recipe, sizes)
        return
    if model.room_left(recipe, sizes) < 0:
        yield model.gpu_verdict(recipe, sizes)
    if room_for_actor(recipe, sizes) < 0:
        yield f"sampling {actor_verdict(recipe, sizes)}"


def changes_of(recipe: Trained, sizes: ModelSizes) -> list[Change]:
    """Return what makes the recipe take less of a GPU, the cheapest first."""
    if isinstance(recipe, RLRecipe):
        return rl.memory_changes(recipe, sizes)
    return [*_fewer(recipe, sizes), *model.memory_changes(recipe, sizes)]


def _fewer(recipe: SFTRecipe | DPORecipe, sizes: ModelSizes) -> Iterator[Change]:
    def fits(count: int) -> bool:
        return room_for_actor(recipe, sizes, count) >= 0

    if not fits(0) and (fewer := fewer_prompts(recipe, fits)):
        yield fewer[0], {"chunk_prompts": fewer[1]}


def room(recipe: Trained, sizes: ModelSizes, change: dict[str, Any]) -> float:
    """Return the bytes that a change leaves on the fullest GPU; below 0 it does not fit."""
    if isinstance(recipe, RLRecipe):
        return min(rl.room_left(recipe, sizes, **change), -vllm_lacks(recipe, sizes))
    setup = {key: value for key, value in change.items() if key != "chunk_prompts"}
    sampling = room_for_actor(recipe, sizes, change.get("chunk_prompts", 0))
    return min(sampling, model.room_left(recipe, sizes, **setup))


# --- hosts ---


def host_bytes(case: Case) -> dict[int, float]:
    """Return the bytes of each host that has something to do, by its number.

    Of ranks, what is offloaded; of RL the weights that travel through the host, in the first rank's buffer and in Ray's
    object store on its host and on each with actors; of actors without a GPU all that they hold, and of those that
    sleep their weights.
    """
    placement = case.placement
    of_rank = case.rank_memory.host_bytes
    ranks = {spot.host: 0.0 for spot in (*placement.ranks, *placement.actors)}
    actors = dict(ranks)
    for spot in placement.ranks:
        ranks[spot.host] += of_rank
    for spot in placement.actors:
        actors[spot.host] += _asleep(case) if spot.gpus else _actor_on_host(case)
    if placement.by_turns:
        return {host: max(ranks[host], actors[host]) for host in ranks}
    handed = handed_over(case.sizes, case.setup) if case.recipe.rollout.weight_transport == "host" else 0
    first = placement.ranks[0].host
    stored = {first, *(spot.host for spot in placement.actors)}
    return {host: ranks[host] + actors[host] + handed * ((host in stored) + (host == first)) for host in ranks}


def _asleep(case: Case) -> float:
    return number_bytes(case.recipe) * case.sizes.parameters if case.sleeps else 0.0


def _actor_on_host(case: Case) -> float:
    memory = actor_memory(case.recipe, case.sizes)
    if memory:
        return memory.gpu_bytes
    return vllm_weights(case.recipe, case.sizes) + case.recipe.rollout.vllm.cache_gib * GIB


def _host_misfits(case: Case) -> Iterator[str]:
    room, offload = case.cluster.host_gib * GIB, f"{asked_by(case.recipe).section}.offload"
    for host, held in host_bytes(case).items():
        if held > room:
            mend = f"take more ranks over more hosts, or {offload}=false" if case.setup.offload else "take fewer actors"
            yield (
                f"host {host + 1} of {case.cluster.host_gib:g} GiB: does not fit: {(held - room) / GIB:.1f} GiB too "
                f"much; {mend}"
            )
            return
