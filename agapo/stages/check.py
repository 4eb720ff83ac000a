"""`agapo check`: all that can be known about a recipe without training.

The schema part imports no torch. The rest says what it could not look at (a model on a hub that cannot be reached)
rather than passing over it.
"""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

from rich.console import Console
from rich.table import Table

from agapo.errors import UserError
from agapo.recipe import EvalRecipe, Recipe, RLRecipe, SFTRecipe, load_recipe
from agapo.recipe.base import recipe_stage
from agapo.recipe.rl import require_terms
from agapo.resolve import resolve

if TYPE_CHECKING:
    from agapo.stages.questions import Questions

Rows = list[tuple[str, str]]


def check_recipe(path: Path, overrides: list[str], *, schema_only: bool) -> None:
    """Check a recipe and print what was found. Raises UserError at the first mistake."""
    kind = {"rl": RLRecipe, "sft": SFTRecipe, "eval": EvalRecipe}[recipe_stage(path)]
    recipe = load_recipe(kind, path, overrides)
    rows: Rows = [("recipe", f"{path}: every key is known and in range")]
    if not schema_only:
        _without_network()
    if not schema_only and isinstance(recipe, EvalRecipe):
        from agapo.stages.evaluating import check_evaluation

        rows += check_evaluation(recipe)
    elif not schema_only:
        rows += _names(recipe)
        rows += _arithmetic(recipe) if isinstance(recipe, RLRecipe) else []
        rows += _data_and_model(recipe)
    if not schema_only and isinstance(recipe, SFTRecipe):
        from agapo.stages.sft_check import check_fine_tuning

        rows += check_fine_tuning(recipe)
    table = Table("checked", "found", title=f"{recipe.stage}: {recipe.run.name}")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _without_network() -> None:
    """Where there is no way to the hub, say so to its libraries, which would try again for half a minute each time."""
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if getproxies() or not endpoint.hostname:
        return
    try:
        socket.create_connection((endpoint.hostname, endpoint.port or 443), timeout=5).close()
    except OSError:
        # Read when they are imported: after this.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _names(recipe: Recipe) -> Rows:
    """Import every function that the recipe names, and ask the rewards whether they can work here."""
    from agapo.stages.system import check_rewards

    assert isinstance(recipe, RLRecipe | SFTRecipe)
    check_rewards(recipe.reward)
    sources = [source.source for source in recipe.data.parts.values()]
    for source in sources:
        resolve(source, key="data.source")
    functions = [*sources, *(term.function for term in recipe.reward.terms)]
    return [("functions", ", ".join(functions)), ("rewards", "take their arguments, and can work here")]


def _arithmetic(recipe: RLRecipe) -> Rows:
    own = recipe.rollout
    responses = recipe.nominal_responses
    chunks = -(-recipe.prompts_per_step // own.chunk_prompts)
    tokens = responses * (own.max_new_tokens + recipe.data.max_prompt_tokens)
    rows = [
        ("a step", f"{recipe.prompts_per_step} prompts × {own.group_size} = {responses} responses, {chunks} chunks"),
        ("tokens a step", f"at most {tokens:,} through the learner, {recipe.learner.ranks} ranks"),
    ]
    if own.top_p < 1:
        rows.append(("warning", "rollout.top_p < 1 samples from another support than the log-probabilities describe"))
    if own.actors > chunks:
        rows.append(("warning", f"rollout.actors {own.actors}: only {chunks} chunks a step, so some actors idle"))
    return rows


def _data_and_model(recipe: RLRecipe | SFTRecipe) -> Rows:
    """Read the questions, where they can be reached; and for RL look at the model."""
    data = recipe.data if isinstance(recipe, RLRecipe) else recipe.prompts
    try:
        return _rl_questions(recipe) if isinstance(recipe, RLRecipe) else _test_questions(recipe)
    except UserError as error:
        if any(source.path for source in data.parts.values()) or "cannot" not in str(error):
            raise
        return [("data" if isinstance(recipe, RLRecipe) else "questions", f"not looked at: {error}")]


def _test_questions(recipe: SFTRecipe) -> Rows:
    from agapo.stages.questions import load_test_questions

    questions = load_test_questions(recipe.prompts, recipe.evaluation.test_size, "prompts")
    require_terms(recipe.reward, {prompt.domain for prompt in questions})
    return [("questions", f"{len(questions)} test")]


def _rl_questions(recipe: RLRecipe) -> Rows:
    from agapo.stages.questions import load_questions

    questions = load_questions(recipe.data, recipe.evaluation)
    require_terms(recipe.reward, {prompt.domain for prompt in (*questions.train, *questions.test)})
    found = f"{len(questions.train)} training, {len(questions.validation)} validation, {len(questions.test)} test"
    return [("questions", found), *_model(recipe, questions)]


def _model(recipe: RLRecipe, questions: "Questions") -> Rows:
    from agapo.stages.questions import check_questions, without_overlong
    from agapo.stages.rendering import make_renderer

    path = recipe.model.path
    if path is None:
        return _start(recipe, questions)
    from agapo.model.loading import load_config, load_tokenizer

    try:
        tokenizer, config = load_tokenizer(path), load_config(path, recipe.model.rope_fields)
    except UserError as error:
        if Path(path).is_absolute():
            raise
        return [("model", f"not looked at: {str(error).splitlines()[0]}")]
    render = make_renderer(tokenizer)
    check_questions(recipe, without_overlong(questions, render, recipe.data), render, config)
    return [("model", f"{path}: {config.model_type}, every prompt and its response fit the context")]


def _start(recipe: RLRecipe, questions: "Questions") -> Rows:
    """Check the SFT recipe that makes the start, and, where that creates its model, the lengths."""
    from transformers import PreTrainedConfig

    from agapo.model.tokenizer import build_tokenizer
    from agapo.stages.questions import check_questions
    from agapo.stages.rendering import make_renderer

    assert recipe.model.start
    sft = load_recipe(SFTRecipe, recipe.model.start)
    if not sft.create or sft.create.vocabulary:
        return [("model", f"made by {recipe.model.start}; lengths not looked at")]
    config = PreTrainedConfig.from_dict({"max_position_embeddings": sft.create.max_position_embeddings})
    check_questions(recipe, questions, make_renderer(build_tokenizer()), config)
    return [("model", f"made by {recipe.model.start}; every prompt and its response fit the context")]
