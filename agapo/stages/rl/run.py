"""From an RL recipe to a finished run: put the system together, run the loop, report."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agapo.algorithm.objective import Objective
from agapo.cluster import fetch, threads_for
from agapo.errors import Interrupted, ProcessDied
from agapo.evaluation.evaluator import Evaluator
from agapo.evaluation.figures import measures
from agapo.evaluation.questions import (
    check_questions,
    describe_questions,
    load_questions,
    load_sets,
    without_asked,
    without_overlong,
)
from agapo.evaluation.rendering import make_renderer
from agapo.learner.rl.group import LearnerGroup
from agapo.learner.rl.reference import Reference
from agapo.learner.rl.settings import LearnerSettings
from agapo.model.loading import load_tokenizer
from agapo.placement import Placement
from agapo.recipe import RLRecipe
from agapo.recipe.rollout import rollout_warnings
from agapo.reporting import try_report
from agapo.resolve import resolve
from agapo.rewarding.scorer import Scorer
from agapo.rewarding.start import check_rewards, start_scorer
from agapo.rollouts.pool import RolloutPool
from agapo.stages.rl.collector import Collector, rendered
from agapo.stages.rl.loop import RLLoop
from agapo.stages.rl.progress import Progress, begun_before, doubts, resume
from agapo.stages.rl.watching import watch
from agapo.stages.rl.weight_sync import WeightSync
from agapo.stages.running.deaths import told_in_a_line
from agapo.stages.running.export import make_exporter
from agapo.stages.running.finish import common_summary, finish, report_finished, say_finished
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.measure import about_test
from agapo.stages.running.modes import fit_modes
from agapo.stages.running.start import keep_start, starting_model
from agapo.stages.running.system import (
    check_judged,
    make_evaluator,
    require_own_gpus,
    start_rollouts,
    started_ray,
    starting,
    training_stream,
)
from agapo.tracking import (
    MetricsLogger,
    RunDirectory,
    StepProgress,
    Timeline,
    final_summary,
    learning_curve,
    make_console,
    read_json,
    say,
    write_json_atomic,
)
from agapo.tracking.ownership import is_over, next_step


def run_rl(recipe: RLRecipe, recipe_path: Path) -> None:
    """Run the RL stage, or go on with it. Raises Interrupted after saving when the user asks to stop."""
    model_path = starting_model(recipe)
    with RunDirectory.open(recipe, recipe_path) as run, told_in_a_line(run):
        keep_start(run, model_path)
        # More steps than a finished run has made, or more tokens: it goes on.
        if is_over(run.path, recipe):
            say_finished(run)
            report_finished(run)
            return
        left = recipe.learner.max_restarts
        while True:
            try:
                _train(recipe, recipe_path, run, model_path)
                return
            except ProcessDied as died:
                if not left:
                    raise
                left -= 1
                _say_new_start(run, died, left)


def _train(recipe: RLRecipe, recipe_path: Path, run: RunDirectory, model_path: str) -> None:
    """Start the run's processes, and train from the last checkpoint to the end."""
    with ExitStack() as stack:
        loop = build_rl(recipe, run, model_path, stack)
        if run.finished:
            # It goes on for more steps: till then nobody is to take its model for the last finished one.
            write_json_atomic(run.summary, {**(read_json(run.summary) or {}), "finished": False})
        try:
            loop.train()
            finish_rl(loop, recipe_path, model_path)
        except Interrupted:
            loop.view.close()
            loop.timeline.flush()
            try_report(run.path)
            final_summary(run, steps=loop.progress.step, total_steps=recipe.steps, wall_s=loop.wall_s)
            raise


def _say_new_start(run: RunDirectory, died: ProcessDied, left: int) -> None:
    """Say that a rank is gone, and where the run goes on; in its records it is a run that is resumed."""
    run.resumed = True
    step = next_step(run.path)
    make_console().print(
        f"{died}; starting again from {f'step {step}' if step else 'the start'} "
        f"(learner.max_restarts: {left} more new starts)",
        soft_wrap=True,
        highlight=False,
    )


def build_rl(recipe: RLRecipe, run: RunDirectory, model_path: str, stack: ExitStack) -> RLLoop:
    """Start everything that the loop needs; `stack` ends it. What can be wrong is found before Ray starts."""
    started = time.monotonic()
    tokenizer = load_tokenizer(model_path)
    recipe = fit_modes(recipe, tokenizer, make_console().print)
    render = make_renderer(tokenizer)
    say("reading the questions and loading the rewards")
    questions = without_overlong(load_questions(recipe.data, recipe.evaluation), render, recipe.data)
    exporter = make_exporter(model_path, recipe.model, recipe.learner.lora)
    check_questions(recipe, questions, render, exporter.config)
    sets = load_sets(recipe, render, exporter.config)
    questions = without_asked(questions, sets)
    check_rewards(recipe.reward)
    check_judged(recipe.reward, (*questions.train, *questions.test))
    if recipe.algorithm.objective:
        resolve(recipe.algorithm.objective, key="algorithm.objective")
    scorer, pool, learner = _start_workers(recipe, model_path, stack)
    progress = resume(run, learner)
    began = started - progress.wall_s
    timeline = Timeline(run.timeline, began)
    stack.callback(timeline.close)
    judge = watch(timeline, pool, learner, scorer)
    logger = MetricsLogger(run, recipe, progress.wandb_id, run.resumed)
    stack.push(lambda kind, *_: logger.close(1 if kind else 0))
    view = stack.enter_context(StepProgress(recipe.steps, progress.step, name="rl"))
    view.announce(_headline(recipe, run, progress))
    view.announce(describe_questions(questions, render))
    for warning in rollout_warnings(recipe.rollout):
        view.announce(f"warning: {warning}")
    evaluator = make_evaluator(pool, judge, render, recipe.rollout, recipe.evaluation.chunk_prompts, recipe.run.seed)
    stream = training_stream(recipe, questions)
    return RLLoop(
        recipe=recipe,
        run=run,
        questions=questions,
        sets=sets,
        pool=pool,
        learner=learner,
        collector=Collector(
            recipe=recipe,
            run=run,
            stream=stream,
            render=render,
            pool=pool,
            scorer=judge,
            weight_sync=WeightSync(recipe.rollout.weight_transport, learner, pool, view.announce),
            logger=logger,
            progress=progress,
            reference=Reference(
                learner,
                early=recipe.learner.early_reference,
                tokens=recipe.learner.ranks * recipe.learner.micro_batch_tokens,
            ),
            begun=begun_before(
                run, recipe, progress, lambda at: rendered(stream.take(at, 1), render)[0], view.announce
            ),
        ),
        evaluator=evaluator,
        exporter=exporter,
        logger=logger,
        view=view,
        progress=progress,
        timeline=timeline,
        began=began,
    )


def _start_workers(recipe: RLRecipe, model_path: str, stack: ExitStack) -> tuple[Scorer, RolloutPool, LearnerGroup]:
    """Return verifiers, rollout actors and learner ranks, each with its model loaded."""
    stop = stack.enter_context(StopRequest())
    stack.enter_context(started_ray(recipe.cluster.address))
    own, rollout = recipe.learner, recipe.rollout
    require_own_gpus(recipe)
    say(f"{starting(rollout, recipe.reward)}; learner ranks: {own.ranks}. Actors and ranks load {model_path}")
    scorer = start_scorer(recipe.reward)
    stack.callback(scorer.close)
    placement = Placement(
        ranks=own.ranks,
        gpus_per_rank=own.gpus_per_rank,
        actors=rollout.actors,
        gpus_per_actor=rollout.gpus_per_actor,
    )
    stack.callback(placement.close)
    pool = start_rollouts(recipe.model, model_path, recipe.rollout, stop, own.lora, placement)
    stack.callback(pool.close)
    learner = start_learner(recipe, model_path, placement)
    stack.callback(learner.close)
    pool.wait_ready()
    learner.wait_ready()
    if recipe.algorithm.kl.coefficient:
        learner.load_reference()
    return scorer, pool, learner


def start_learner(recipe: RLRecipe, model_path: str, placement: Placement) -> LearnerGroup:
    """Start the learner's ranks."""
    settings = LearnerSettings(
        model_path=model_path,
        objective=objective_of(recipe),
        temperature=recipe.rollout.temperature,
        model=recipe.model,
        learner=recipe.learner.model_copy(update={"max_grad_norm": recipe.max_grad_norm}),
        threads=threads_for(recipe.learner.threads, recipe.learner.ranks),
        seed=recipe.run.seed,
        background=recipe.checkpoint.background,
    )
    return LearnerGroup(settings, placement, recipe.run_directory)


def objective_of(recipe: RLRecipe) -> Objective:
    """Return the loss's settings."""
    own = recipe.algorithm
    return Objective(
        kl_coefficient=own.kl.coefficient,
        kl_estimator=own.kl.estimator,
        importance=own.importance.level,
        importance_cap=own.importance.cap,
        importance_band=own.importance.band,
        clip=(own.clip.low, own.clip.high) if own.clip else None,
        aggregation=own.aggregation,
        max_new_tokens=recipe.rollout.max_new_tokens,
        function=own.objective,
    )


def _headline(recipe: RLRecipe, run: RunDirectory, progress: Progress) -> str:
    verb = f"going on from step {progress.step} of" if progress.step else "training"
    return (
        f"{verb} {recipe.steps} steps of {recipe.prompts_per_step} prompts × {recipe.rollout.group_size} responses "
        f"({recipe.algorithm.preset}) in {run.path}"
    )


def finish_rl(loop: RLLoop, recipe_path: Path, model_path: str) -> None:
    """Export, measure on the test questions, and report."""
    progress, recipe, run = loop.progress, loop.recipe, loop.run
    exported = export_result(loop)
    test = loop.questions.test
    loop.view.announce(f"measuring step {exported['step']}, which hf/ holds, on {len(test)} test questions")
    with sampling_export(loop) as evaluator:
        after = evaluator.accuracy(test, recipe.evaluation.modes)
    loop.view.close()
    learning_curve(run.metrics, run.curve)
    summary = {
        **common_summary(recipe, recipe_path, progress.before, after.accuracy),
        # `max_sampled_tokens` may have ended it before the recipe's.
        "steps": progress.step,
        "measures": {"after": measures(after.groups)},
        "sets": progress.sets,
        "test": about_test(after, test, recipe.reward, recipe.rollout),
        "wall_s": round(loop.wall_s, 1),
        "tokens_generated": progress.tokens,
        "reward_errors": progress.reward_errors,
        "start": progress.start,
        "best_step": progress.best_step,
        "exported": exported,
        "warnings": doubts(progress, recipe),
        "updates": progress.updates,
    }
    loop.timeline.flush()
    finish(run, recipe, summary, model_path)
    report_finished(run)


def export_result(loop: RLLoop) -> dict[str, Any]:
    """Export the best weights, or the last, to `hf/`; return which: their `step`, and `why`."""
    progress = loop.progress
    keep_best = loop.recipe.evaluation.keep == "best" and loop.recipe.evaluation.every
    if keep_best and progress.best_step >= 0:
        weights = loop.exporter.read(loop.run.best)
        figures = f"accuracy {100 * progress.best_accuracy:.1f} %, mean reward {progress.best_reward:.3g}"
        exported = {"step": progress.best_step, "why": f"the best on the validation questions ({figures})"}
    else:
        weights = fetch(loop.learner.weights())
        exported = {"step": progress.step, "why": "the last"}
    loop.exporter.export(weights, loop.run)
    return exported


@contextmanager
def sampling_export(loop: RLLoop) -> Iterator[Evaluator]:
    """Yield what measures the exported model: its actors sample with just those weights."""
    own = loop.recipe
    if not own.learner.lora:
        loop.pool.set_weights(loop.exporter.read(loop.run.hf), loop.progress.updates + 1)
        yield loop.evaluator
        return
    # The run's actors take adapters alone, and what is exported has them merged, and rounded with the weights.
    loop.pool.close()
    pool = start_rollouts(own.model, str(loop.run.hf), own.rollout, loop.pool.should_stop)
    try:
        yield replace(loop.evaluator, pool=pool)
    finally:
        pool.close()
