"""A model's measures before and after training, for the stages where training and measuring take turns."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from agapo.evaluation.evaluator import Evaluation, Evaluator
from agapo.evaluation.figures import measures
from agapo.evaluation.rendering import make_renderer
from agapo.model.loading import load_tokenizer
from agapo.recipe import DPORecipe, SFTRecipe
from agapo.rewarding.start import start_scorer
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.system import make_evaluator, start_rollouts


def before_and_after(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return two evaluations, as `measured` gives them, as they stand in a summary."""
    return {
        "before": before["accuracy"],
        "after": after["accuracy"],
        "tokens_generated": before["tokens"] + after["tokens"],
        "reward_errors": before["errors"] + after["errors"],
        "thinking": {"before": before["thinking"], "after": after["thinking"]},
        "measures": {"before": before["measures"], "after": after["measures"]},
    }


def measured(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain values, without the responses."""
    names = ("accuracy", "thinking", "tokens", "errors")
    return {**{name: getattr(found, name) for name in names}, "measures": measures(found.groups)}


@contextmanager
def measuring(recipe: SFTRecipe | DPORecipe, folder: str, stop: StopRequest) -> Iterator[Evaluator]:
    """Yield what measures a model, through rollout actors and verifier workers that live as long."""
    with ExitStack() as stack:
        render = make_renderer(load_tokenizer(folder))
        scorer = start_scorer(recipe.reward)
        stack.callback(scorer.close)
        pool = start_rollouts(recipe.model, folder, recipe.rollout, stop)
        stack.callback(pool.close)
        chunk, seed = recipe.evaluation.chunk_prompts, recipe.run.seed
        yield make_evaluator(pool, scorer, render, recipe.rollout, chunk, seed)
