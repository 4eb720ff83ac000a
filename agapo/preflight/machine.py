"""The part of `agapo check` that looks at this machine, and at which of two starts a run takes.

A recipe may be looked at where it is not run, so these are warnings.
"""

from collections.abc import Iterator

from agapo.cluster import local_gpus
from agapo.recipe import DPORecipe, RLRecipe, SFTRecipe


def machine_warnings(recipe: RLRecipe | SFTRecipe | DPORecipe) -> Iterator[str]:
    """Yield what a run on this machine would be refused for or leave unused, and which start wins."""
    if recipe.model.path and recipe.model.start:
        yield f"model.path {recipe.model.path} wins over model.start, whose run is not made: leave one of them out"
    if recipe.cluster.address is not None:
        return
    there = local_gpus()
    for gpus, keys in gpus_asked_for(recipe):
        if gpus > there:
            yield f"{keys}: {gpus:g} GPUs are asked for, and this machine has {there:g}: a run here would be refused"
    if there and not any(gpus for gpus, _ in gpus_asked_for(recipe)):
        ranks = "learner" if isinstance(recipe, RLRecipe) else "training"
        yield f"{ranks}.gpus_per_rank is 0: this machine's {there:g} GPUs would have nothing to do"


def gpus_asked_for(recipe: RLRecipe | SFTRecipe | DPORecipe) -> list[tuple[float, str]]:
    """Return the GPUs that ranks and actors take, each with the keys that say so; in RL they are there together."""
    rollout = recipe.rollout
    own = recipe.learner if isinstance(recipe, RLRecipe) else recipe.training
    name = "learner" if isinstance(recipe, RLRecipe) else "training"
    ranks, actors = own.ranks * own.gpus_per_rank, rollout.actors * rollout.gpus_per_actor
    if isinstance(recipe, RLRecipe):
        return [(ranks + actors, "learner.ranks × gpus_per_rank + rollout.actors × gpus_per_actor")]
    return [(ranks, f"{name}.ranks × gpus_per_rank"), (actors, "rollout.actors × gpus_per_actor")]
