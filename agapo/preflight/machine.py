"""The part of `agapo check` that looks at this machine, and at which of two starts a run takes.

A recipe may be looked at where it is not run, so these are warnings.
"""

from collections.abc import Iterator

from agapo.cluster import local_gpus
from agapo.placement import gpus_needed
from agapo.recipe import DPORecipe, RLRecipe, SFTRecipe


def machine_warnings(recipe: RLRecipe | SFTRecipe | DPORecipe) -> Iterator[str]:
    """Yield what a run on this machine would be refused for or leave unused, and which start wins."""
    if recipe.model.path and recipe.model.start:
        yield f"model.path {recipe.model.path} wins over model.start, whose run is not made: leave one of them out"
    if recipe.cluster.address is not None:
        return
    there = local_gpus()
    for gpus, keys in gpus_needed(recipe):
        if gpus > there:
            yield f"{keys}: {gpus:g} GPUs are asked for, and this machine has {there:g}: a run here would be refused"
    if there and not any(gpus for gpus, _ in gpus_needed(recipe)):
        ranks = "learner" if isinstance(recipe, RLRecipe) else "training"
        yield f"{ranks}.gpus_per_rank is 0: this machine's {there:g} GPUs would have nothing to do"
