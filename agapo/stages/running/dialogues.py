"""The dialogues of an SFT recipe: read from its sources and checked; what is malformed is named by file and line."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from agapo.curation.dialogues import normal_dialogue
from agapo.curation.prompts import read_rows
from agapo.curation.report import CurationReport, Finding
from agapo.errors import Interrupted, UserError
from agapo.recipe import SFTRecipe
from agapo.recipe.data import SourceConfig

SHOWN_MISTAKES = 5
"""So many malformed rows of a source are named before it is refused."""

Named = tuple[str, dict[str, Any]]
"""A source's name and a row of it."""


def read_dialogues(
    recipe: SFTRecipe, report: CurationReport, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Named]:
    """Yield every dialogue of the sources that have a weight, normalised, with its `place`.

    Malformed rows go into the report where the recipe says to drop them. Raises UserError otherwise, naming the first
    few of the source, and Interrupted once `should_stop()` is true.
    """
    for name, source in recipe.data.parts.items():
        if source.weight:
            for row in _checked(recipe, name, source, report):
                if should_stop():
                    raise Interrupted
                yield name, row


def _checked(recipe: SFTRecipe, name: str, source: SourceConfig, report: CurationReport) -> Iterator[dict[str, Any]]:
    refuse, mistakes = recipe.data.malformed == "refuse", []
    for number, row in enumerate(_rows(recipe, name, source), start=1):
        place = str(row.get("place") or f"{source.source}: row {number}")
        try:
            dialogue = {**normal_dialogue(row, place), "place": place}
        except UserError as error:
            mistakes.append(str(error))
            if refuse and len(mistakes) == SHOWN_MISTAKES:
                break
            report.seen[name] += 1
            report.drop({"messages": []}, place, name, "malformed", Finding("no dialogue", str(error)))
            continue
        # Once a row is refused, the others are looked at only to name them too.
        if not (refuse and mistakes):
            yield dialogue
    if refuse and mistakes:
        raise UserError("\n".join([*mistakes, "mend these rows, or leave them out with data.malformed=drop"]))


def _rows(recipe: SFTRecipe, name: str, source: SourceConfig) -> Iterator[dict[str, Any]]:
    key = f"data.sources.{name}" if recipe.data.sources else "data"
    rows = read_rows(source.source, "train", source.args, source.path, key)
    return islice(rows, getattr(source, "limit", None))
