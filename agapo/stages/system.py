"""What a stage needs running: rollout actors and verifier workers, made from a recipe."""

import inspect
from collections.abc import Callable

from agapo.cluster import cluster_nodes, threads_for
from agapo.curation.mixing import MixedStream
from agapo.curation.prompts import PromptStream
from agapo.recipe.base import ModelConfig
from agapo.recipe.dpo import DPORecipe
from agapo.recipe.rl import RewardConfig, RLRecipe, RolloutConfig
from agapo.resolve import resolve
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import SamplingParams
from agapo.rollouts.scoring import Scorer
from agapo.rollouts.supervisor import RolloutPool
from agapo.rollouts.verifier import Term, VerifierPool
from agapo.rollouts.verifier_cluster import ClusterVerifierPool
from agapo.rollouts.verifier_worker import require_arguments
from agapo.stages.evaluate import Evaluator
from agapo.stages.questions import Questions
from agapo.stages.rendering import Renderer


def training_stream(recipe: RLRecipe | DPORecipe, questions: Questions) -> PromptStream | MixedStream:
    """Return the order in which training prompts are asked."""
    modes, seed = dict(recipe.data.modes), recipe.run.seed
    streams = {name: PromptStream(part.train, modes, seed) for name, part in questions.parts.items()}
    if len(streams) == 1:
        return next(iter(streams.values()))
    return MixedStream(streams, {name: part.weight for name, part in questions.parts.items()})


def start_rollouts(
    model: ModelConfig, model_path: str, rollout: RolloutConfig, should_stop: Callable[[], bool]
) -> RolloutPool:
    """Start the rollout actors with the model at `model_path`."""
    settings = EngineSettings(
        model_path=model_path,
        dtype=model.dtype,
        # The engine gives masks of its own, which flash attention cannot take.
        attention="sdpa" if model.attention == "flash_attention_2" else model.attention,
        rope=model.rope_fields,
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
    """Start the verifier workers: on this host, or, where a Ray cluster of several hosts runs, on all of them.

    Raises UserError when a reward does not import, or says that it cannot work here.
    """
    check_rewards(reward)
    terms = {term.name: Term(term.function, term.args, term.deadline_s) for term in reward.terms}
    nodes = cluster_nodes()
    if len(nodes) > 1:
        pool = ClusterVerifierPool(terms, workers=reward.workers, deadline_s=reward.deadline_s, nodes=nodes)
    else:
        pool = VerifierPool(terms, workers=reward.workers, deadline_s=reward.deadline_s)
    return Scorer(pool, reward)


def check_rewards(reward: RewardConfig) -> None:
    """Look at each reward's arguments, and ask its module whether it can work: `check(**args)`, where it has one.

    Raises UserError.
    """
    for number, term in enumerate(reward.terms):
        function = resolve(term.function, key=f"reward.terms.{number}.function")
        require_arguments(term.name, term.function, function, term.args)
        check = getattr(inspect.getmodule(function), "check", None)
        if check is not None:
            known = inspect.signature(check).parameters
            check(**{name: value for name, value in term.args.items() if name in known})


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
