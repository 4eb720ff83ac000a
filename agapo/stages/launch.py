"""From a recipe to a finished run: put the system together, run the stage's loop, report.

Every stage ends the same way: the model is exported, measured on the test questions, and `summary.json` written.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from agapo.algorithm.objective import Objective
from agapo.cluster import fetch, require_gpus, start_cluster, stop_cluster, threads_for
from agapo.errors import Interrupted, UserError
from agapo.learner.group import LearnerGroup
from agapo.learner.settings import LearnerSettings
from agapo.model.loading import load_config, load_tokenizer
from agapo.recipe import DPORecipe, Recipe, RLRecipe, SFTRecipe
from agapo.rollouts.supervisor import RolloutPool
from agapo.schema import Prompt
from agapo.stages.accuracy import measures
from agapo.stages.evaluate import Evaluation, Evaluator
from agapo.stages.export import Exporter
from agapo.stages.interrupt import StopRequest
from agapo.stages.needle import needle_test, print_needle, refuse_red
from agapo.stages.needle_prompts import NeedlePrompt, context_of, needle_prompts
from agapo.stages.questions import (
    check_questions,
    describe_questions,
    fitting_test_questions,
    load_questions,
    without_overlong,
)
from agapo.stages.rendering import make_renderer
from agapo.stages.rl import Progress, RLLoop, resume, use_export
from agapo.stages.starting import keep_start, starting_model
from agapo.stages.system import (
    check_rewards,
    make_evaluator,
    start_rollouts,
    start_scorer,
    training_stream,
)
from agapo.tracking import (
    MetricsLogger,
    RunDirectory,
    StepProgress,
    before_after_table,
    final_summary,
    learning_curve,
    lineage_entry,
    lineage_of,
    lineage_table,
    make_console,
    read_json,
    thinking_table,
    write_json_atomic,
    write_model_card,
)

if not torch.cuda.is_available():
    # DeepSpeed, which transformers and TRL import, warns on every start where it has to find this out.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


def run_rl(recipe: RLRecipe, recipe_path: Path) -> None:
    """Run the RL stage, or go on with it. Raises Interrupted after saving when the user asks to stop."""
    model_path = starting_model(recipe)
    with RunDirectory.open(recipe, recipe_path) as run:
        keep_start(run, model_path)
        # More steps than a finished run has made: it goes on.
        if run.finished and (read_json(run.summary) or {}).get("steps", 0) >= recipe.steps:
            say_finished(run)
            report_finished(run)
            return
        with ExitStack() as stack:
            loop = build_rl(recipe, run, model_path, stack)
            try:
                loop.train()
                finish_rl(loop, recipe_path, model_path)
            except Interrupted:
                loop.view.close()
                final_summary(run, steps=loop.progress.step, total_steps=recipe.steps, wall_s=loop.wall_s)
                raise


def build_rl(recipe: RLRecipe, run: RunDirectory, model_path: str, stack: ExitStack) -> RLLoop:
    """Start everything that the loop needs; `stack` ends it. What can be wrong is found before Ray starts."""
    started = time.monotonic()
    render = make_renderer(load_tokenizer(model_path))
    questions = without_overlong(load_questions(recipe.data, recipe.evaluation), render, recipe.data)
    exporter = Exporter(model_path, recipe.model.dtype, recipe.model.rope_fields)
    check_questions(recipe, questions, render, exporter.model.config)
    check_rewards(recipe.reward)
    stop = stack.enter_context(StopRequest())
    start_cluster(recipe.cluster.address)
    stack.callback(stop_cluster)
    own, rollout = recipe.learner, recipe.rollout
    gpus = own.ranks * own.gpus_per_rank + rollout.actors * rollout.gpus_per_actor
    require_gpus(gpus, "learner.gpus_per_rank, rollout.gpus_per_actor", recipe.cluster.address)
    scorer = start_scorer(recipe.reward)
    stack.callback(scorer.pool.close)
    pool = start_rollouts(recipe.model, model_path, recipe.rollout, stop)
    learner = start_learner(recipe, model_path)
    pool.wait_ready()
    learner.wait_ready()
    if recipe.algorithm.kl.coefficient:
        learner.load_reference()
    progress = resume(run, learner)
    logger = MetricsLogger(run, recipe, progress.wandb_id, run.resumed)
    stack.push(lambda kind, *_: logger.close(1 if kind else 0))
    view = stack.enter_context(StepProgress(recipe.steps, progress.step, name="rl"))
    view.announce(_headline(recipe, run, progress))
    view.announce(describe_questions(questions, render))
    evaluator = make_evaluator(pool, scorer, render, recipe.rollout, recipe.evaluation.chunk_prompts, recipe.run.seed)
    stream = training_stream(recipe, questions)
    return RLLoop(
        recipe=recipe,
        run=run,
        questions=questions,
        stream=stream,
        render=render,
        pool=pool,
        learner=learner,
        scorer=scorer,
        evaluator=evaluator,
        exporter=exporter,
        logger=logger,
        view=view,
        layout=learner.layout(),
        progress=progress,
        began=started - progress.wall_s,
    )


def start_learner(recipe: RLRecipe, model_path: str) -> LearnerGroup:
    """Start the learner's ranks."""
    own = recipe.learner
    settings = LearnerSettings(
        model_path=model_path,
        objective=objective_of(recipe),
        temperature=recipe.rollout.temperature,
        dtype=recipe.model.dtype,
        attention=recipe.model.attention,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        rope=recipe.model.rope_fields,
        zero_stage=own.zero_stage,
        learning_rate=own.learning_rate,
        betas=own.betas,
        eps=own.eps,
        weight_decay=own.weight_decay,
        max_grad_norm=own.max_grad_norm,
        micro_batch_tokens=own.micro_batch_tokens,
        layout=own.layout,
        threads=threads_for(own.threads, own.ranks),
        device="cuda" if own.gpus_per_rank else "cpu",
    )
    return LearnerGroup(settings, ranks=own.ranks, gpus_per_rank=own.gpus_per_rank)


def objective_of(recipe: RLRecipe) -> Objective:
    """Return the loss's settings."""
    own = recipe.algorithm
    return Objective(
        kl_coefficient=own.kl.coefficient,
        kl_estimator=own.kl.estimator,
        importance=own.importance.level,
        importance_cap=own.importance.cap,
        clip=(own.clip.low, own.clip.high) if own.clip else None,
        aggregation=own.aggregation,
        max_new_tokens=recipe.rollout.max_new_tokens,
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
    export_result(loop)
    use_export(loop.pool, loop.exporter, run.hf, progress.updates + 1)
    after = loop.evaluator.accuracy(loop.questions.test, recipe.evaluation.modes)
    loop.view.close()
    learning_curve(run.metrics, run.curve)
    summary = {
        **common_summary(recipe, recipe_path, progress.before, after.accuracy),
        "measures": {"after": measures(after.groups)},
        "wall_s": round(loop.wall_s, 1),
        "tokens_generated": progress.tokens,
        "reward_errors": progress.reward_errors,
        "start": progress.start,
        "best_step": progress.best_step,
        "updates": progress.updates,
    }
    finish(run, recipe, summary, model_path)
    report_finished(run)


def finish(run: RunDirectory, recipe: Recipe, summary: Mapping[str, Any], parent: str | None) -> None:
    """Write a run's summary, with where its model came from, and the model's card."""
    summary = {**summary, "parent": parent, "lineage": lineage_of(parent)}
    write_model_card(run, recipe, summary)
    write_json_atomic(run.summary, summary)


def export_result(loop: RLLoop) -> None:
    """Export the best weights, or the last, to `hf/`."""
    keep_best = loop.recipe.evaluation.keep == "best" and loop.recipe.evaluation.every
    if keep_best and loop.progress.best_step >= 0:
        buffer, _ = loop.exporter.read(loop.run.best)
    else:
        buffer = fetch(loop.learner.weights())
    loop.exporter.export(buffer, loop.run.hf)


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


def report_finished(run: RunDirectory) -> None:
    """Print the table before and after, and where things lie."""
    summary = read_json(run.summary) or {}
    before_after_table(summary["before"], summary["after"])
    if thinking := summary.get("thinking"):
        thinking_table(thinking["before"], thinking["after"])
    lineage_table([*summary.get("lineage", []), lineage_entry(run.path, summary)])
    final_summary(run, steps=summary["steps"], total_steps=summary["steps"], wall_s=summary["wall_s"])


def run_sft(recipe: SFTRecipe, recipe_path: Path) -> None:
    """Run the SFT stage, or go on with it. Raises Interrupted after saving when the user asks to stop."""
    parent = None if recipe.create else starting_model(recipe)
    with RunDirectory.open(recipe, recipe_path) as run:
        run_to_end(recipe, recipe_path, run, parent, lambda so_far: _fine_tune(recipe, run, parent, so_far))
        report_sft(run)


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
        summary = work(read_json(run.path / SO_FAR) or {})
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


def report_sft(run: RunDirectory) -> None:
    """Print what a finished SFT run came to. Raises UserError where its needle test should be green and is not."""
    report_finished(run)
    if needle := (read_json(run.summary) or {}).get("needle"):
        print_needle(run.path)
        refuse_red(needle, run.path)


SO_FAR = "so_far.json"
"""What such a run that goes on needs besides its checkpoint: the measures before, and the seconds spent."""


def _fine_tune(recipe: SFTRecipe, run: RunDirectory, parent: str | None, earlier: dict[str, Any]) -> dict[str, Any]:
    """Measure, train, measure; return the summary's content."""
    from agapo.stages import sft

    check_rewards(recipe.reward)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        if recipe.cluster.address:
            start_cluster(recipe.cluster.address)
            stack.callback(stop_cluster)
        require_own_gpus(recipe)
        start = sft.start_folder(recipe, run, parent, stop)
        questions = _questions(recipe, start)
        needles = _needles(recipe, start)
        with sft.sft_loop(recipe, run, start, questions, stop) as (loop, data):
            if not recipe.cluster.address:
                start_cluster(None)
                stack.callback(stop_cluster)
            before = earlier.get("before")
            if before is None:
                with measuring(recipe, start, stop) as evaluator:
                    before = measured(evaluator.accuracy(questions, recipe.evaluation.modes))
                write_json_atomic(run.path / SO_FAR, {**earlier, "before": before})
            loop.train(stop)
        with measuring(recipe, str(run.hf), stop) as evaluator:
            after = measured(evaluator.accuracy(questions, recipe.evaluation.modes))
            needle = _needle_test(recipe, run, evaluator.pool, needles)
        learning_curve(run.metrics, run.curve)
        return {**before_and_after(before, after), "steps": data.steps, **sft.data_summary(data), **needle}


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


def require_own_gpus(recipe: SFTRecipe | DPORecipe) -> None:
    """Training and measuring take turns."""
    training, rollout = recipe.training, recipe.rollout
    for gpus, keys in (
        (training.ranks * training.gpus_per_rank, "training.ranks × gpus_per_rank"),
        (rollout.actors * rollout.gpus_per_actor, "rollout.actors × gpus_per_actor"),
    ):
        require_gpus(gpus, keys, recipe.cluster.address)


def _questions(recipe: SFTRecipe, start: str) -> list[Prompt]:
    return fitting_test_questions(
        recipe.prompts,
        recipe.evaluation.test_size,
        recipe.reward,
        make_renderer(load_tokenizer(start)),
        load_config(start, recipe.model.rope_fields),
        max_new_tokens=recipe.rollout.max_new_tokens,
        key="prompts",
    )


def _needles(recipe: SFTRecipe, start: str) -> list[NeedlePrompt]:
    """Return the needle test's prompts, made before the training so that what is wrong with them is known."""
    if recipe.needle is None:
        return []
    context = context_of(load_config(start, recipe.model.rope_fields))
    return needle_prompts(recipe.needle, load_tokenizer(start), context=context, seed=recipe.run.seed)


def _needle_test(
    recipe: SFTRecipe, run: RunDirectory, pool: RolloutPool, prompts: Sequence[NeedlePrompt]
) -> dict[str, Any]:
    """Return the needle test's part of the summary, empty where the recipe has none."""
    if recipe.needle is None:
        return {}
    tokenizer, context = load_tokenizer(run.hf), context_of(load_config(run.hf))
    say, seed = make_console().print, recipe.run.seed
    found = needle_test(recipe.needle, pool, tokenizer, run.path, context=context, seed=seed, prompts=prompts, say=say)
    return {"needle": found.summary}


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
        stack.callback(scorer.pool.close)
        pool = start_rollouts(recipe.model, folder, recipe.rollout, stop)
        stack.callback(pool.close)
        chunk, seed = recipe.evaluation.chunk_prompts, recipe.run.seed
        yield make_evaluator(pool, scorer, render, recipe.rollout, chunk, seed)
