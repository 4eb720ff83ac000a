"""The preference stage: what the model itself says, judged and paired, and trained on with SimPER or DPO.

    measure ──► sample ──► pairs ──► TRL's DPOTrainer, a Ray actor a rank ──► hf/ ──► measure, guards

EXAONE 4.0 (arXiv 2507.11407, §2.4.3) does this twice, for brevity and then for people's preferences: two recipes, the
second starting from the first. Everything that a stopped run has done is there when it goes on: the measures before,
the sampled responses, the pairs, the steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from agapo.curation.pairs import row_prompt, training_order
from agapo.curation.rows import PairRow, read_rows
from agapo.errors import UserError
from agapo.evaluation.evaluator import Evaluator
from agapo.evaluation.questions import Questions, check_questions, load_questions, without_overlong
from agapo.evaluation.rendering import Renderer, make_renderer
from agapo.learner.trl.preference import NAMES, make_preference_trainer, save_pairs
from agapo.learner.trl.ranks import Kind
from agapo.model.loading import load_config, load_tokenizer
from agapo.recipe import DPORecipe
from agapo.rewarding.start import check_rewards
from agapo.stages.dpo.given import given_pairs
from agapo.stages.dpo.guards import guard_findings, print_guards
from agapo.stages.dpo.pairing import (
    all_pairs,
    describe_pairs,
    earlier_pairs,
    make_pairs,
    pairs_are_made,
    pairs_file,
    pairs_report,
    print_pairs,
    read_response_groups,
    sample_responses,
    write_pairs,
)
from agapo.stages.running.deaths import told_in_a_line
from agapo.stages.running.finish import SO_FAR, report_finished, run_to_end, spending
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.measure import before_and_after, measured, measuring
from agapo.stages.running.modes import fit_modes
from agapo.stages.running.start import keep_start, starting_model
from agapo.stages.running.system import check_judged, require_own_gpus, started_ray, training_stream
from agapo.stages.running.trainer_loop import TrainerLoop, trainer_loop
from agapo.tracking import (
    RunDirectory,
    learning_curve,
    make_console,
    read_json,
    say,
    write_json_atomic,
)
from agapo.tracking.files import read_json_lines

Rows = list[dict[str, Any]]
UNMEASURED: dict[str, Any] = {"measures": {}, "thinking": {}}
"""What is known of a model that was asked nothing."""


def run_dpo(recipe: DPORecipe, recipe_path: Path) -> None:
    """Run the preference stage, or go on with it. Raises Interrupted after saving when the user asks to stop."""
    start = starting_model(recipe)
    with RunDirectory.open(recipe, recipe_path) as run, told_in_a_line(run):
        keep_start(run, start)
        run_to_end(recipe, recipe_path, run, start, lambda so_far: _prefer(recipe, run, start, so_far))
        _report(run)


def run_pairs(recipe: DPORecipe, recipe_path: Path, responses: Path | None, shown: int) -> None:
    """Build a recipe's pairs and show them, without training; `agapo dpo` then goes on with them.

    With `responses`, the sampled responses of a run are paired by the recipe's policy, and nothing is kept.
    """
    console = make_console()
    if responses is not None:
        groups = read_response_groups(responses)
        paired = make_pairs(groups, recipe.pairs, recipe.run.seed)
        rows = all_pairs(recipe, paired.rows, earlier_pairs(recipe))
        print_pairs(pairs_report(groups, paired, rows), rows, console, shown=shown)
        return
    start = starting_model(recipe)
    with RunDirectory.open(recipe, recipe_path) as run, told_in_a_line(run):
        keep_start(run, start)
        if not pairs_are_made(run.path, recipe.pairs):
            with spending(run), _prepared(recipe, run, start) as stage:
                if not recipe.pairs.rows:
                    with measuring(recipe, start, stage.stop) as evaluator:
                        _pairs(stage, evaluator)
        report = read_json(run.path / "pairs.json") or {}
        print_pairs(report, _own_pairs(run), console, shown=shown)
        for name in filter(lambda name: (run.path / name).exists(), ("responses.jsonl", "pairs.jsonl", "pairs.png")):
            console.print(f"  {run.path / name}", soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class _Stage:
    """What is known before anything is sampled."""

    recipe: DPORecipe
    run: RunDirectory
    start: str
    questions: Questions | None
    """None with pairs that exist already and nothing to measure on."""
    render: Renderer
    earlier: Rows
    """Pairs of an earlier stage that are trained on once more."""
    stop: StopRequest


@contextmanager
def _prepared(recipe: DPORecipe, run: RunDirectory, start: str) -> Iterator[_Stage]:
    """Find what can be wrong, then start Ray; it ends with the block."""
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        tokenizer = load_tokenizer(start)
        recipe = fit_modes(recipe, tokenizer, make_console().print)
        render = make_renderer(tokenizer)
        questions = None
        if recipe.data and recipe.reward:
            say("reading the questions and loading the rewards")
            check_rewards(recipe.reward)
            questions = load_questions(recipe.data, recipe.evaluation)
            questions = without_overlong(questions, render, recipe.data)
            check_questions(recipe, questions, render, load_config(start, recipe.model.rope_fields))
            check_judged(recipe.reward, (*questions.train, *questions.test))
        earlier = earlier_pairs(recipe)
        check_rendering(tokenizer, start, earlier)
        if recipe.pairs.rows and not pairs_are_made(run.path, recipe.pairs):
            rows, left_out = given_pairs(recipe.pairs.rows, tokenizer)
            write_pairs(run.path, recipe.pairs, [], left_out, all_pairs(recipe, rows, earlier))
        stack.enter_context(started_ray(recipe.cluster.address))
        require_own_gpus(recipe)
        yield _Stage(recipe, run, start, questions, render, earlier, stop)


def _prefer(recipe: DPORecipe, run: RunDirectory, start: str, so_far: dict[str, Any]) -> dict[str, Any]:
    """Measure, sample, pair, train, measure; return the summary's content."""
    with _prepared(recipe, run, start) as stage:
        before, made = so_far.get("before"), pairs_are_made(run.path, recipe.pairs)
        if stage.questions and (before is None or not made):
            with measuring(recipe, start, stage.stop) as evaluator:
                if before is None:
                    before = measured(evaluator, stage.recipe, stage.questions.test)
                    write_json_atomic(run.path / SO_FAR, {**so_far, "before": before})
                if not made:
                    _pairs(stage, evaluator)
        report = read_json(run.path / "pairs.json") or {}
        make_console().print(describe_pairs(report), soft_wrap=True, highlight=False)
        with _loop(stage, _training_data(stage, report)) as loop:
            loop.train(stage.stop)
        summary, after = {"before": {}, "after": {}, "tokens_generated": 0}, UNMEASURED
        if stage.questions:
            with measuring(recipe, str(run.hf), stage.stop) as evaluator:
                after = measured(evaluator, stage.recipe, stage.questions.test)
            summary = before_and_after(before or UNMEASURED, after)
        learning_curve(run.metrics, run.curve)
        drift = [line.get("pairs/chosen_drift") for line in read_json_lines(run.metrics)]
        return {
            **summary,
            "tokens_generated": summary["tokens_generated"] + report["sampled_tokens"],
            "steps": loop.settings.steps,
            "pairs": report,
            "guards": guard_findings(recipe.guards, before or UNMEASURED, after, drift),
        }


def _pairs(stage: _Stage, evaluator: Evaluator) -> None:
    """Sample the prompts and write their pairs."""
    recipe, run = stage.recipe, stage.run
    assert stage.questions
    taken = training_stream(recipe, stage.questions).take(0, recipe.pairs.prompts)
    groups = sample_responses(recipe, run, taken, stage.render, evaluator.pool, evaluator.scorer)
    paired = make_pairs(groups, recipe.pairs, recipe.run.seed)
    write_pairs(run.path, recipe.pairs, groups, paired, all_pairs(recipe, paired.rows, stage.earlier))


def _own_pairs(run: RunDirectory) -> Rows:
    """Return the run's pairs. Raises UserError where one was changed since they were written."""
    mend = "delete it, and the same command pairs the sampled responses again"
    return read_rows(PairRow, pairs_file(run.path), "pairs", mend)


def _training_data(stage: _Stage, report: Mapping[str, Any]) -> int:
    """Leave the pairs where the ranks find them, in the order of training; return the steps."""
    recipe, folder = stage.recipe, stage.run.path / "data"
    training = recipe.training
    rows = _own_pairs(stage.run)
    try:
        order = training_order(
            len(rows), epochs=training.epochs, per_step=training.pairs_per_step, seed=recipe.run.seed
        )
    except ValueError as error:
        mend = "raise pairs.prompts or rollout.group_size, or lower training.pairs_per_step"
        if recipe.pairs.rows:
            mend = "give more rows, or lower training.pairs_per_step"
        elif not rows:
            mend = (
                "look at the reasons: another pairs.policy (with a reward that is seldom correct, preferred and "
                "pairs.correct_only=false), or prompts that the model gets right now and then"
            )
        # What was sampled is kept: see `agapo.recipe.keys.BEFORE_TRAINING`.
        raise UserError(f"pairs: {error} ({describe_pairs(report)}); {mend}") from None
    save_pairs(folder, rows, order)
    return len(order) // training.pairs_per_step


def check_rendering(tokenizer: PreTrainedTokenizerBase, start: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError where pairs of an earlier stage are tokens of another tokenizer or chat template."""
    # Of its own: a renderer remembers prompts by their ids, which another recipe's prompts may have too.
    render = make_renderer(tokenizer)
    for row in rows:
        if list(render(row_prompt(row))) != row["prompt_ids"]:
            raise UserError(
                f"pairs.reuse: the prompt '{row['id']}' has other tokens with {start} than in the earlier pairs; "
                "they were made with another tokenizer or chat template: leave 'reuse' out"
            )


def _loop(stage: _Stage, steps: int) -> AbstractContextManager[TrainerLoop]:
    """Return the training loop, as a context manager."""
    training = stage.recipe.training
    return trainer_loop(
        stage.recipe,
        stage.run,
        stage.start,
        Kind(make_preference_trainer, NAMES, "training.micro_batch_pairs, or set model.gradient_checkpointing"),
        steps=steps,
        doing="training",
        of=f" of {training.pairs_per_step} pairs ({training.loss})",
        log_every=20,
    )


def _report(run: RunDirectory) -> None:
    """Print what a finished run came to."""
    report_finished(run)
    summary = read_json(run.summary) or {}
    print_guards(summary["guards"], make_console())
    if not summary["after"]:
        line = "Accuracy, lengths and modes were not guarded: that takes questions ('data') and a 'reward'."
        make_console().print(line, style="yellow", soft_wrap=True)
