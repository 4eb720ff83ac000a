"""How every stage's run ends: seconds noted, summary and model card written, tables printed."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agapo.errors import Interrupted, UserError
from agapo.recipe import DPORecipe, Recipe, SFTRecipe
from agapo.reporting import try_report
from agapo.tracking import (
    RunDirectory,
    before_after_table,
    final_summary,
    lineage_entry,
    lineage_of,
    lineage_table,
    make_console,
    read_json,
    thinking_table,
    write_json_atomic,
    write_model_card,
)
from agapo.tracking.progress import print_table

SO_FAR = "so_far.json"
"""What such a run that goes on needs besides its checkpoint: the measures before, and the seconds spent."""


def run_to_end(
    recipe: SFTRecipe | DPORecipe,
    recipe_path: Path,
    run: RunDirectory,
    parent: str | None,
    work: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Do what is left of a run's work and write its summary. Raises Interrupted when the user asks to stop.

    `work` takes what an earlier process left in `so_far.json`, and returns the summary's content.
    """
    if run.finished:
        say_finished(run)
        return
    with spending(run) as spent:
        try:
            summary = work(read_json(run.path / SO_FAR) or {})
        except Interrupted:
            try_report(run.path)
            raise
    common = common_summary(recipe, recipe_path, summary.pop("before"), summary.pop("after"))
    finish(run, recipe, common | {"wall_s": spent(), **summary}, parent)


@contextmanager
def spending(run: RunDirectory) -> Iterator[Callable[[], float]]:
    """Yield what tells the seconds that a run has taken, in earlier processes too; they are noted however it ends."""
    place, started = run.path / SO_FAR, time.monotonic()
    earlier = (read_json(place) or {}).get("wall_s", 0.0)

    def spent() -> float:
        return round(earlier + time.monotonic() - started, 1)

    refused = False
    try:
        yield spent
    except UserError:
        # Found before any work: the folder stays as it was, free for a mended recipe.
        refused = not place.exists()
        raise
    finally:
        if not refused:
            write_json_atomic(place, {**(read_json(place) or {}), "wall_s": spent()})


def finish(run: RunDirectory, recipe: Recipe, summary: Mapping[str, Any], parent: str | None) -> None:
    """Write a run's summary, with where its model came from, the model's card, and the run's page."""
    summary = {**summary, "parent": parent, "lineage": lineage_of(parent)}
    write_model_card(run, recipe, summary)
    write_json_atomic(run.summary, summary)
    try_report(run.path)


def common_summary(
    recipe: Recipe, recipe_path: Path, before: dict[str, float], after: dict[str, float]
) -> dict[str, Any]:
    """Return what every stage's summary begins with; `steps` is None where the recipe leaves them open."""
    return {
        "stage": recipe.stage,
        "finished": True,
        "steps": getattr(recipe, "steps", None),
        "before": before,
        "after": after,
        "model": str(recipe.hf_directory),
        "recipe": str(recipe_path.resolve()),
        "seed": recipe.run.seed,
    }


def say_finished(run: RunDirectory) -> None:
    """Say that there is nothing left to do for a run that is finished."""
    make_console().print(
        f"{run.path} is finished already, nothing is run; to train anew, name a run with run.name=…",
        soft_wrap=True,
        highlight=False,
    )


def _print_losses(held_out: Mapping[str, Any]) -> None:
    """Print the loss on held-out dialogues before and after."""
    losses = [held_out["loss"][when] for when in ("before", "after")]
    rows = [
        # None: it was no number, and JSON has none for that.
        ("nats a token", *("–" if loss is None else f"{loss:.4f}" for loss in losses)),
        ("perplexity", *("–" if loss is None else f"{math.exp(min(loss, 700)):.2f}" for loss in losses)),
    ]
    title = f"Held-out loss ({held_out['dialogues']} dialogues)"
    print_table(title, ("", "before", "after"), rows, make_console())


def report_finished(run: RunDirectory) -> None:
    """Print the table before and after, and where things lie."""
    summary = read_json(run.summary) or {}
    if summary["after"]:
        before_after_table(summary["before"], summary["after"], (summary.get("test") or {}).get("questions"))
    for name, found in (summary.get("sets") or {}).items() if summary["stage"] == "rl" else ():
        before_after_table(found["before"], found.get("after", {}), found["questions"], title=f"Accuracy on {name}")
    if held_out := summary.get("held_out"):
        _print_losses(held_out)
    if thinking := summary.get("thinking"):
        thinking_table(thinking["before"], thinking["after"])
    lineage_table([*summary.get("lineage", []), lineage_entry(run.path, summary)])
    if exported := summary.get("exported"):
        make_console().print(f"{run.hf} holds step {exported['step']}: {exported['why']}.", soft_wrap=True)
    for warning in summary.get("warnings", []):
        make_console().print(f"warning: {warning}", style="yellow", soft_wrap=True, highlight=False)
    final_summary(run, steps=summary["steps"], total_steps=summary["steps"], wall_s=summary["wall_s"])
