"""`agapo eval`: a model is measured as a recipe says, and nothing is trained.

    model ──► rollout actors ──► answers: by mode, some also by budget ──► answers.jsonl ──► summary.json, accuracy.png
                             └─► needle: found again, by length and position             ──► needle.json, needle.png

An evaluation that was stopped goes on behind the answers that it has (`asking`). A finished one prints its result
again, unless its model is another one by then. Left out on purpose: W&B (the numbers are in `summary.json`), and
resuming inside the needle test, which is asked from its start.
"""

import json
import time
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from agapo.errors import Interrupted
from agapo.evaluation.needle import print_needle, refuse_red
from agapo.evaluation.questions import fitting_suites
from agapo.evaluation.rendering import Renderer, make_renderer
from agapo.evaluation.tables import accuracy_figures, print_accuracy
from agapo.model.loading import load_config, load_tokenizer
from agapo.model.marks import form_mark, weights_mark
from agapo.recipe import EvalRecipe
from agapo.rewarding.start import check_rewards, start_scorer
from agapo.rollouts.pool import RolloutPool
from agapo.stages.eval.asking import Asking
from agapo.stages.running.deaths import told_in_a_line
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.measure import needle_part, needles_of
from agapo.stages.running.modes import fit_modes
from agapo.stages.running.start import starting_model
from agapo.stages.running.system import (
    check_judged,
    make_evaluator,
    require_actors_gpus,
    start_rollouts,
    started_ray,
    starting,
)
from agapo.tracking import RunDirectory, StepProgress, lineage_of, make_console, read_json, say, write_json_atomic
from agapo.tracking.accuracy import accuracy_picture
from agapo.tracking.progress import format_duration

FILES = ("summary.json", "answers.jsonl", "accuracy.png", "needle.json", "needle.png")
Figures = dict[str, Any]
EARLIER = "earlier.jsonl"
"""The summaries of models that the same evaluation was of before."""


def run_eval(recipe: EvalRecipe, recipe_path: Path) -> None:
    """Evaluate, or print the finished evaluation of the same weights again.

    Raises UserError where the needle test is not green.
    """
    model = starting_model(recipe, green=False)
    with RunDirectory.open(recipe, recipe_path) as run, told_in_a_line(run):
        if run.finished and not _is_of(run, model):
            _set_aside(run)
        if not run.finished:
            _evaluate(recipe, recipe_path, run, model)
        summary = report_evaluation(run)
        if "needle" in summary:
            # The recipe's `stop` may have been changed since, to accept what was found.
            stop = recipe.needle is not None and recipe.needle.stop
            refuse_red({**summary["needle"], "stop": stop}, run.path)


def _is_of(run: RunDirectory, model: str) -> bool:
    """Whether a finished evaluation is of this model: another run may have finished since, or the same one anew."""
    summary, version, form = read_json(run.summary) or {}, weights_mark(Path(model)), form_mark(Path(model))
    # Evaluations of before have not noted it.
    if summary.get("model_form", form) != form:
        return False
    # Weights tell a folder's model, wherever it has been moved to; a model of the hub has its name.
    return summary.get("model_version") == version and bool(version or summary.get("model") == model)


def _set_aside(run: RunDirectory) -> None:
    """Keep the summary of another model's evaluation as a line of `earlier.jsonl`, and make room for the next."""
    summary = read_json(run.summary) or {}
    with (run.path / EARLIER).open("a", encoding="utf-8") as file:
        file.write(json.dumps(summary, ensure_ascii=False) + "\n")
    for name in FILES:
        # Its answers are told from the next model's, and leave the file when those are all there.
        if name != "answers.jsonl":
            (run.path / name).unlink(missing_ok=True)
    say(f"The evaluation of {summary.get('model')} is kept in {run.path / EARLIER}.")


def _evaluate(recipe: EvalRecipe, recipe_path: Path, run: RunDirectory, model: str) -> None:
    """Measure, and write the summary."""
    started = time.monotonic()
    summary: dict[str, Any] = {
        "stage": "eval",
        "finished": True,
        "model": model,
        "model_version": weights_mark(Path(model)),
        "model_form": form_mark(Path(model)),
        "lineage": lineage_of(model),
        "recipe": str(recipe_path.resolve()),
        "seed": recipe.run.seed,
    }
    try:
        summary |= _measure(recipe, run, model)
    except Interrupted:
        raise Interrupted("stopped; the same command goes on behind the answers that are kept") from None
    write_json_atomic(run.summary, {**summary, "wall_s": round(time.monotonic() - started, 1)})


def _measure(recipe: EvalRecipe, run: RunDirectory, model: str) -> Figures:
    """Return the figures. What can be wrong is found before Ray starts."""
    tokenizer = load_tokenizer(model)
    recipe = fit_modes(recipe, tokenizer, make_console().print)
    config = load_config(model, recipe.model.rope_fields)
    render = make_renderer(tokenizer)
    say("reading the questions")
    asking = _asking(recipe, render, config, run, model) if recipe.prompts else None
    needles = needles_of(recipe, tokenizer, config)
    figures: Figures = {}
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stack.enter_context(started_ray(recipe.cluster.address))
        require_actors_gpus(recipe.rollout, recipe.cluster.address)
        say(f"{starting(recipe.rollout, recipe.reward)}, which load {model}")
        pool = start_rollouts(recipe.model, model, recipe.rollout, stop)
        stack.callback(pool.close)
        if asking:
            figures["accuracy"] = _accuracy(recipe, asking, pool, render, run)
        figures |= needle_part(recipe, needles, run, pool)
    return figures


def _asking(recipe: EvalRecipe, render: Renderer, config: PreTrainedConfig, run: RunDirectory, model: str) -> Asking:
    assert recipe.prompts and recipe.reward
    own = recipe.evaluation
    if own.samples > 1 and not set(own.modes) & set(own.sampled):
        # The recipe has a mode that samples, and the model's chat template has not.
        left = own.modes[0]
        say(f"evaluation.samples {own.samples}: one answer a question, since {left} is greedy; sampling can name it")
    check_rewards(recipe.reward)
    suites = fitting_suites(
        recipe.prompts,
        own.test_size,
        recipe.reward,
        render,
        config,
        max_new_tokens=recipe.rollout.max_new_tokens,
        key="prompts",
    )
    check_judged(recipe.reward, chain(*suites.values()))
    return Asking(recipe, recipe.reward, suites, model, run.answers)


def _accuracy(recipe: EvalRecipe, asking: Asking, pool: RolloutPool, render: Renderer, run: RunDirectory) -> Figures:
    """Ask, and draw what came of it."""
    assert recipe.reward
    kept = f", {asking.done} of which are answered" if asking.done else ""
    say(f"measuring on {asking.total} questions{kept}")
    scorer = start_scorer(recipe.reward)
    try:
        own = recipe.evaluation
        evaluator = make_evaluator(pool, scorer, render, recipe.rollout, own.chunk_prompts, recipe.run.seed)
        with StepProgress(asking.total, asking.done, name="eval", log_every=1) as progress:
            answered = asking.run(evaluator, progress)
    finally:
        scorer.close()
    figures = accuracy_figures(answered)
    accuracy_picture(figures, run.path / "accuracy.png")
    return figures


def report_evaluation(run: RunDirectory) -> dict[str, Any]:
    """Print the tables of a finished evaluation and where its files lie; return its summary."""
    summary = read_json(run.summary) or {}
    console = make_console()
    if "accuracy" in summary:
        print_accuracy(summary["accuracy"], console)
    if "needle" in summary:
        print_needle(run.path, console)
    say(f"Evaluated {summary['model']} in {format_duration(summary['wall_s'])}.")
    for name in FILES:
        if (run.path / name).exists():
            console.print(f"  {run.path / name}", soft_wrap=True)
    return summary
