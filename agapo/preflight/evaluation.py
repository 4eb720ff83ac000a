"""The part of `agapo check` that looks at evaluations."""

from agapo.evaluation.needle_prompts import check_needle, context_of
from agapo.model.loading import load_config
from agapo.recipe import EvalRecipe
from agapo.resolve import resolve
from agapo.rewarding.start import check_rewards
from agapo.stages.running.start import start_folder


def check_evaluation(recipe: EvalRecipe) -> list[tuple[str, str]]:
    """Return what can be known of an evaluation without its model; for `agapo check`. Raises UserError."""
    rows = []
    if recipe.prompts and recipe.reward:
        own = recipe.evaluation
        check_rewards(recipe.reward)
        sources = [source.source for source in recipe.prompts.parts.values()]
        for source in sources:
            resolve(source, key="prompts.source")
        rows.append(("accuracy", f"{own.test_size} questions of {', '.join(sources)}, {len(own.modes)} modes"))
    if grid := recipe.needle:
        resolve(grid.source, key="needle.source")
        check_rewards(grid.reward)
        cells = len(grid.lengths) * len(grid.positions) * len(grid.modes)
        rows.append(("needle", f"{cells} cells × {grid.per_cell} prompts of up to {grid.lengths[-1]:,} tokens"))
    return [*rows, ("model", _checked_model(recipe))]


def _checked_model(recipe: EvalRecipe) -> str:
    """Return what there is to say of the model; its context is looked at where it lies on this machine."""
    folder = start_folder(recipe)
    if recipe.model.path and folder.is_absolute():
        load_config(folder, recipe.model.rope_fields)  # raises where it is not there
    if not folder.is_dir():
        return f"not looked at: {recipe.model.path or f'{recipe.model.start} makes it'}"
    context = context_of(load_config(folder, recipe.model.rope_fields))
    if recipe.needle:
        check_needle(recipe.needle, context)
    return f"{folder}: a context of {context or 'any number of'} tokens"
