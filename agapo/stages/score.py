"""`agapo score`: try a recipe's rewards on responses from a file, before training with them."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from agapo.errors import UserError
from agapo.recipe import RLRecipe, SFTRecipe, load_recipe
from agapo.recipe.base import recipe_stage
from agapo.recipe.rl import RewardTerm
from agapo.rollouts.verifier import Sample, Score, VerifierPool


def score_file(path: Path, overrides: list[str], responses: Path | None) -> None:
    """Print mean scores and errors by reward term over the JSON lines of `responses`."""
    recipe = load_recipe({"rl": RLRecipe, "sft": SFTRecipe}[recipe_stage(path)], path, overrides)
    assert isinstance(recipe, RLRecipe | SFTRecipe)
    if responses is None:
        raise UserError("--responses: is required: a file of JSON lines with 'completion' and the reward's columns")
    samples = read_samples(responses)
    functions = {term.name: term.function for term in recipe.reward.terms}
    with VerifierPool(functions, workers=recipe.reward.workers, deadline_s=recipe.reward.deadline_s) as pool:
        scores = pool.score(samples)
    _print_scores(recipe.reward.terms, scores)


def read_samples(path: Path) -> list[Sample]:
    """Return the samples of a JSON-lines file. Raises UserError naming the line that cannot be read."""
    if not path.is_file():
        raise UserError(f"--responses: {path}: no such file")
    samples = [_sample(line, f"{path}:{number}") for number, line in enumerate(path.open(), start=1) if line.strip()]
    if not samples:
        raise UserError(f"--responses: {path}: is empty")
    return samples


def _sample(line: str, place: str) -> Sample:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({error})") from None
    completion = row.pop("completion", None)
    if not isinstance(completion, str):
        raise UserError(f"{place}: column 'completion' should be text; columns here: {', '.join(row) or 'none'}")
    prompt = row.pop("prompt", None) or [{"role": "user", "content": ""}]
    return Sample(prompt=prompt, completion=completion, columns=row)


def _print_scores(terms: Sequence[RewardTerm], scores: Sequence[dict[str, Score]]) -> None:
    table = Table("reward", "samples", "mean", "full marks", "no verdict", "errors", title="scores")
    for term in terms:
        found = [score[term.name] for score in scores]
        values = [score.value for score in found if score.value is not None]
        errors = Counter(score.error for score in found if score.error)
        table.add_row(
            term.name,
            str(len(found)),
            f"{sum(values) / len(values):.3f}" if values else "-",
            str(sum(value >= 1 for value in values)),
            str(len(found) - len(values)),
            ", ".join(f"{kind} {number}" for kind, number in errors.most_common()) or "none",
        )
    Console().print(table)
