"""agapo as a library: the few things that people script (docs/library.md). `from agapo import …` gets them.

Whatever the command line does is done by the same functions; what is no more than a command (`agapo report`, say) is
left to it. A mistake in a recipe is a `UserError`; Ctrl-C in a run is `Interrupted`, with what the run saves saved.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from agapo.built_in import find_recipe
from agapo.errors import UserError
from agapo.forking.driver import start_forks
from agapo.recipe import STAGES, DPORecipe, Recipe, RLRecipe, SFTRecipe
from agapo.recipe import load_recipe as load
from agapo.recipe.read import recipe_stage
from agapo.resolve import resolve
from agapo.schema import Group, Mode, Prompt
from agapo.tracking.files import read_json
from agapo.tracking.hooks import Hook, calling


def load_recipe(path: Path | str, *overrides: str) -> Recipe:
    """Return a recipe file, checked, with `key.path=value` overrides, as the class of its stage.

    Raises UserError, one line a mistake, each naming file and key.
    """
    file = find_recipe(Path(path))
    return load(STAGES[recipe_stage(file)], file, list(overrides))


def run(path: Path | str, *overrides: str, on_step: Hook | None = None) -> dict[str, Any]:
    """Run a recipe's stage to its end, or go on with it, and return its summary (`summary.json`).

    `on_step(step, metrics)` is called with each line of `metrics.jsonl`. Raises UserError; Interrupted on Ctrl-C.
    """
    # Read when torch loads (`agapo.cli`).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    recipe, file = load_recipe(path, *overrides), find_recipe(Path(path))
    start_forks(recipe.cluster.address, trainers=isinstance(recipe, SFTRecipe | DPORecipe))
    with calling(on_step):
        _stage(recipe)(recipe, file)
    return read_json(recipe.run_directory / "summary.json") or {}


def _stage(recipe: Recipe) -> Callable[[Any, Path], None]:
    """Return what runs a recipe; a stage's imports take seconds, and are made for that stage alone."""
    if isinstance(recipe, SFTRecipe):
        from agapo.stages.sft.run import run_sft

        return run_sft
    if isinstance(recipe, RLRecipe):
        from agapo.stages.rl.run import run_rl

        return run_rl
    if isinstance(recipe, DPORecipe):
        from agapo.stages.dpo.run import run_dpo

        return run_dpo
    from agapo.stages.eval.run import run_eval

    return run_eval


def sample(
    path: Path | str, *overrides: str, prompts: Sequence[Mapping[str, Any]] | None = None, model: str | None = None
) -> list[Group]:
    """Sample `rollout.group_size` responses to each prompt, as an RL recipe says, and score them with its rewards.

    `prompts` are rows as a data source yields them (`messages`, what the rewards read, and a `mode` if it is to be
    another than the recipe's first); None asks the recipe's test questions. `model` is a folder or hub name; None is
    what the recipe starts from. The groups come back in the order of the prompts. Raises UserError.
    """
    recipe = load_recipe(path, *overrides)
    if not isinstance(recipe, RLRecipe):
        raise UserError(f"{path}: stage: is '{recipe.stage}'; sampling wants a recipe of 'rl'")
    given = None if prompts is None else _given(prompts)
    start_forks(recipe.cluster.address, trainers=False)
    from agapo.cluster import in_cluster
    from agapo.evaluation.rendering import make_renderer
    from agapo.model.loading import load_tokenizer
    from agapo.rewarding.start import start_scorer
    from agapo.rollouts.engine import PromptRequest
    from agapo.rollouts.sampling import sample_and_score
    from agapo.stages.running.interrupt import StopRequest
    from agapo.stages.running.modes import fit_modes
    from agapo.stages.running.start import starting_model, with_chat_template
    from agapo.stages.running.system import require_actors_gpus, sampling_params, start_rollouts

    folder = with_chat_template(recipe, model) if model else starting_model(recipe)
    tokenizer = load_tokenizer(folder)
    recipe = fit_modes(recipe, tokenizer, print)
    render = make_renderer(tokenizer)
    requests = [PromptRequest(prompt, render(prompt)) for prompt in _asked(recipe, given)]
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stack.enter_context(in_cluster(recipe.cluster.address))
        require_actors_gpus(recipe.rollout, recipe.cluster.address)
        scorer = start_scorer(recipe.reward)
        stack.callback(scorer.close)
        pool = start_rollouts(recipe.model, folder, recipe.rollout, stop)
        stack.callback(pool.close)
        params = sampling_params(recipe.rollout, recipe.run.seed)
        chunks = sample_and_score(pool, scorer, requests, params, chunk_prompts=recipe.rollout.chunk_prompts)
        return [group for chunk in chunks for group in chunk]


Given = Sequence[tuple[Prompt, Mode | None]]
"""Questions of the caller's, each with the mode that its row names."""


def _given(rows: Sequence[Mapping[str, Any]]) -> Given:
    """Return the rows as prompts. Raises UserError, naming the row, where one is malformed."""
    from agapo.curation.prompts import as_mode, as_prompt, require_own_ids

    places = [f"prompts: row {number}" for number in range(1, len(rows) + 1)]
    asked = [as_prompt(row, "given", place) for row, place in zip(rows, places, strict=True)]
    require_own_ids(asked, "prompts")
    modes: list[Mode | None] = [
        as_mode(row["mode"], place) if row.get("mode") else None for row, place in zip(rows, places, strict=True)
    ]
    return list(zip(asked, modes, strict=True))


def _asked(recipe: RLRecipe, given: Given | None) -> list[Prompt]:
    from agapo.evaluation.questions import load_test_questions

    first = next(iter(recipe.data.modes))
    if given is None:
        given = [(prompt, None) for prompt in load_test_questions(recipe.data, recipe.evaluation.test_size, "data")]
    return [replace(prompt, mode=mode or first) for prompt, mode in given]


def score(path: Path | str, rows: Iterable[Mapping[str, Any]], *overrides: str) -> list[dict[str, Any]]:
    """Score responses with a recipe's rewards: `agapo score` on rows instead of a file.

    A row has `completion`, the columns that the rewards read and, where they matter, `prompt`, `mode`, `domain`,
    `language`; rows with one `prompt_id` are one group. Those of a run's own files are looked up in the recipe's data.
    Returns, a row each and in their order, `completion`, `reward`, `correct`, `reward_parts`, `reward_error`. Raises
    UserError.
    """
    from agapo.stages.score import Judged, as_groups, judge, score_rows

    recipe = load_recipe(path, *overrides)
    if not isinstance(recipe, Judged) or recipe.reward is None:
        raise UserError(f"{path}: has no 'reward' to try")
    numbered = ((number, f"rows: row {number}", row) for number, row in enumerate(rows, start=1))
    groups, numbers = as_groups(numbered, recipe)
    return score_rows(judge(recipe.reward, groups), numbers)


def reward(name: str) -> Callable[..., list[float | None]]:
    """Return a reward function by its name, `rewards.math_answer:score`: your own, or a built-in one.

    It is called as TRL calls rewards: `reward(prompts=[…], completions=[…], **columns)`. Raises UserError.
    """
    return resolve(name, key="reward")
