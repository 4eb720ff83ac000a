"""The questions of a run: read, split, and checked against the model's context before anything is trained."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from transformers import PreTrainedConfig

from agapo.curation.mixing import share_out
from agapo.curation.prompts import hold_out, question_key, read_prompts, require_own_ids
from agapo.errors import UserError
from agapo.evaluation.rendering import Renderer, check_lengths
from agapo.recipe.data import DataConfig, SetConfig, SourceConfig
from agapo.recipe.dpo import DPORecipe
from agapo.recipe.evaluation import EvaluationConfig, RLEvaluationConfig
from agapo.recipe.reward import RewardConfig, require_terms
from agapo.recipe.rl import RLRecipe
from agapo.recipe.rollout import RolloutConfig
from agapo.schema import Prompt


@dataclass(frozen=True)
class Part:
    """One source's prompts by what they are for; no question is in two of them."""

    train: list[Prompt]
    validation: list[Prompt]
    test: list[Prompt]
    overlap: int
    """Training prompts dropped because the test questions have them too."""
    weight: float
    overlong: int = 0
    """Prompts left out for their length."""


@dataclass(frozen=True)
class Questions:
    """A recipe's prompts, by source."""

    parts: dict[str, Part]

    @property
    def train(self) -> list[Prompt]:
        """All sources' training prompts."""
        return list(chain.from_iterable(part.train for part in self.parts.values()))

    @property
    def validation(self) -> list[Prompt]:
        """Those for the curve and for choosing the best checkpoint."""
        return list(chain.from_iterable(part.validation for part in self.parts.values()))

    @property
    def test(self) -> list[Prompt]:
        """Those for the table before and after."""
        return list(chain.from_iterable(part.test for part in self.parts.values()))

    @property
    def overlap(self) -> int:
        """Training prompts dropped as test prompts."""
        return sum(part.overlap for part in self.parts.values())


def load_questions(data: DataConfig, evaluation: EvaluationConfig) -> Questions:
    """Read the prompts that a recipe names, and split them; evaluation sizes are shared out by the sources' weights.

    Stages that choose no checkpoint hold no validation questions out.
    """
    validation_size = evaluation.validation_size if isinstance(evaluation, RLEvaluationConfig) else 0
    weights = {name: source.weight for name, source in data.parts.items() if source.weight}
    test_sizes = share_out(evaluation.test_size, weights)
    validation_sizes = share_out(validation_size, weights) if validation_size else dict.fromkeys(weights, 0)
    keys = {name: f"data.sources.{name}" if data.sources else "data" for name in weights}
    tests = {name: _read(data.parts[name], "test", keys[name])[: test_sizes[name]] for name in weights}
    trains = {name: _read(data.parts[name], "train", keys[name]) for name in weights}
    require_own_ids(list(chain(*trains.values(), *tests.values())))
    every_test = list(chain(*tests.values()))
    parts = {}
    for name, weight in weights.items():
        train, validation, overlap = hold_out(trains[name], every_test, validation_sizes[name])
        parts[name] = Part(train, validation, tests[name], overlap, weight)
    return Questions(parts)


def _read(source: SourceConfig, split: str, key: str) -> list[Prompt]:
    return read_prompts(source.source, "test" if split == "test" else "train", source.args, source.path, key)


def load_suites(data: DataConfig, size: int, key: str) -> dict[str, list[Prompt]]:
    """Read the test split of each source, its share of `size`, by its name; the sources need no other split.

    `key`: the recipe's section, for errors. Ids are unique within a source.
    """
    weights = {name: source.weight for name, source in data.parts.items() if source.weight}
    sizes = share_out(size, weights)
    places = {name: f"{key}.sources.{name}" if data.sources else key for name in weights}
    suites = {name: _read(data.parts[name], "test", places[name])[: sizes[name]] for name in weights}
    for name, questions in suites.items():
        require_own_ids(questions, f"{places[name]}.source")
    return suites


def load_test_questions(data: DataConfig, size: int, key: str) -> list[Prompt]:
    """Like `load_suites`, in one list; ids are unique in it."""
    questions = list(chain(*load_suites(data, size, key).values()))
    require_own_ids(questions, f"{key}.source")
    return questions


def fitting_suites(
    data: DataConfig,
    size: int,
    reward: RewardConfig,
    render: Renderer,
    config: PreTrainedConfig,
    *,
    max_new_tokens: int,
    key: str,
) -> dict[str, list[Prompt]]:
    """Return the test questions by source, without those that are too long where the recipe says so.

    Raises UserError where one does not fit the recipe or the model's context, or no reward judges its domain.
    """
    suites = load_suites(data, size, key)
    questions = list(chain(*suites.values()))
    require_terms(reward, {prompt.domain for prompt in questions})
    fit = set(map(id, fitting(questions, data, render, config, max_new_tokens=max_new_tokens, key=key)))
    suites = {name: [prompt for prompt in found if id(prompt) in fit] for name, found in suites.items()}
    return {name: found for name, found in suites.items() if found}


def fitting_test_questions(
    data: DataConfig,
    size: int,
    reward: RewardConfig,
    render: Renderer,
    config: PreTrainedConfig,
    *,
    max_new_tokens: int,
    key: str,
) -> list[Prompt]:
    """Return the test questions, without those that are too long where the recipe says so.

    Raises UserError where one does not fit the recipe or the model's context, or no reward judges its domain.
    """
    questions = load_test_questions(data, size, key)
    require_terms(reward, {prompt.domain for prompt in questions})
    return fitting(questions, data, render, config, max_new_tokens=max_new_tokens, key=key)


def fitting(
    questions: list[Prompt],
    data: DataConfig,
    render: Renderer,
    config: PreTrainedConfig,
    *,
    max_new_tokens: int,
    key: str,
) -> list[Prompt]:
    """Return the questions, without those that are too long where the recipe says so.

    `key`: the recipe's section with the limits. Raises UserError where one does not fit them or the model's context.
    """
    if data.overlong == "drop":
        questions = [prompt for prompt in questions if len(render(prompt)) <= data.max_prompt_tokens]
        if not questions:
            raise UserError(f"{key}.max_prompt_tokens: {data.max_prompt_tokens} leaves nothing; raise it")
    limits = {"max_prompt_tokens": data.max_prompt_tokens, "max_new_tokens": max_new_tokens}
    check_lengths(questions, render, config, **limits, key=key)
    return questions


def load_sets(recipe: RLRecipe, render: Renderer, config: PreTrainedConfig) -> dict[str, list[Prompt]]:
    """Return the questions of each of `evaluation.sets`, as `fitting_test_questions` does."""
    sets = {name: read_set(recipe, name) for name in recipe.evaluation.sets}
    for questions in sets.values():
        require_terms(recipe.reward, {prompt.domain for prompt in questions})
    return {name: fitting_set(recipe, questions, render, config) for name, questions in sets.items()}


def fitting_set(recipe: RLRecipe, questions: list[Prompt], render: Renderer, config: PreTrainedConfig) -> list[Prompt]:
    """Return the questions of one of `evaluation.sets` as `fitting` does: their limits are those of `data`."""
    own = recipe.rollout.max_new_tokens
    return fitting(questions, recipe.data, render, config, max_new_tokens=own, key="data")


def read_set(recipe: RLRecipe, name: str) -> list[Prompt]:
    """Return the questions of one of `evaluation.sets`, whatever their lengths."""
    own = recipe.evaluation
    return load_test_questions(_set_data(recipe, own.sets[name]), own.test_size, f"evaluation.sets.{name}")


def _set_data(recipe: RLRecipe, given: SetConfig) -> DataConfig:
    """Return one of `evaluation.sets` as a section of data, with the limits of the recipe's own."""
    limits = {"max_prompt_tokens": recipe.data.max_prompt_tokens, "overlong": recipe.data.overlong}
    return DataConfig.model_validate({**given.model_dump(), **limits})


def without_asked(questions: Questions, sets: Mapping[str, Sequence[Prompt]]) -> Questions:
    """Return the questions, without the training questions that a set asks. Raises UserError where none is left."""
    asked = {question_key(prompt.messages) for prompts in sets.values() for prompt in prompts}
    if not asked:
        return questions
    parts = {}
    for name, part in questions.parts.items():
        train = [prompt for prompt in part.train if question_key(prompt.messages) not in asked]
        if not train:
            raise UserError(f"evaluation.sets: every training question of '{name}' is asked in a set; give other rows")
        parts[name] = replace(part, train=train, overlap=part.overlap + len(part.train) - len(train))
    return Questions(parts)


def mark_of_test(questions: Sequence[Prompt], reward: RewardConfig, rollout: RolloutConfig) -> str:
    """Return what tells a test from others: two with the same mark can be compared.

    The questions with their columns, what decides that a response is correct, and how long it may be.
    """
    verdicts = {
        domain: next(term for term in reward.terms if term.name == reward.verdict_for(domain))
        for domain in sorted({prompt.domain for prompt in questions})
    }
    content = {
        "questions": [[prompt.messages, prompt.columns] for prompt in questions],
        "verdicts": {domain: [term.function, term.args, term.form] for domain, term in verdicts.items()},
        "correct": [reward.correct_at, reward.truncated],
        "limits": [rollout.max_new_tokens, rollout.stop, rollout.thinking_budget],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def check_questions(
    recipe: RLRecipe | DPORecipe, questions: Questions, render: Renderer, config: PreTrainedConfig
) -> None:
    """Raise UserError when a prompt does not fit the recipe or the model's context, or no reward judges its domain."""
    assert recipe.data and recipe.reward
    require_terms(recipe.reward, {prompt.domain for prompt in (*questions.train, *questions.test)})
    check_lengths(
        [*questions.train, *questions.validation, *questions.test],
        render,
        config,
        max_prompt_tokens=recipe.data.max_prompt_tokens,
        max_new_tokens=recipe.rollout.max_new_tokens,
    )


def without_overlong(questions: Questions, render: Renderer, data: DataConfig) -> Questions:
    """Return the questions, without those that are too long where the recipe says so.

    Raises UserError when that leaves a source nothing.
    """
    if data.overlong == "refuse":
        return questions

    def fitting(prompts: Sequence[Prompt]) -> list[Prompt]:
        return [prompt for prompt in prompts if len(render(prompt)) <= data.max_prompt_tokens]

    parts = {}
    for name, part in questions.parts.items():
        left = {field: fitting(getattr(part, field)) for field in ("train", "validation", "test")}
        if any(getattr(part, field) and not left[field] for field in left):
            raise UserError(f"data.max_prompt_tokens: {data.max_prompt_tokens} leaves nothing of '{name}'; raise it")
        dropped = sum(len(getattr(part, field)) - len(left[field]) for field in left)
        parts[name] = replace(part, **left, overlong=dropped)
    return Questions(parts)


def describe_questions(questions: Questions, render: Renderer) -> str:
    """Return one line on the data, for the start of a run."""
    lengths: Sequence[int] = [len(render(prompt)) for prompt in questions.train]
    dropped = f", {questions.overlap} training questions dropped as test questions" if questions.overlap else ""
    overlong = sum(part.overlong for part in questions.parts.values())
    dropped += f", {overlong} too long and left out" if overlong else ""
    sources = ", ".join(f"{name} {len(part.train)}" for name, part in questions.parts.items())
    of_each = f" ({sources})" if len(questions.parts) > 1 else ""
    return (
        f"{len(questions.train)} training{of_each}, {len(questions.validation)} validation and {len(questions.test)} "
        f"test questions (prompts up to {max(lengths)} tokens{dropped})"
    )
