"""From an SFT recipe to a finished run: make or find the start, measure, train, measure, report."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from agapo.evaluation.needle import print_needle, refuse_red
from agapo.evaluation.needle_prompts import NeedlePrompt
from agapo.evaluation.questions import fitting_test_questions
from agapo.evaluation.rendering import make_renderer
from agapo.model.loading import load_config, load_tokenizer
from agapo.recipe import SFTRecipe
from agapo.rewarding.start import check_rewards
from agapo.schema import Prompt
from agapo.stages.running.deaths import told_in_a_line
from agapo.stages.running.finish import SO_FAR, report_finished, run_to_end
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.measure import (
    before_and_after,
    measured,
    measuring,
    needle_part,
    needles_of,
)
from agapo.stages.running.modes import fit_modes
from agapo.stages.running.start import keep_start, starting_model
from agapo.stages.running.system import check_judged, require_own_gpus, started_ray
from agapo.stages.sft.loop import data_summary, held_out_loss, sft_loop, start_folder
from agapo.tracking import RunDirectory, learning_curve, make_console, read_json, say, write_json_atomic


def run_sft(recipe: SFTRecipe, recipe_path: Path) -> None:
    """Run the SFT stage, or go on with it. Raises Interrupted after saving when the user asks to stop."""
    if recipe.create:
        say(f"sft: starts from random weights, drawn with run.seed {recipe.run.seed} (create)")
    parent = None if recipe.create else starting_model(recipe)
    with RunDirectory.open(recipe, recipe_path) as run, told_in_a_line(run):
        if parent:
            keep_start(run, parent)
        run_to_end(recipe, recipe_path, run, parent, lambda so_far: _fine_tune(recipe, run, parent, so_far))
        heed_needle_stop(recipe, run)
        report_sft(run)


def heed_needle_stop(recipe: SFTRecipe, run: RunDirectory) -> None:
    """Let a finished run's `needle.stop` follow its recipe: a red grid may be accepted afterwards."""
    summary = read_json(run.summary) or {}
    if recipe.needle and "needle" in summary and summary["needle"]["stop"] != recipe.needle.stop:
        summary["needle"]["stop"] = recipe.needle.stop
        write_json_atomic(run.summary, summary)


def report_sft(run: RunDirectory) -> None:
    """Print what a finished SFT run came to. Raises UserError where its needle test should be green and is not."""
    report_finished(run)
    if needle := (read_json(run.summary) or {}).get("needle"):
        print_needle(run.path)
        refuse_red(needle, run.path)


def _fine_tune(recipe: SFTRecipe, run: RunDirectory, parent: str | None, earlier: dict[str, Any]) -> dict[str, Any]:
    """Measure, train, measure; return the summary's content."""
    if recipe.reward:
        say("loading the rewards")
        check_rewards(recipe.reward)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        if recipe.cluster.address:
            stack.enter_context(started_ray(recipe.cluster.address))
        require_own_gpus(recipe)
        start = start_folder(recipe, run, parent, stop)
        tokenizer, config = load_tokenizer(start), load_config(start, recipe.model.rope_fields)
        recipe = fit_modes(recipe, tokenizer, make_console().print)
        questions = _questions(recipe, tokenizer, config)
        needles = needles_of(recipe, tokenizer, config)
        with sft_loop(recipe, run, start, questions, stop) as (loop, data):
            if not recipe.cluster.address:
                stack.enter_context(started_ray(None))
            if "before" not in earlier:
                earlier |= {"before": _measured(recipe, run, start, questions, [], stop)[0]}
                earlier |= {"loss_before": held_out_loss(recipe, start, data, stop)}
                write_json_atomic(run.path / SO_FAR, earlier)
            loop.train(stop)
        after, needle = _measured(recipe, run, str(run.hf), questions, needles, stop)
        losses = {"before": earlier.get("loss_before"), "after": held_out_loss(recipe, str(run.hf), data, stop)}
        learning_curve(run.metrics, run.curve)
        found = before_and_after(earlier["before"], after) if after else {"before": {}, "after": {}}
        if data.held:
            found["held_out"] = {"dialogues": len(data.held), "loss": losses}
        return {**found, "steps": data.steps, **data_summary(data), **needle}


def _measured(
    recipe: SFTRecipe,
    run: RunDirectory,
    folder: str,
    questions: Sequence[Prompt],
    needles: Sequence[NeedlePrompt],
    stop: StopRequest,
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return (the accuracy on the questions, the needle test's part of the summary); no actor starts for neither."""
    if not (questions or needles):
        return None, {}
    with measuring(recipe, folder, stop) as evaluator:
        accuracy = measured(evaluator, recipe, questions) if questions else None
        return accuracy, needle_part(recipe, needles, run, evaluator.pool) if needles else {}


def _questions(recipe: SFTRecipe, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> list[Prompt]:
    if not (recipe.prompts and recipe.reward):
        return []
    questions = fitting_test_questions(
        recipe.prompts,
        recipe.evaluation.test_size,
        recipe.reward,
        make_renderer(tokenizer),
        config,
        max_new_tokens=recipe.rollout.max_new_tokens,
        key="prompts",
    )
    check_judged(recipe.reward, questions)
    return questions
