"""The model that a stage starts from: a folder, a hub name, what another recipe's run makes, or the last run there is.

A run that is not there yet is made first, in a process of its own, so that nothing of the other stage (threads, memory)
stays behind.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from agapo.errors import INTERRUPTED, Interrupted, UserError
from agapo.evaluation.needle import require_green_start
from agapo.model.marks import form_mark, weights_mark
from agapo.model.templated import with_template
from agapo.recipe import DPORecipe, Recipe, RLRecipe, SFTRecipe, load_recipe
from agapo.recipe.read import recipe_stage
from agapo.signals import handled_by, note
from agapo.tracking import RunDirectory, is_finished, read_json, say, write_json_atomic
from agapo.tracking.ownership import describe_other_version
from agapo.tracking.progress import format_duration
from agapo.tracking.provenance import noted_start

MAKERS: dict[str, type[Recipe]] = {"sft": SFTRecipe, "rl": RLRecipe, "dpo": DPORecipe}
BEFORE = {"rl": ("sft",), "dpo": ("rl",), "eval": tuple(MAKERS)}
"""The stages whose last finished run a recipe without `model.path` and `model.start` starts from."""


def starting_model(recipe: Recipe, *, green: bool = True) -> str:
    """Return the folder or hub name of the model to start from; make it first where `model.start` has no run yet.

    With `model.chat_template` it is a folder below the output folder, which has the model and this template.

    A line says which it is, and why: a run that starts from another model than its user thinks trains in silence.

    Raises UserError where that run fails, was made by another version of its recipe, or, if `green`, has a needle
    test that should be green and is not; or where there is no finished run to start from.
    """
    return with_chat_template(recipe, _starting_model(recipe, green=green))


def with_chat_template(recipe: Recipe, model: str) -> str:
    """Return a folder with the model and the recipe's `model.chat_template`; the model itself where there is none."""
    template = recipe.model.chat_template
    return with_template(model, template, recipe.run.output / "templated") if template else model


def _starting_model(recipe: Recipe, *, green: bool) -> str:
    does = "measures" if recipe.stage == "eval" else "starts from"
    if recipe.model.path:
        say(f"{recipe.stage}: {does} {recipe.model.path} (model.path)")
        return recipe.model.path
    start = recipe.model.start
    run = _made(recipe, start) if start else last_finished(recipe)
    say(f"{recipe.stage}: {does} {run / 'hf'} ({_why(recipe)})")
    if green:
        require_green_start(_as_its_recipe_says(read_json(run / "summary.json") or {}, recipe), start or run)
    return str(run / "hf")


def _why(recipe: Recipe) -> str:
    if recipe.model.start:
        return f"model.start: the run of {recipe.model.start.name}"
    if _kept(recipe):
        return "this run began with it"
    stages = " or ".join(map(str.upper, BEFORE[recipe.stage]))
    return f"the last finished {stages} run there is; model.path or model.start choose another"


def _as_its_recipe_says(summary: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return a start's summary; `needle.stop` of the recipe that makes it may have been changed since to accept it."""
    needle = getattr(start_recipe(recipe), "needle", None) if recipe.model.start else None
    if needle and not needle.stop and "needle" in summary:
        return {**summary, "needle": {**summary["needle"], "stop": False}}
    return summary


def _made(recipe: Recipe, start: Path) -> Path:
    """Return the run of the recipe that `model.start` names, made where it is not there."""
    maker = start_recipe(recipe)
    if not is_finished(maker.run_directory):
        say(f"model.start: {start} has no finished run yet; it is run first")
        began = time.monotonic()
        command = [sys.executable, "-m", "agapo", maker.stage, str(start), f"run.output={recipe.run.output}"]
        status = _wait_for(command)
        if status in INTERRUPTED:
            raise Interrupted
        if status:
            raise UserError(
                f"model.start: the {maker.stage.upper()} run that makes the start failed; see above ({start})"
            )
        say(f"model.start: made in {format_duration(time.monotonic() - began)}")
    elif changes := describe_other_version(maker.run_directory, maker):
        raise UserError(
            f"model.start: {maker.run_directory} was made by another version of {start} ({changes}); "
            "delete it to make it anew, or give its model as model.path"
        )
    return maker.run_directory


def last_finished(recipe: Recipe) -> Path:
    """Return the last finished run of the stages before, below the same output folder; who goes on keeps its own.

    Raises UserError where there is none.
    """
    if known := _kept(recipe):
        return Path(known).parent
    before = BEFORE[recipe.stage]
    runs = [path for stage in before for path in (recipe.run.output / stage).glob("*/") if _has_model(path)]
    if not runs:
        folder = recipe.run.output / before[0] if len(before) == 1 else recipe.run.output
        raise UserError(
            f"model: there is no finished {' or '.join(map(str.upper, before))} run in {folder} to start from; run "
            f"'agapo {before[0]}' first, or give model.path (a model) or model.start (a recipe)"
        )
    return max(runs, key=lambda path: (path / "summary.json").stat().st_mtime)


def _kept(recipe: Recipe) -> str | None:
    """Return the start that a run which goes on has noted (`keep_start`)."""
    return noted_start(recipe.run_directory)


def _has_model(run: Path) -> bool:
    return is_finished(run) and (run / "hf").is_dir()


def _wait_for(command: list[str]) -> int:
    """Run a command and return its exit status. It may have something to save when it is stopped, and is waited for.

    A terminal's Ctrl-C goes to it as well; a SIGTERM is passed on.
    """
    with subprocess.Popen(command) as process:

        def pass_on(number: int, frame: FrameType | None) -> None:
            note(number)
            if number == signal.SIGTERM:
                process.terminate()

        with handled_by(pass_on):
            return process.wait()


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
    if recipe.model.path:
        return Path(recipe.model.path)
    return start_recipe(recipe).hf_directory if recipe.model.start else last_finished(recipe) / "hf"


def keep_start(run: RunDirectory, model: str) -> None:
    """Note a run's start, so that it goes on from there whatever has been finished since.

    Raises UserError where the folder holds other weights, or another config, tokenizer or chat template, than when the
    run began: what it has sampled and measured is not of them.
    """
    provenance, folder = read_json(run.provenance) or {}, Path(model)
    marks = {"start_weights": weights_mark(folder), "start_form": form_mark(folder)}
    what = {"start_weights": "other weights", "start_form": "another config, tokenizer or chat template"}
    for name, mark in marks.items():
        known = provenance.get(name)
        if known and mark and known != mark:
            raise UserError(
                f"model: {model} holds {what[name]} than when the run in {run.path} began; name a new run with "
                "run.name=…, or delete that one"
            )
    if "start" not in provenance:
        write_json_atomic(run.provenance, {**provenance, "start": _noted(run.path, model), **marks})


def _noted(run: Path, model: str) -> str:
    """Return a model's folder as seen from the run's, where both lie in one project: it may be moved as a whole."""
    project = run.parents[2]
    return os.path.relpath(model, run) if Path(model).is_relative_to(project) else model
