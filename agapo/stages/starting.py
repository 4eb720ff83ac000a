"""The model that a stage starts from: a folder, a hub name, or what another recipe's run makes.

A run that is not there yet is made first, in a process of its own, so that nothing of the other stage (threads, memory)
stays behind.
"""

import subprocess
import sys
from pathlib import Path

from agapo.errors import INTERRUPTED, Interrupted, UserError
from agapo.recipe import DPORecipe, Recipe, RLRecipe, SFTRecipe, fingerprint, load_recipe
from agapo.recipe.base import recipe_stage
from agapo.stages.needle import require_green_start
from agapo.tracking import is_finished, read_json, stored_fingerprint

MAKERS: dict[str, type[Recipe]] = {"sft": SFTRecipe, "rl": RLRecipe, "dpo": DPORecipe}


def starting_model(recipe: Recipe, *, green: bool = True) -> str:
    """Return the folder or hub name of the model to start from; make it first where `model.start` has no run yet.

    Raises UserError where that run fails, was made by another version of its recipe, or, if `green`, has a needle
    test that should be green and is not.
    """
    if recipe.model.path:
        return recipe.model.path
    start = recipe.model.start
    assert start
    maker = start_recipe(recipe)
    if not is_finished(maker.run_directory):
        command = [sys.executable, "-m", "agapo", maker.stage, str(start), f"run.output={recipe.run.output}"]
        status = _wait_for(command)
        if status == INTERRUPTED:
            raise Interrupted
        if status:
            raise UserError(
                f"model.start: the {maker.stage.upper()} run that makes the start failed; see above ({start})"
            )
    elif stored_fingerprint(maker.run_directory) != fingerprint(maker):
        raise UserError(
            f"model.start: {maker.run_directory} was made by another version of {start}; "
            "delete it to make it anew, or give its model as model.path"
        )
    if green:
        require_green_start(read_json(maker.run_directory / "summary.json") or {}, start)
    return str(maker.hf_directory)


def _wait_for(command: list[str]) -> int:
    """Run a command and return its exit status. Ctrl-C goes to it as well, and it may have something to save."""
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def start_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe that `model.start` names, its run below the same output folder."""
    start = recipe.model.start
    assert start
    stage = recipe_stage(start)
    if stage not in MAKERS:
        raise UserError(f"model.start: {start} is a recipe for '{stage}', which makes no model")
    return load_recipe(MAKERS[stage], start, [f"run.output={recipe.run.output}"])


def start_folder(recipe: Recipe) -> Path:
    """Return where the starting model lies, whether it is there or not; nothing is made."""
    return Path(recipe.model.path) if recipe.model.path else start_recipe(recipe).hf_directory
