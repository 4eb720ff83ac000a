"""From a run's folder to what its page shows: also of a run that goes on, or ended early."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from agapo.errors import UserError
from agapo.recipe import STAGES
from agapo.tracking.curves import Points, read_curves
from agapo.tracking.files import read_json, read_json_lines
from agapo.tracking.timeline import read_timeline, row_name

GIVEN_DEFAULTS = {"sft": ("training", ("lora",)), "rl": ("algorithm", ("preset",))}
"""By stage: a section whose defaults depend on the rest of the recipe, and the keys of it that they depend on."""

MOST_TEXT = 24_000_000
"""Bytes of rollouts that a page takes; in it they are half of that or less, as base64."""
LONGEST = 8000
"""Characters of a response, a prompt or an error that are shown: the beginning and the end."""
MOST_EVENTS = 60_000
MOST_ERRORS = 50


def require_run(run: Path) -> None:
    """Raise UserError where there is no run."""
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run}: is no run's folder: it has no recipe.yaml; name one as outputs/rl/tiny")


def stage_of(run: Path) -> str:
    """Return the stage of a run's recipe."""
    return str(_recipe(run / "recipe.yaml").get("stage", ""))


def gather(run: Path) -> dict[str, Any]:
    """Return all but the rollouts and the timeline: curves as in `metrics.jsonl`, recipe, lineage, environment."""
    recipe = _recipe(run / "recipe.yaml")
    summary, provenance = read_json(run / "summary.json") or {}, read_json(run / "provenance.json") or {}
    errors = [_shortened(row) for row in islice(read_json_lines(run / "reward_errors.jsonl"), MOST_ERRORS)]
    stage = recipe.get("stage", "")
    model = recipe.get("model") or {}
    return {
        "name": run.resolve().name,
        "stage": stage,
        "finished": bool(summary.get("finished")),
        "steps": recipe.get("steps"),
        "summary": summary,
        "curves": read_curves(run / "metrics.jsonl") | _held_out_loss(summary),
        "changed": yaml.safe_dump(_changed(recipe, stage), sort_keys=False, allow_unicode=True),
        "recipe": yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True),
        "lineage": summary.get("lineage") or [{"model": model.get("start") or model.get("path") or "random weights"}],
        "environment": provenance,
        "warnings": summary.get("warnings") or [],
        "errors": errors,
    }


def timeline_of(run: Path) -> dict[str, Any]:
    """Return the rows' names, and [row, phase, start in µs, duration in µs, step] of each interval."""
    events = [event for event in read_timeline(run / "timeline.json") if event.get("ph") == "X"][-MOST_EVENTS:]
    rows = sorted({(event["pid"], event["tid"]) for event in events})
    place = {row: number for number, row in enumerate(rows)}
    spans = [[place[e["pid"], e["tid"]], e["name"], e["ts"], e["dur"], e["args"]["step"]] for e in events]
    return {"rows": list(map(row_name, rows)), "spans": spans}


def sampled_steps(path: Path, most: int = MOST_TEXT) -> tuple[list[int], int]:
    """Return the steps whose rollouts a page takes, whole steps each, and how many steps there are.

    Where all are too much: the first and the last step, and others between them at even distances, as many as fit.
    """
    sizes: dict[int, int] = {}
    for row in read_json_lines(path):
        step = row.get("step", 0)
        texts = (str(row.get(name, ""))[:LONGEST] for name in ("text", "prompt"))
        sizes[step] = sizes.get(step, 0) + sum(len(text.encode(errors="replace")) for text in texts) + 400
    steps = sorted(sizes)
    kept, every = steps, 1
    while sum(map(sizes.__getitem__, kept)) > most and len(kept) > 2:
        every += 1
        kept = sorted({*steps[::every], *steps[-1:]})
    return kept, len(steps)


def rollouts_of(path: Path, steps: list[int]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield (step, its responses), one step after another, as they lie in the file."""
    wanted, step, rows = set(steps), None, list[dict[str, Any]]()
    for row in read_json_lines(path):
        if row.get("step", 0) != step:
            if step in wanted and rows:
                yield step, rows
            step, rows = row.get("step", 0), []
        if step in wanted:
            rows.append(_shortened(row))
    if step in wanted and rows:
        yield step, rows


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    """Return a response's row with its long texts shortened, and without the data's columns."""
    texts = {name: shortened(text) for name, text in row.items() if isinstance(text, str)}
    return {name: texts.get(name, value) for name, value in row.items() if name != "columns"}


def shortened(text: str) -> str:
    """Return the text, or its beginning and its end where it is long."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"


def _recipe(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); bring the run's own back") from None
    return content if isinstance(content, dict) else {}


def _changed(recipe: dict[str, Any], stage: str) -> dict[str, Any]:
    """Return what differs from the defaults; of a recipe that this version does not know, all of it."""
    section, givers = GIVEN_DEFAULTS.get(stage, ("", ()))
    given = {name: value for name in givers if (value := (recipe.get(section) or {}).get(name)) is not None}
    try:
        known = STAGES[stage].model_validate(recipe)
        bare = STAGES[stage].model_validate({**recipe, section: given} if section else recipe)
    except (KeyError, ValidationError, UserError):
        return recipe
    changed = known.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if section in changed:
        own, defaults = changed[section], bare.model_dump(mode="json", by_alias=True)[section]
        kept = {name: own[name] for name in givers if name in own}
        changed[section] = kept | _without(own, defaults)
    return {name: value for name, value in changed.items() if name != section or value}


def _without(found: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the leaves that are not the defaults."""
    left: dict[str, Any] = {}
    for name, value in found.items():
        default = defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict):
            value = _without(value, default) or default
        if value != default:
            left[name] = value
    return left


def _held_out_loss(summary: dict[str, Any]) -> dict[str, Points]:
    """Return SFT's loss on the dialogues held out, before the first step and after the last."""
    loss = (summary.get("held_out") or {}).get("loss") or {}
    points = {step: loss.get(when) for step, when in ((0, "before"), (summary.get("steps") or 1, "after"))}
    known = {step: value for step, value in points.items() if value is not None}
    return {"held_out/loss": (list(known), list(known.values()))} if known else {}
