"""`agapo filter`: sample each training prompt a few times, and keep those that teach something.

EXAONE 4.0 (arXiv 2507.11407, §3.2) samples eight responses a prompt from the SFT model and drops the prompts that it
always solves. The result is a folder with `train.jsonl` and `test.jsonl`, which RL recipes take through
`data.files:prompts`. A filter that was stopped goes on: a chunk of prompts is either written whole or sampled again,
and what it samples does not depend on the moment.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agapo.errors import UserError
from agapo.evaluation.questions import check_questions, load_questions, without_overlong
from agapo.evaluation.rendering import Renderer, make_renderer
from agapo.model.loading import load_config, load_tokenizer
from agapo.recipe import RLRecipe
from agapo.recipe.filtering import FilterRecipe, filter_recipe
from agapo.rewarding.scorer import Scorer
from agapo.rewarding.start import check_rewards, start_scorer
from agapo.rollouts.engine import PromptRequest
from agapo.rollouts.pool import RolloutPool
from agapo.rollouts.sampling import sample_and_score
from agapo.schema import Group, Prompt
from agapo.stages.pasted import only_source
from agapo.stages.running.deaths import told_in_a_line
from agapo.stages.running.interrupt import StopRequest
from agapo.stages.running.modes import fit_modes
from agapo.stages.running.start import keep_start, starting_model
from agapo.stages.running.system import (
    check_judged,
    require_actors_gpus,
    sampling_params,
    start_rollouts,
    started_ray,
    starting,
)
from agapo.tracking import RunDirectory, StepProgress, make_console, read_json, say, write_json_atomic
from agapo.tracking.files import json_line, read_json_lines, write_text_atomic
from agapo.tracking.report import solve_rate_counts, solve_rate_histogram, solve_rate_table


@dataclass(frozen=True)
class Measured:
    """How often a prompt was solved."""

    id: str
    solve_rate: float | None
    """Share of correct responses, 0 to 1; None where no response has a verdict."""
    samples: int
    """Responses with a verdict."""
    length: float
    """Mean tokens a response."""


def run_filter(recipe: RLRecipe, path: Path, *, samples: int, drop_from: float, drop_below: float) -> None:
    """Filter the training prompts of an RL recipe, or go on with it. Raises Interrupted when the user asks to stop."""
    try:
        own = filter_recipe(recipe, samples=samples, drop_from=drop_from, drop_below=drop_below)
    except ValidationError as error:
        first = error.errors()[0]
        option = "".join(f"--{name}: ".replace("_", "-") for name in first["loc"])
        raise UserError(f"{option}{first['msg'].removeprefix('Value error, ')}") from None
    model_path = starting_model(recipe)
    with RunDirectory.open(own, path) as run, told_in_a_line(run):
        keep_start(run, model_path)
        if not run.finished:
            _measure_and_write(recipe, own, run, model_path)
        _report(run)


def _measure_and_write(recipe: RLRecipe, own: FilterRecipe, run: RunDirectory, model_path: str) -> None:
    started = time.monotonic()
    tokenizer = load_tokenizer(model_path)
    recipe = fit_modes(recipe, tokenizer, make_console().print)
    render = make_renderer(tokenizer)
    say("reading the questions and loading the rewards")
    questions = without_overlong(load_questions(recipe.data, recipe.evaluation), render, recipe.data)
    check_questions(recipe, questions, render, load_config(model_path, recipe.model.rope_fields))
    check_rewards(recipe.reward)
    check_judged(recipe.reward, (*questions.train, *questions.validation))
    mode = max(recipe.data.modes, key=lambda name: recipe.data.modes[name])
    prompts = [replace(prompt, mode=mode) for prompt in (*questions.train, *questions.validation)]
    prompts.sort(key=lambda prompt: prompt.id)
    measured = _measure(own, run, model_path, render, prompts)
    kept = [prompt for prompt in prompts if _is_kept(measured[prompt.id].solve_rate, own)]
    if not kept:
        raise UserError(f"--drop-from, --drop-below: no prompt is left of {len(prompts)}; see {_rates(run)}")
    _write_rows(run.path / "train.jsonl", kept, measured)
    _write_rows(run.path / "test.jsonl", questions.test, {})
    summary = _summary(own, prompts, kept, measured)
    solve_rate_histogram(summary["solve_rates"], run.path / "solve_rates.png")
    write_json_atomic(run.summary, summary | {"model": model_path, "wall_s": round(time.monotonic() - started, 1)})


def _measure(
    own: FilterRecipe, run: RunDirectory, model_path: str, render: Renderer, prompts: Sequence[Prompt]
) -> dict[str, Measured]:
    """Return every prompt's solve rate; what an earlier process has written is not sampled again."""
    known = {row["id"]: Measured(**row) for row in read_json_lines(_rates(run))}
    size = own.rollout.chunk_prompts
    chunks = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    left = [chunk for chunk in chunks if not all(prompt.id in known for prompt in chunk)]
    known = {prompt.id: known[prompt.id] for chunk in chunks if chunk not in left for prompt in chunk}
    if not left:
        return known
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stack.enter_context(started_ray(own.cluster.address))
        require_actors_gpus(own.rollout, own.cluster.address)
        say(f"{starting(own.rollout, own.reward)}, which load {model_path}")
        scorer = start_scorer(own.reward)
        stack.callback(scorer.close)
        pool = start_rollouts(own.model, model_path, own.rollout, stop)
        stack.callback(pool.close)
        view = stack.enter_context(StepProgress(len(chunks), len(chunks) - len(left), name="filter"))
        view.announce(
            f"{len(prompts)} prompts × {own.samples} responses from {model_path}"
            + (f", of which {len(known)} prompts are done" if known else "")
        )
        return known | _sample(own, run, pool, scorer, render, left, view)


def _sample(
    own: FilterRecipe,
    run: RunDirectory,
    pool: RolloutPool,
    scorer: Scorer,
    render: Renderer,
    chunks: Sequence[Sequence[Prompt]],
    view: StepProgress,
) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    params = replace(sampling_params(own.rollout, own.run.seed), group_size=own.samples)
    requests = [PromptRequest(prompt, render(prompt)) for chunk in chunks for prompt in chunk]
    done = view.done
    with _rates(run).open("a", encoding="utf-8") as file:
        for judged in sample_and_score(pool, scorer, requests, params, chunk_prompts=own.rollout.chunk_prompts):
            items = [_measured(group) for group in judged]
            found |= {item.id: item for item in items}
            file.write("".join(json_line(vars(item)) for item in items))
            file.flush()
            done += 1
            view.update(done, {"reward/accuracy": _mean([item.solve_rate for item in found.values()])})
    return found


def _measured(group: Group) -> Measured:
    verdicts = group.verdicts
    tokens = sum(len(response.token_ids) for response in group.responses)
    rate = sum(verdicts) / len(verdicts) if verdicts else None
    return Measured(group.prompt.id, rate, len(verdicts), tokens / len(group.responses))


def _is_kept(rate: float | None, own: FilterRecipe) -> bool:
    """A prompt without a verdict cannot teach anything."""
    return rate is not None and own.drop_below <= rate < own.drop_from


def _write_rows(path: Path, prompts: Sequence[Prompt], measured: Mapping[str, Measured]) -> None:
    rows = [_row(prompt, measured.get(prompt.id)) for prompt in prompts]
    write_text_atomic(path, "".join(map(json_line, rows)))


def _row(prompt: Prompt, measured: Measured | None) -> dict[str, Any]:
    about = {"id": prompt.id, "messages": prompt.messages, "domain": prompt.domain, "language": prompt.language}
    return {**about, **prompt.columns, **({"solve_rate": measured.solve_rate} if measured else {})}


def _summary(
    own: FilterRecipe, prompts: Sequence[Prompt], kept: Sequence[Prompt], measured: Mapping[str, Measured]
) -> dict[str, Any]:
    rates = [measured[prompt.id].solve_rate for prompt in prompts]
    return {
        "stage": "filter",
        "finished": True,
        "samples": own.samples,
        "prompts": len(prompts),
        "kept": len(kept),
        "solved": sum(rate is not None and rate >= own.drop_from for rate in rates),
        "too_hard": sum(rate is not None and rate < own.drop_below for rate in rates),
        "no_verdict": sum(rate is None for rate in rates),
        "solve_rates": solve_rate_counts(rates, own.samples),
    }


def _report(run: RunDirectory) -> None:
    summary = read_json(run.summary) or {}
    solve_rate_table(summary["solve_rates"])
    make_console().print(
        f"kept {summary['kept']} of {summary['prompts']} prompts (dropped: {summary['solved']} solved, "
        f"{summary['too_hard']} too hard, {summary['no_verdict']} without a verdict)\n"
        f"To train on them: {only_source('data.files:prompts', run.path)}",
        soft_wrap=True,
    )


def _rates(run: RunDirectory) -> Path:
    return run.path / "solve_rates.jsonl"


def _mean(rates: Sequence[float | None]) -> float:
    known = [rate for rate in rates if rate is not None]
    return sum(known) / len(known) if known else 0.0
