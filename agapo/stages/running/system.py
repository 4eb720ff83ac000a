"""What a stage needs running, made from a recipe: rollout actors, how they sample, the order of the prompts."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from agapo.cluster import in_cluster, require_gpus, threads_for
from agapo.curation.mixing import MixedStream
from agapo.curation.prompts import PromptStream
from agapo.evaluation.evaluator import Evaluator
from agapo.evaluation.questions import Questions
from agapo.evaluation.rendering import Renderer
from agapo.placement import Placement, gpus_needed
from agapo.recipe.dpo import DPORecipe
from agapo.recipe.lora import LoRAConfig
from agapo.recipe.model import ModelConfig
from agapo.recipe.reward import RewardConfig
from agapo.recipe.rl import RLRecipe
from agapo.recipe.rollout import RolloutConfig
from agapo.recipe.sft import SFTRecipe
from agapo.rewarding.start import check_columns
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import SamplingParams
from agapo.rollouts.engines.vllm.version import require_vllm
from agapo.rollouts.pool import RolloutPool
from agapo.rollouts.sampling import Judge
from agapo.schema import Prompt
from agapo.tracking import make_console, say

NOT_REPEATABLE = (
    "Sampling with vLLM: what is sampled again (after an actor's death, or a resume) is valid, and not the same; "
    "rollout.engine=transformers repeats itself to the bit."
)


def check_judged(reward: RewardConfig, questions: Iterable[Prompt]) -> None:
    """Look whether the questions have what the rewards read, and say what is odd. Raises UserError."""
    for warning in check_columns(reward, questions):
        make_console().print(f"warning: {warning}", style="yellow", soft_wrap=True, highlight=False)


@contextmanager
def started_ray(address: str | None) -> Iterator[None]:
    """Have Ray inside, started here or, with an `address`, a cluster's, and say so first: it takes seconds."""
    say("starting Ray")
    with in_cluster(address):
        yield


def starting(rollout: RolloutConfig, reward: RewardConfig | None) -> str:
    """Return what a line says of the processes that are started to sample and judge."""
    judges = f"verifier workers: {reward.workers}; " if reward else ""
    return f"starting {judges}rollout actors ({rollout.engine}): {rollout.actors}"


def training_stream(recipe: RLRecipe | DPORecipe, questions: Questions) -> PromptStream | MixedStream:
    """Return the order in which training prompts are asked."""
    assert recipe.data, "pairs that exist already are not sampled"
    modes, seed = dict(recipe.data.modes), recipe.run.seed
    streams = {name: PromptStream(part.train, modes, seed) for name, part in questions.parts.items()}
    if len(streams) == 1:
        return next(iter(streams.values()))
    return MixedStream(streams, {name: part.weight for name, part in questions.parts.items()})


def start_rollouts(
    model: ModelConfig,
    model_path: str,
    rollout: RolloutConfig,
    should_stop: Callable[[], bool],
    lora: LoRAConfig | None = None,
    placement: Placement | None = None,
) -> RolloutPool:
    """Start the rollout actors with the model at `model_path`, given `lora` with adapters that are to be updated.

    `placement`: see RolloutPool. Raises UserError where the engine is not there.
    """
    if rollout.engine == "vllm":
        require_vllm()
        make_console().print(NOT_REPEATABLE, soft_wrap=True)
    settings = EngineSettings(
        model_path=model_path,
        engine=rollout.engine,
        dtype=model.dtype,
        # The engine gives masks of its own, which flash attention cannot take.
        attention="sdpa" if model.attention == "flash_attention_2" else model.attention,
        rope=model.rope_fields,
        threads=threads_for(rollout.threads, rollout.actors),
        device="cuda" if rollout.gpus_per_actor else "cpu",
        lora=lora,
        vllm=rollout.vllm,
    )
    return RolloutPool(
        settings,
        actors=rollout.actors,
        gpus_per_actor=rollout.gpus_per_actor,
        placement=placement,
        chunk_timeout_s=rollout.chunk_timeout_s,
        max_restarts=rollout.max_restarts,
        should_stop=should_stop,
    )


def sampling_params(rollout: RolloutConfig, seed: int) -> SamplingParams:
    """Return how training samples."""
    return SamplingParams(
        group_size=rollout.group_size,
        max_new_tokens=rollout.max_new_tokens,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        stop=tuple(rollout.stop),
        seed=seed,
        thinking_budget=rollout.thinking_budget,
    )


def make_evaluator(
    pool: RolloutPool, scorer: Judge, render: Renderer, recipe_rollout: RolloutConfig, chunk_prompts: int, seed: int
) -> Evaluator:
    """Return the evaluator that samples through `pool`."""
    return Evaluator(pool, scorer, render, sampling_params(recipe_rollout, seed), chunk_prompts)


def require_actors_gpus(rollout: RolloutConfig, address: str | None) -> None:
    """Raise UserError where rollout actors alone ask for more GPUs than there are."""
    require_gpus(rollout.actors * rollout.gpus_per_actor, "rollout.actors × gpus_per_actor", address)


def require_own_gpus(recipe: RLRecipe | SFTRecipe | DPORecipe) -> None:
    """Raise UserError where the recipe asks for more GPUs than there are."""
    for gpus, keys in gpus_needed(recipe):
        require_gpus(gpus, keys, recipe.cluster.address)
