"""The questions of a run: read, split, and checked against the model's context before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig

from agapo.curation.prompts import hold_out, read_prompts, require_own_ids
from agapo.recipe.base import DataConfig
from agapo.recipe.rl import EvaluationConfig, RLRecipe, require_terms
from agapo.schema import Prompt
from agapo.stages.rendering import Renderer, check_lengths


@dataclass(frozen=True)
class Questions:
    """Prompts by what they are for; no question is in two of them."""

    train: list[Prompt]
    validation: list[Prompt]
    test: list[Prompt]
    overlap: int
    """Training prompts dropped because the test split has the same question."""


def load_questions(data: DataConfig, evaluation: EvaluationConfig) -> Questions:
    """Read the prompts that a recipe names, and split them."""
    test = read_prompts(data.source, "test", data.args, data.path)[: evaluation.test_size]
    every = read_prompts(data.source, "train", data.args, data.path)
    require_own_ids([*every, *test])
    train, validation, overlap = hold_out(every, test, evaluation.validation_size)
    return Questions(train, validation, test, overlap)


def check_questions(recipe: RLRecipe, questions: Questions, render: Renderer, config: PreTrainedConfig) -> None:
    """Raise UserError when a prompt does not fit the recipe or the model's context, or no reward judges its domain."""
    require_terms(recipe.reward, {prompt.domain for prompt in (*questions.train, *questions.test)})
    check_lengths(
        [*questions.train, *questions.validation, *questions.test],
        render,
        config,
        max_prompt_tokens=recipe.data.max_prompt_tokens,
        max_new_tokens=recipe.rollout.max_new_tokens,
    )


def describe_questions(questions: Questions, render: Renderer) -> str:
    """Return one line on the data, for the start of a run."""
    lengths: Sequence[int] = [len(render(prompt)) for prompt in questions.train]
    dropped = f", {questions.overlap} training questions dropped as test questions" if questions.overlap else ""
    return (
        f"{len(questions.train)} training, {len(questions.validation)} validation and {len(questions.test)} test "
        f"questions (prompts up to {max(lengths)} tokens{dropped})"
    )
