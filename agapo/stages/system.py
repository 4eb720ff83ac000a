"""What a stage needs running: rollout actors and verifier workers, made from a recipe."""

from collections.abc import Callable

from agapo.cluster import threads_for
from agapo.curation.prompts import PromptStream
from agapo.recipe.base import ModelConfig
from agapo.recipe.rl import RewardConfig, RLRecipe, RolloutConfig
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import SamplingParams
from agapo.rollouts.scoring import Scorer
from agapo.rollouts.supervisor import RolloutPool
from agapo.rollouts.verifier import VerifierPool
from agapo.stages.evaluate import Evaluator
from agapo.stages.questions import Questions
from agapo.stages.rendering import Renderer


def training_stream(recipe: RLRecipe, questions: Questions) -> PromptStream:
    """Return the order in which training prompts are asked."""
    return PromptStream(questions.train, dict(recipe.data.modes), recipe.run.seed)


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
    weights = {term.name: term.weight for term in reward.terms}
    return Scorer(pool, weights, reward.verdict, reward.max_error_rate)


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
