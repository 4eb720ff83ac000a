"""From a run's folder to what its page shows: also of a run that goes on, or ended early."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from agapo.errors import UserError
from agapo.recipe import DPORecipe, EvalRecipe, Recipe, RLRecipe, SFTRecipe
from agapo.tracking.curves import read_curves
from agapo.tracking.files import read_json, read_json_lines
from agapo.tracking.timeline import read_timeline, row_name

RECIPES: dict[str, type[Recipe]] = {"sft": SFTRecipe, "rl": RLRecipe, "dpo": DPORecipe, "eval": EvalRecipe}

MOST_TEXT = 24_000_000
"""Bytes of rollouts that a page takes; in it they are half of that or less, as base64."""
LONGEST = 8000
"""Characters of a response that are shown: its beginning and its end."""
MOST_EVENTS = 60_000
MOST_ERRORS = 50


def require_run(run: Path) -> None:
    """Raise UserError where there is no run."""
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run}: is no run's folder: it has no recipe.yaml; name one as outputs/rl/tiny")


def gather(run: Path) -> dict[str, Any]:
    """Return all but the rollouts and the timeline: curves as in `metrics.jsonl`, recipe, lineage, environment."""
    recipe = _recipe(run / "recipe.yaml")
    summary, provenance = read_json(run / "summary.json") or {}, read_json(run / "provenance.json") or {}
    errors = list(islice(read_json_lines(run / "reward_errors.jsonl"), MOST_ERRORS))
    stage = recipe.get("stage", "")
    model = recipe.get("model") or {}
    return {
        "name": run.resolve().name,
        "stage": stage,
        "finished": bool(summary.get("finished")),
        "steps": recipe.get("steps"),
        "summary": summary,
        "curves": read_curves(run / "metrics.jsonl"),
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
        sizes[step] = sizes.get(step, 0) + len(str(row.get("text", ""))[:LONGEST].encode(errors="replace")) + 400
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
            rows.append({**row, "text": shortened(str(row.get("text", "")))})
    if step in wanted and rows:
        yield step, rows


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
    try:
        known = RECIPES[stage].model_validate(recipe)
    except (KeyError, ValidationError, UserError):
        return recipe
    return known.model_dump(mode="json", by_alias=True, exclude_defaults=True)
