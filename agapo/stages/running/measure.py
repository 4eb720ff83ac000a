"""Measuring a model: before and after training, where the two take turns; and the needle test of a recipe."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from agapo.evaluation.evaluator import Evaluation, Evaluator
from agapo.evaluation.figures import measures
from agapo.evaluation.needle import needle_test
from agapo.evaluation.needle_prompts import NeedlePrompt, context_of, needle_prompts
from agapo.evaluation.questions import mark_of_test
from agapo.evaluation.rendering import make_renderer
from agapo.model.loading import load_tokenizer
from agapo.recipe import DPORecipe, EvalRecipe, SFTRecipe
from agapo.recipe.reward import RewardConfig
from agapo.recipe.rollout import RolloutConfig
from agapo.rewarding.start import start_scorer
from agapo.rollouts.pool import RolloutPool
from agapo.schema import Prompt
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.system import make_evaluator, start_rollouts, starting
from agapo.tracking import RunDirectory, make_console, say


def before_and_after(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return two evaluations, as `measured` gives them, as they stand in a summary."""
    return {
        "before": before["accuracy"],
        "after": after["accuracy"],
        "tokens_generated": before["tokens"] + after["tokens"],
        "reward_errors": before["errors"] + after["errors"],
        "thinking": {"before": before["thinking"], "after": after["thinking"]},
        "measures": {"before": before["measures"], "after": after["measures"]},
        "test": after["test"],
    }


def measured(evaluator: Evaluator, recipe: SFTRecipe | DPORecipe, questions: Sequence[Prompt]) -> dict[str, Any]:
    """Ask the questions greedily in each mode; return the evaluation as plain values, without the responses."""
    say(f"measuring on {len(questions)} test questions")
    found = evaluator.accuracy(questions, recipe.evaluation.modes)
    assert recipe.reward
    names = ("accuracy", "thinking", "tokens", "errors")
    return {
        **{name: getattr(found, name) for name in names},
        "measures": measures(found.groups),
        "test": about_test(found, questions, recipe.reward, recipe.rollout),
    }


def about_test(
    found: Evaluation, questions: Sequence[Prompt], reward: RewardConfig, rollout: RolloutConfig
) -> dict[str, Any]:
    """Return what a summary says of its test: how many questions by mode (and domain), and `mark_of_test`."""
    return {"mark": mark_of_test(questions, reward, rollout), "questions": found.questions}


@contextmanager
def measuring(recipe: SFTRecipe | DPORecipe, folder: str, stop: StopRequest) -> Iterator[Evaluator]:
    """Yield what measures a model, through rollout actors and verifier workers that live as long."""
    with ExitStack() as stack:
        render = make_renderer(load_tokenizer(folder))
        # The needle test judges by its own reward, and needs the actors alone.
        needle = recipe.needle if isinstance(recipe, SFTRecipe) else None
        reward = recipe.reward or (needle and needle.reward)
        assert reward, "without a reward and without needles there is nothing to measure"
        say(f"{starting(recipe.rollout, reward)}, which load {folder}")
        scorer = start_scorer(reward)
        stack.callback(scorer.close)
        pool = start_rollouts(recipe.model, folder, recipe.rollout, stop)
        stack.callback(pool.close)
        chunk, seed = recipe.evaluation.chunk_prompts, recipe.run.seed
        yield make_evaluator(pool, scorer, render, recipe.rollout, chunk, seed)


def needles_of(
    recipe: SFTRecipe | EvalRecipe, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
) -> list[NeedlePrompt]:
    """Return the needle test's prompts, made before anything starts so that what is wrong with them is known.

    None where the recipe has no needle test. Raises UserError for a grid that does not fit the model.
    """
    if recipe.needle is None:
        return []
    return needle_prompts(recipe.needle, tokenizer, context=context_of(config), seed=recipe.run.seed)


def needle_part(
    recipe: SFTRecipe | EvalRecipe, prompts: Sequence[NeedlePrompt], run: RunDirectory, pool: RolloutPool
) -> dict[str, Any]:
    """Ask the model that `pool` holds; return the needle test's part of the summary, empty where there is none."""
    if recipe.needle is None:
        return {}
    stop, say = recipe.rollout.stop, make_console().print
    found = needle_test(recipe.needle, pool, prompts, run.path, seed=recipe.run.seed, stop=stop, say=say)
    return {"needle": found.summary}
