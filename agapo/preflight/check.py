"""`agapo check`: all that can be known about a recipe without training.

The schema part imports no torch. The rest says what it could not look at (a model on a hub that cannot be reached)
rather than passing over it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Table

from agapo.curation.pairs import reused_count
from agapo.errors import UserError
from agapo.hub import missing_way
from agapo.recipe import STAGES, DPORecipe, EvalRecipe, Recipe, RLRecipe, SFTRecipe, load_recipe
from agapo.recipe.data import SetConfig
from agapo.recipe.pairs import PairRowsConfig, PairsConfig
from agapo.recipe.read import recipe_stage
from agapo.recipe.reward import RewardConfig, require_terms
from agapo.recipe.rollout import RolloutConfig, rollout_warnings
from agapo.recipe.trainer import PreferenceTrainingConfig
from agapo.resolve import resolve
from agapo.schema import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from agapo.evaluation.questions import Questions
    from agapo.evaluation.rendering import Renderer

Rows = list[tuple[str, str]]
T = TypeVar("T")
SAMPLE = 300
"""Rows of pairs that are looked at."""
Trained = RLRecipe | SFTRecipe | DPORecipe


def check_recipe(path: Path, overrides: list[str], *, schema_only: bool) -> None:
    """Check a recipe and print what was found. Raises UserError at the first mistake."""
    recipe = load_recipe(STAGES[recipe_stage(path)], path, overrides)
    if not schema_only:
        # What comes next takes as long as the imports, the rewards and the data do.
        print(f"check: {recipe.stage} {recipe.run.name}; loading its rewards, data and model", flush=True)
    rows: Rows = [("recipe", f"{path}: every key is known and in range")]
    if not schema_only:
        missing_way()
        _template(recipe)
    if not schema_only and isinstance(recipe, EvalRecipe):
        from agapo.preflight.evaluation import check_evaluation

        rows += [*check_evaluation(recipe), *(_test_questions(recipe) if recipe.prompts else [])]
    elif not schema_only:
        assert isinstance(recipe, RLRecipe | SFTRecipe | DPORecipe)
        from agapo.preflight.machine import machine_warnings  # with Ray, which takes a second

        rows += _names(recipe)
        rows += [("warning", text) for text in machine_warnings(recipe)]
        rows += _arithmetic(recipe) if isinstance(recipe, RLRecipe) else []
        rows += [*_preferences(recipe), *_reused(recipe)] if isinstance(recipe, DPORecipe) else []
        rows += _data_and_model(recipe)
    if not schema_only and isinstance(recipe, SFTRecipe):
        from agapo.preflight.sft import check_fine_tuning

        rows += check_fine_tuning(recipe)
    if not schema_only and isinstance(recipe, RLRecipe):
        from agapo.preflight.model import adapter_row, base_recipe
        from agapo.preflight.rl import check_memory

        rows += [adapter_row(recipe.learner.lora, base_recipe(recipe))] if recipe.learner.lora else []
        rows += check_memory(recipe)
    if not schema_only and isinstance(recipe, DPORecipe):
        from agapo.preflight.model import base_recipe, check_model

        rows += check_model(recipe, base_recipe(recipe))
    table = Table("checked", "found", title=f"{recipe.stage}: {recipe.run.name}")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _template(recipe: Recipe) -> None:
    """Look at the chat template, whether or not the model can be. Raises UserError where it cannot be read."""
    if recipe.model.chat_template:
        from agapo.model.templated import read_template

        read_template(recipe.model.chat_template)


def _names(recipe: Trained) -> Rows:
    """Import every function that the recipe names, and ask the rewards whether they can work here."""
    from agapo.rewarding.start import check_rewards

    sources = [source.source for source in (recipe.data.parts.values() if recipe.data else [])]
    for source in sources:
        resolve(source, key="data.source")
    if isinstance(recipe, DPORecipe) and (given := recipe.pairs.rows):
        resolve(given.source, key="pairs.rows.source")
        sources.append(given.source)
    if recipe.run.on_step:
        resolve(recipe.run.on_step, key="run.on_step")
        sources.append(recipe.run.on_step)
    if isinstance(recipe, RLRecipe):
        for name, given in recipe.evaluation.sets.items():
            resolve(given.source, key=f"evaluation.sets.{name}.source")
            sources.append(given.source)
    if isinstance(recipe, RLRecipe) and (own := recipe.algorithm.objective):
        resolve(own, key="algorithm.objective")
        sources.append(own)
    if recipe.reward is None:
        kind = "log-probabilities of the pairs" if isinstance(recipe, DPORecipe) else "loss on held-out dialogues"
        return [("functions", ", ".join(sources)), ("measure", f"the {kind}: there are no questions and no reward")]
    check_rewards(recipe.reward)
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
    rows += [("warning", text) for text in (*rollout_warnings(own), *_engine_missing(own))]
    if own.actors > chunks:
        rows.append(("warning", f"rollout.actors {own.actors}: only {chunks} chunks a step, so some actors idle"))
    return rows


def _engine_missing(own: RolloutConfig) -> list[str]:
    """A recipe may be looked at where it is not run."""
    if own.engine != "vllm":
        return []
    from agapo.rollouts.engines.vllm.version import require_vllm

    try:
        require_vllm()
    except UserError as error:
        return [str(error)]
    return []


def _preferences(recipe: DPORecipe) -> Rows:
    own, training = recipe.pairs, recipe.training
    most = own.prompts * (len(own.rejected) if own.policy == "concise" else 1)
    size = recipe.rollout.group_size
    if own.rows:
        return _given(recipe, own.rows)
    rows = [
        ("responses", f"{own.prompts:,} prompts × {size} = {own.prompts * size:,}"),
        ("pairs", f"{own.policy}: {most:,} at most{_again(own, most)}; {training.loss}"),
        ("a step", _step(training)),
    ]
    if recipe.rollout.top_p < 1:
        rows.append(("warning", "rollout.top_p < 1 leaves unlikely responses out, which pairs have most to learn from"))
    if most < training.pairs_per_step:
        rows.append(("warning", f"pairs.prompts {own.prompts}: not enough for one step; raise it"))
    return rows


def _step(training: PreferenceTrainingConfig) -> str:
    split = f"{training.ranks} × {training.micro_rows} × {training.accumulation}"
    return f"{training.pairs_per_step} pairs; ranks × pairs × micro-batches: {split}"


def _given(recipe: DPORecipe, own: PairRowsConfig) -> Rows:
    """Look at the first rows of pairs that exist already. Raises UserError for those that are no pairs."""
    from agapo.preflight.model import base_recipe, base_tokenizer
    from agapo.stages.dpo.given import given_pairs

    training = recipe.training
    rows = [("a step", f"{_step(training)}; {training.loss}")]
    tokenizer = base_tokenizer(base_recipe(recipe))
    if tokenizer is None:
        return [*rows, ("pairs", "not looked at: the model's tokenizer is not there")]
    try:
        found, left_out = given_pairs(own, tokenizer, most=SAMPLE)
    except UserError as error:
        if own.path or "cannot load" not in str(error):
            raise
        return [*rows, ("pairs", f"not looked at: {error}")]
    without = ", ".join(f"{reason}: {count}" for reason, count in left_out.without.items())
    rows.append(("pairs", f"{len(found) + sum(left_out.without.values())} rows looked at, {len(found)} pairs"))
    steps = int(len(found) * training.epochs) // training.pairs_per_step
    if len(found) + sum(left_out.without.values()) < SAMPLE and steps <= training.warmup_steps:
        mend = "lower training.warmup_steps or training.pairs_per_step, or add rows"
        rows.append(("warning", f"{len(found)} pairs make {steps} steps, all of them warm-up; {mend}"))
    return [*rows, ("warning", f"rows that are left out: {without}")] if without else rows


def _reused(recipe: DPORecipe) -> Rows:
    """Look at the pairs of an earlier stage. Raises UserError where they are none, or another tokenizer's."""
    if recipe.pairs.reuse is None:
        return []
    from agapo.preflight.model import base_recipe, base_tokenizer
    from agapo.stages.dpo.pairing import earlier_pairs
    from agapo.stages.dpo.run import check_rendering

    if recipe.pairs.reuse.path is None:
        return [("pairs.reuse", "those of the run that model.start names; not looked at")]
    rows, base = earlier_pairs(recipe), base_recipe(recipe)
    if tokenizer := base_tokenizer(base):
        check_rendering(tokenizer, str(base.model.path), rows)
    return [("pairs.reuse", f"{len(rows)} pairs in {recipe.pairs.reuse.path}")]


def _again(own: PairsConfig, most: int) -> str:
    if own.reuse is None:
        return ""
    return f", and {reused_count(most, own.reuse.share):,} of the stage before"


def _data_and_model(recipe: Trained) -> Rows:
    """Read the questions, where they can be reached; and for RL look at the model."""
    if isinstance(recipe, SFTRecipe):
        return _test_questions(recipe) if recipe.prompts else []
    sets = _sets(recipe) if isinstance(recipe, RLRecipe) else []
    return [*(_prompts(recipe) if recipe.data else []), *sets]


def _reached(read: Callable[[], T], sources: Iterable[SetConfig]) -> tuple[T | None, str]:
    """Return (what was read, ''), or (None, why) of a public data set that cannot be reached. Raises UserError else."""
    try:
        return read(), ""
    except UserError as error:
        if any(source.path for source in sources) or "cannot" not in str(error):
            raise
        return None, f"not looked at: {error}"


def _sets(recipe: RLRecipe) -> Rows:
    from agapo.evaluation.questions import fitting_set, read_set

    rows: Rows = []
    for name, given in recipe.evaluation.sets.items():
        questions, why = _reached(partial(read_set, recipe, name), [given])
        odd: Rows = []
        if questions:
            odd = _judged(recipe.reward, questions)
            if model := _model_of(recipe).rendering:
                questions = fitting_set(recipe, questions, *model)
        rows.append((f"evaluation.sets.{name}", why or f"{len(questions or [])} questions"))
        rows += odd
    return rows


def _judged(reward: RewardConfig, questions: Iterable[Prompt]) -> Rows:
    """Return what is odd of the rewards with these questions. Raises UserError where one cannot be judged."""
    from agapo.rewarding.start import check_columns

    asked = list(questions)
    require_terms(reward, {prompt.domain for prompt in asked})
    return [("warning", text) for text in check_columns(reward, asked)]


def _test_questions(recipe: SFTRecipe | EvalRecipe) -> Rows:
    from agapo.evaluation.questions import fitting, load_suites, load_test_questions

    assert recipe.prompts and recipe.reward
    # An evaluation keeps its sources apart, SFT puts them in one list.
    load = load_suites if isinstance(recipe, EvalRecipe) else load_test_questions
    read = partial(load, recipe.prompts, recipe.evaluation.test_size, "prompts")
    found, why = _reached(read, recipe.prompts.parts.values())
    if found is None:
        return [("questions", why)]
    questions = list(chain(*found.values())) if isinstance(found, dict) else found
    odd = _judged(recipe.reward, questions)
    model = _model_of(recipe)
    if not model.rendering:
        return [("questions", f"{len(questions)} test"), *odd, model.lengths]
    longest = recipe.rollout.max_new_tokens
    questions = fitting(questions, recipe.prompts, *model.rendering, max_new_tokens=longest, key="prompts")
    return [("questions", f"{len(questions)} test"), *odd, model.lengths]


def _prompts(recipe: RLRecipe | DPORecipe) -> Rows:
    from agapo.evaluation.questions import load_questions

    assert recipe.data and recipe.reward
    questions, why = _reached(partial(load_questions, recipe.data, recipe.evaluation), recipe.data.parts.values())
    if questions is None:
        return [("data", why)]
    odd = _judged(recipe.reward, (*questions.train, *questions.test))
    sizes = {"training": questions.train, "validation": questions.validation, "test": questions.test}
    found = ", ".join(f"{len(prompts)} {name}" for name, prompts in sizes.items() if prompts)
    return [("questions", found), *odd, *_lengths(recipe, questions)]


def _lengths(recipe: RLRecipe | DPORecipe, questions: "Questions") -> Rows:
    """Check that prompts and responses fit the context of the model at the beginning of the chain."""
    from agapo.evaluation.questions import check_questions, without_overlong
    from agapo.stages.running.modes import fit_modes

    model = _model_of(recipe)
    if not model.rendering:
        return [model.lengths]
    render, config = model.rendering
    told: Rows = []
    recipe = fit_modes(recipe, model.tokenizer, lambda line: told.append(("warning", line)))
    assert recipe.data
    check_questions(recipe, without_overlong(questions, render, recipe.data), render, config)
    return [model.lengths, *told]


@dataclass(frozen=True)
class _Model:
    """The model at the beginning of a chain, as far as the lengths of prompts go."""

    made: str
    """Which it is, in words."""
    tokenizer: Any = None
    rendering: "tuple[Renderer, PreTrainedConfig] | None" = None
    """None where it cannot be reached, or is yet to be made."""

    @property
    def lengths(self) -> tuple[str, str]:
        """The row on lengths that have not been found wrong."""
        if not self.rendering:
            return "lengths", f"not looked at: the model is {self.made}"
        return "lengths", f"every prompt and its response fit the context of the model ({self.made})"


def _model_of(recipe: Recipe) -> _Model:
    from transformers import PreTrainedConfig

    from agapo.evaluation.rendering import make_renderer
    from agapo.model.loading import load_config
    from agapo.preflight.model import base_recipe, base_tokenizer

    base = base_recipe(recipe)
    chained = recipe.model.start and not recipe.model.path
    created = isinstance(base, SFTRecipe) and base.create
    made = f"made by {recipe.model.start if chained else 'this recipe'}" if chained or created else str(base.model.path)
    tokenizer = base_tokenizer(base)
    if tokenizer is None:
        return _Model(made)
    if isinstance(base, SFTRecipe) and base.create:
        config = PreTrainedConfig.from_dict({"max_position_embeddings": base.create.max_position_embeddings})
    else:
        config = load_config(str(base.model.path), base.model.rope_fields)
    return _Model(made, tokenizer, (make_renderer(tokenizer), config))
