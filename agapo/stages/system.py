"""What a stage needs running: rollout actors, verifier workers, and the data they work on; made from a recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from agapo.cluster import threads_for
from agapo.curation.prompts import PromptStream, hold_out, read_prompts
from agapo.recipe.base import DataConfig, ModelConfig
from agapo.recipe.rl import EvaluationConfig, RewardConfig, RLRecipe, RolloutConfig
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import SamplingParams
from agapo.rollouts.scoring import Scorer
from agapo.rollouts.supervisor import RolloutPool
from agapo.rollouts.verifier import VerifierPool
from agapo.schema import Prompt
from agapo.stages.evaluate import Evaluator
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
    train, validation, overlap = hold_out(every, test, evaluation.validation_size)
    return Questions(train, validation, test, overlap)


def training_stream(recipe: RLRecipe, questions: Questions) -> PromptStream:
    """Return the order in which training prompts are asked."""
    return PromptStream(questions.train, dict(recipe.data.modes), recipe.run.seed)


def check_questions(recipe: RLRecipe, questions: Questions, render: Renderer, config: PreTrainedConfig) -> None:
    """Raise UserError when a prompt does not fit the recipe or the model's context."""
    check_lengths(
        [*questions.train, *questions.validation, *questions.test],
        render,
        config,
        max_prompt_tokens=recipe.data.max_prompt_tokens,
        max_new_tokens=recipe.rollout.max_new_tokens,
    )


def start_rollouts(
    model: ModelConfig, model_path: str, rollout: RolloutConfig, should_stop: Callable[[], bool]
) -> RolloutPool:
    """Start the rollout actors with the model at `model_path`."""
    settings = EngineSettings(
        model_path=model_path,
        dtype=model.dtype,
        attention=model.attention,
        threads=threads_for(rollout.threads, rollout.actors),
        device="cuda" if rollout.gpus_per_actor else "cpu",
    )
    return RolloutPool(
        settings,
        actors=rollout.actors,
        gpus_per_actor=rollout.gpus_per_actor,
        chunk_timeout_s=rollout.chunk_timeout_s,
        max_restarts=rollout.max_restarts,
        should_stop=should_stop,
    )


def start_scorer(reward: RewardConfig) -> Scorer:
    """Start the verifier workers. Raises UserError when a reward does not import."""
    pool = VerifierPool(
        {term.name: term.function for term in reward.terms}, workers=reward.workers, deadline_s=reward.deadline_s
    )
    return Scorer(pool, {term.name: term.weight for term in reward.terms}, reward.verdict)


def sampling_params(rollout: RolloutConfig, seed: int) -> SamplingParams:
    """Return how training samples."""
    return SamplingParams(
        group_size=rollout.group_size,
        max_new_tokens=rollout.max_new_tokens,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        stop=tuple(rollout.stop),
        seed=seed,
    )


def make_evaluator(
    pool: RolloutPool, scorer: Scorer, render: Renderer, recipe_rollout: RolloutConfig, chunk_prompts: int, seed: int
) -> Evaluator:
    """Return the evaluator that samples through `pool`."""
    return Evaluator(pool, scorer, render, sampling_params(recipe_rollout, seed), chunk_prompts)


def parent_folder(path: str) -> str:
    """Return the model that a run starts from, absolute where it is a folder."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def describe_questions(questions: Questions, tokenizer: PreTrainedTokenizerBase, render: Renderer) -> str:
    """Return one line on the data, for the start of a run."""
    lengths: Sequence[int] = [len(render(prompt)) for prompt in questions.train]
    dropped = f", {questions.overlap} training questions dropped as test questions" if questions.overlap else ""
    return (
        f"{len(questions.train)} training, {len(questions.validation)} validation and {len(questions.test)} test "
        f"questions (prompts up to {max(lengths)} tokens{dropped})"
    )
