"""`agapo eval`: a model goes through the suites of a recipe, and nothing is trained.

    model ──► rollout actors ──► accuracy: greedy, by mode, domain and language   ──► summary.json
                             └─► needle: found again, by length and position      ──► needle.json, needle.png

A finished evaluation prints its result again. Left out on purpose: resuming (an evaluation that was stopped starts
again) and W&B (the numbers are in `summary.json`).
"""

import hashlib
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from agapo.cluster import require_gpus, start_cluster, stop_cluster
from agapo.errors import Interrupted, UserError
from agapo.evaluation.figures import accuracy_table, mode_figures, print_accuracy
from agapo.evaluation.needle import needle_test, print_needle, refuse_red
from agapo.evaluation.needle_prompts import context_of, needle_prompts
from agapo.evaluation.questions import fitting_test_questions
from agapo.evaluation.rendering import Renderer, make_renderer
from agapo.model.loading import load_config, load_tokenizer
from agapo.recipe import EvalRecipe
from agapo.recipe.evaluation import AccuracyConfig
from agapo.rewarding.start import check_rewards, start_scorer
from agapo.rollouts.pool import RolloutPool
from agapo.schema import Prompt
from agapo.stages.running.deaths import told_in_a_line
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.start import start_recipe, starting_model
from agapo.stages.running.system import make_evaluator, start_rollouts
from agapo.tracking import RunDirectory, make_console, read_json, write_json_atomic
from agapo.tracking.progress import format_duration


def run_eval(recipe: EvalRecipe, recipe_path: Path) -> None:
    """Evaluate, or print the finished evaluation again. Raises UserError where the needle test is not green."""
    model = starting_model(recipe, green=False)
    with RunDirectory.open(recipe, recipe_path) as run, told_in_a_line(run):
        if run.finished:
            _require_same_model(run, recipe)
        else:
            try:
                _evaluate(recipe, recipe_path, run, model)
            except Interrupted:
                raise Interrupted("stopped; the same command evaluates from the start") from None
        summary = report_evaluation(run)
        if "needle" in summary:
            # The recipe's `stop` may have been changed since, to accept what was found.
            stop = recipe.needle is not None and recipe.needle.stop
            refuse_red({**summary["needle"], "stop": stop}, run.path)


def _evaluate(recipe: EvalRecipe, recipe_path: Path, run: RunDirectory, model: str) -> None:
    """Run the suites. What can be wrong is found before Ray starts."""
    started = time.monotonic()
    say = make_console().print
    tokenizer = load_tokenizer(model)
    config = load_config(model, recipe.model.rope_fields)
    render, context = make_renderer(tokenizer), context_of(config)
    questions = _questions(recipe, render, config)
    needles = needle_prompts(recipe.needle, tokenizer, context=context, seed=recipe.run.seed) if recipe.needle else []
    summary: dict[str, Any] = {
        "stage": "eval",
        "finished": True,
        "model": model,
        "model_version": _model_version(recipe),
        "recipe": str(recipe_path.resolve()),
        "seed": recipe.run.seed,
    }
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        start_cluster(recipe.cluster.address)
        stack.callback(stop_cluster)
        gpus = recipe.rollout.actors * recipe.rollout.gpus_per_actor
        require_gpus(gpus, "rollout.actors × gpus_per_actor", recipe.cluster.address)
        pool = start_rollouts(recipe.model, model, recipe.rollout, stop)
        stack.callback(pool.close)
        if recipe.accuracy:
            summary["accuracy"] = _accuracy(recipe, recipe.accuracy, questions, pool, render)
        if recipe.needle:
            result = needle_test(
                recipe.needle,
                pool,
                tokenizer,
                run.path,
                context=context,
                seed=recipe.run.seed,
                prompts=needles,
                say=say,
            )
            summary["needle"] = result.summary
    write_json_atomic(run.summary, {**summary, "wall_s": round(time.monotonic() - started, 1)})


def _questions(recipe: EvalRecipe, render: Renderer, config: PreTrainedConfig) -> list[Prompt]:
    own = recipe.accuracy
    if own is None:
        return []
    check_rewards(own.reward)
    return fitting_test_questions(
        own.prompts,
        own.size,
        own.reward,
        render,
        config,
        max_new_tokens=recipe.rollout.max_new_tokens,
        key="accuracy.prompts",
    )


def _model_version(recipe: EvalRecipe) -> str | None:
    """Return what tells one run that made the model from the next, None for a model that is given as such."""
    if not recipe.model.start:
        return None
    return hashlib.sha256((start_recipe(recipe).run_directory / "summary.json").read_bytes()).hexdigest()[:16]


def _require_same_model(run: RunDirectory, recipe: EvalRecipe) -> None:
    """A finished evaluation is of a model that may have been made anew since."""
    if (read_json(run.summary) or {}).get("model_version") != _model_version(recipe):
        raise UserError(
            f"{run.path}: evaluates an earlier run of {recipe.model.start}; delete it, or set another run.name=…"
        )


def _accuracy(
    recipe: EvalRecipe, own: AccuracyConfig, questions: Sequence[Prompt], pool: RolloutPool, render: Renderer
) -> dict[str, Any]:
    scorer = start_scorer(own.reward)
    try:
        evaluator = make_evaluator(pool, scorer, render, recipe.rollout, own.chunk_prompts, recipe.run.seed)
        found = evaluator.accuracy(questions, own.modes)
    finally:
        scorer.pool.close()
    modes = {mode: mode_figures([group for group in found.groups if group.prompt.mode == mode]) for mode in own.modes}
    return {"modes": modes, "errors": found.errors, "tokens": found.tokens, "table": accuracy_table(found.groups)}


def report_evaluation(run: RunDirectory) -> dict[str, Any]:
    """Print the tables of a finished evaluation and where its files lie; return its summary."""
    summary = read_json(run.summary) or {}
    console = make_console()
    if "accuracy" in summary:
        print_accuracy(summary["accuracy"], console)
    if "needle" in summary:
        print_needle(run.path, console)
    console.print(f"Evaluated {summary['model']} in {format_duration(summary['wall_s'])}.", soft_wrap=True)
    for name in ("summary.json", "needle.json", "needle.png"):
        if (run.path / name).exists():
            console.print(f"  {run.path / name}", soft_wrap=True)
    return summary
