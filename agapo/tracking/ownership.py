"""Whose run a directory holds, and with which changed keys it may go on (`agapo.recipe.keys` has their classes)."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from agapo.built_in import BUILT_IN
from agapo.errors import UserError
from agapo.model.marks import form_mark, weights_mark
from agapo.recipe import Recipe, RLRecipe, fingerprint
from agapo.recipe.keys import BEFORE_TRAINING, HOW_LONG, SHARDED, Change, KeyClass, changes
from agapo.recipe.run import project_of
from agapo.recipe.sharding import can_be_divided_anew, stage_run
from agapo.tracking.files import read_json
from agapo.tracking.provenance import template_mark

MADE_ANEW = ("start", "data")
"""Folders that a run makes before any work, from its recipe alone."""

CARRIED = "/agapo/carried/"
"""Where an environment has the built-in recipes (`agapo.built_in`)."""


def is_finished(path: Path) -> bool:
    """Return whether the run in folder `path` came to its end; takes no lock."""
    summary = read_json(path / "summary.json")
    return summary is not None and summary.get("finished") is True


def is_over(path: Path, recipe: Recipe) -> bool:
    """Return whether there is nothing left to do: RL goes on where it is to make more steps, or sample more tokens."""
    if not isinstance(recipe, RLRecipe):
        return is_finished(path)
    made = read_json(path / "summary.json") or {}
    return is_finished(path) and recipe.is_enough(made.get("steps") or 0, made.get("tokens_generated") or 0)


def stored_fingerprint(path: Path) -> str | None:
    """Return the fingerprint of the recipe whose run lies in folder `path`, None where there is no run."""
    provenance = read_json(path / "provenance.json")
    return provenance.get("fingerprint") if provenance else None


def stored_recipe(path: Path) -> dict[str, Any]:
    """Return the resolved recipe of the run in folder `path`, empty where it cannot be read."""
    try:
        stored = yaml.safe_load((path / "recipe.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return stored if isinstance(stored, dict) else {}


def next_step(path: Path) -> int | None:
    """Return the step that the run in folder `path` makes next, from 1; None without checkpoints (a filter, say)."""
    try:
        latest = (path / "checkpoints" / "latest").read_text().strip()
    except OSError:
        return None
    step = (read_json(path / "checkpoints" / latest / "state.json") or {}).get("step")
    return None if step is None else int(step) + 1


def take_over(path: Path, recipe: Recipe) -> list[Change] | None:
    """Return the changed keys that count from now on, of the run that lies in folder `path` and goes on.

    None: there is none, or nothing was done yet, and what was made from its recipe is gone. Raises UserError where the
    keys make it another run, or the checkpoint does not fit them.
    """
    if not (path / "provenance.json").exists():
        return None
    found = _changes_by_class(path, recipe)
    counting = [*found["identity"], *found["later"]]
    if (counting or _differs_unseen(path, recipe)) and not _has_begun(path, recipe.stage):
        for name in MADE_ANEW:
            shutil.rmtree(path / name, ignore_errors=True)
        return None
    _refuse_other_recipe(path, recipe, found)
    if not is_over(path, recipe):
        _refuse_other_shards(path, recipe, found["free"])
    return counting


def describe_other_version(path: Path, recipe: Recipe) -> str:
    """Return `key: old → new` of the first keys that make the run in folder `path` that of another recipe, else ''.

    A run that has not begun yet is no other's: it takes any key.
    """
    if not path.is_dir() or not _has_begun(path, recipe.stage):
        return ""
    found = _changes_by_class(path, recipe)
    counting = [*found["identity"], *_but_how_long(recipe, found["later"])]
    return describe(counting) if counting or _differs_unseen(path, recipe) else ""


def _but_how_long(recipe: Recipe, found: Sequence[Change]) -> list[Change]:
    return [change for change in found if not (recipe.stage == "rl" and change[0] in HOW_LONG)]


def _changes_by_class(path: Path, recipe: Recipe) -> dict[KeyClass, list[Change]]:
    found: dict[KeyClass, list[Change]] = {"identity": [], "later": [], "free": []}
    if stored := stored_recipe(path):
        for kind, change in changes(recipe, stored):
            if not _lies_elsewhere(path, recipe, stored, change):
                found[kind].append(change)
    # A file of the same name may hold another text by now. Runs of before have not noted theirs.
    known, template = (read_json(path / "provenance.json") or {}).get("chat_template"), template_mark(recipe)
    if known and template and known != template:
        found["identity"].append(("model.chat_template", f"text {known}", f"text {template}"))
    return found


def _lies_elsewhere(path: Path, recipe: Recipe, stored: Mapping[str, Any], change: Change) -> bool:
    """Whether a changed key names what it has named before, in another place: a project may be moved.

    What lies in the project is known by its place there, what an environment carries by its place in that, and a start
    anywhere by its weights, config, tokenizer and chat template.
    """
    key, was, now = change
    if key == "model.path" and isinstance(now, str) and _is_noted_start(path, recipe, Path(now)):
        return True
    before = (stored.get("run") or {}).get("output")
    if not before or not isinstance(was, str) or not isinstance(now, str):
        return False
    project = project_of(recipe.run.output)
    if carried := was.rpartition(CARRIED)[2] if CARRIED in was else "":
        places = (str(BUILT_IN / carried), str(project / carried))
        return now in places or now.endswith(CARRIED + carried)
    # A built-in recipe, which an environment brings, and `agapo init` lays out, is the same in both.
    moves = [(project_of(Path(before)), project), (BUILT_IN, project)]
    return any(Path(was).is_relative_to(old) and new / Path(was).relative_to(old) == Path(now) for old, new in moves)


def _is_noted_start(path: Path, recipe: Recipe, model: Path) -> bool:
    """Whether a folder holds the model that the run in folder `path` began with."""
    noted = read_json(path / "provenance.json") or {}
    known, form = noted.get("start_weights"), noted.get("start_form")
    if not known or known != weights_mark(model):
        return False
    # With a template of the recipe's, the start's form is that of the folder that is made with it (`keep_start`).
    return bool(recipe.model.chat_template) or form in (None, form_mark(model))


def _differs_unseen(path: Path, recipe: Recipe) -> bool:
    """Whether the run is another's, and its recipe, which would say in what, cannot be read."""
    return not stored_recipe(path) and stored_fingerprint(path) != fingerprint(recipe)


def _has_begun(path: Path, stage: str) -> bool:
    """Whether a run has left more than its recipe: what was refused before any work may be mended in place.

    An evaluation that was stopped knows each answer that it has by what was asked, and takes any key.
    """
    if stage == "eval":
        return is_finished(path)
    made = ("provenance.json", "recipe.yaml", *MADE_ANEW)
    return any(item.name not in made and not is_ours(item.name) for item in path.iterdir())


def is_ours(name: str) -> bool:
    """What a crash while the run was being set up can leave behind."""
    return name == ".lock" or (name.startswith(".") and name.endswith(".tmp"))


def _has_trained(path: Path) -> bool:
    return is_finished(path) or ((path / "checkpoints").is_dir() and any((path / "checkpoints").iterdir()))


def _refuse_other_recipe(path: Path, recipe: Recipe, found: dict[KeyClass, list[Change]]) -> None:
    free = () if _has_trained(path) else BEFORE_TRAINING.get(recipe.stage, ())
    refused = [change for change in found["identity"] if not _is_below(change[0], free)]
    if is_over(path, recipe):
        refused += _but_how_long(recipe, found["later"])
    if refused or _differs_unseen(path, recipe):
        what = "a finished run" if is_over(path, recipe) else "a run"
        raise UserError(
            f"{path}: holds {what} of another recipe ({describe(refused)}); "
            f"name a new run with run.name=…, or delete the directory"
        )


def _refuse_other_shards(path: Path, recipe: Recipe, free: Sequence[Change]) -> None:
    """Refuse ranks that cannot read the checkpoint's shards, as they are or divided anew, before anything is loaded."""
    step, dealt = next_step(path), [change for change in free if change[0] in SHARDED]
    if step is None or not dealt or _is_readable(recipe, {key.rpartition(".")[2]: old for key, old, _ in dealt}):
        return
    back = ", ".join(f"{key}={_short(old)}" for key, old, _ in dealt)
    raise UserError(
        f"{path}: the checkpoint of step {step - 1} is dealt out to the ranks in another way ({describe(dealt)}); "
        f"go on with {back}, or name a new run with run.name=…"
    )


def _is_readable(recipe: Recipe, before: Mapping[str, Any]) -> bool:
    """Whether the recipe's ranks read what was written with other values, `before`."""
    name = "learner" if recipe.stage == "rl" else "training"
    own: Any = getattr(recipe, name)
    # The trainers keep float32 weights instead, and run the stage that they are told.
    bfloat16 = recipe.stage == "rl" and recipe.model.dtype == "bfloat16"
    then = stage_run(before.get("zero_stage", own.zero_stage), bfloat16=bfloat16)
    now = stage_run(own.zero_stage, bfloat16=bfloat16)
    return "offload" not in before and can_be_divided_anew(then, now, name)


def describe(found: Sequence[Change], most: int = 3) -> str:
    """Return `key: old → new` of the first few changes."""
    if not found:
        return "its fingerprint differs"
    shown = ", ".join(f"{key}: {_short(old)} → {_short(new)}" for key, old, new in found[:most])
    return shown + (f", and {len(found) - most} more" if len(found) > most else "")


def _short(value: Any, most: int = 60) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _is_below(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)
