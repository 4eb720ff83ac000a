"""The part of `agapo check` that is about RL alone: the memory of learner ranks and rollout actors, before a run."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from agapo.learner.deepspeed_config import stage_run
from agapo.model.memory import GIB, FineTuningSetup, Memory
from agapo.model.rl_memory import engine_memory, learner_memory
from agapo.model.sizes import ModelSizes
from agapo.preflight.model import Rows, base_recipe, model_sizes, parts_text
from agapo.recipe import RLRecipe

SMALLEST_MICRO = 1
"""Rows of the smallest micro-batch."""


def check_memory(recipe: RLRecipe) -> Rows:
    """Return what a rank and an actor take, and whether that fits `learner.gpu_gib`."""
    sizes, where = model_sizes(base_recipe(recipe))
    if sizes is None:
        return [("memory", f"not looked at: {where}")]
    rank, actor = _rank(recipe, sizes, learner_setup(recipe, sizes)), _actor(recipe, sizes)
    rows = [("memory a rank", _total(rank))]
    if rank.host_bytes >= 0.05 * GIB:
        rows.append(("memory of a host", f"about {rank.host_bytes / GIB:.1f} GiB for each of its ranks"))
    rows.append(("memory an actor", _total(actor) if actor else _vllm_share(recipe, sizes)))
    if recipe.learner.gpu_gib and recipe.learner.gpus_per_rank:
        rows.append((f"a GPU of {recipe.learner.gpu_gib:g} GiB", _verdict(recipe, sizes)))
    return rows


def learner_setup(recipe: RLRecipe, sizes: ModelSizes) -> FineTuningSetup:
    """Return what the memory of the recipe's ranks depends on."""
    own = recipe.learner
    longest = recipe.data.max_prompt_tokens + recipe.rollout.max_new_tokens
    bfloat16 = recipe.model.dtype == "bfloat16"
    return FineTuningSetup(
        row_tokens=longest,
        # One sequence longer than the budget is a micro-batch all the same.
        micro_rows=max(SMALLEST_MICRO, own.micro_batch_tokens // longest),
        ranks=own.ranks,
        zero_stage=stage_run(own.zero_stage, bfloat16=bfloat16),
        offload=own.offload,
        bfloat16=bfloat16,
        attention=recipe.model.attention,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        adapters=sizes.adapter_parameters(own.lora.rank, own.lora.targets, "learner.lora") if own.lora else None,
        gpu=bool(own.gpus_per_rank),
    )


def _rank(recipe: RLRecipe, sizes: ModelSizes, setup: FineTuningSetup) -> Memory:
    return learner_memory(sizes, setup, reference=recipe.algorithm.kl.coefficient > 0)


def _actor(recipe: RLRecipe, sizes: ModelSizes, chunk_prompts: int = 0) -> Memory | None:
    """Return the memory of an actor with the transformers engine; None with vLLM, which takes the share it is given."""
    own, evaluation = recipe.rollout, recipe.evaluation
    if own.engine == "vllm":
        return None
    measuring = (chunk_prompts or evaluation.chunk_prompts) * max(1, evaluation.pass_at)
    return engine_memory(
        sizes,
        rows=max((chunk_prompts or own.chunk_prompts) * own.group_size, measuring),
        columns=recipe.data.max_prompt_tokens + own.max_new_tokens,
        number=2 if recipe.model.dtype == "bfloat16" else 4,
        gpu=bool(own.gpus_per_actor),
    )


def _vllm_share(recipe: RLRecipe, sizes: ModelSizes) -> str:
    own = recipe.rollout.vllm
    number = 2 if recipe.model.dtype == "bfloat16" else 4
    weights = f"weights {number * sizes.parameters / own.tensor_parallel / GIB:.1f} GiB, the rest keys and values"
    if not recipe.rollout.gpus_per_actor:
        return f"vLLM: weights {number * sizes.parameters / GIB:.1f} GiB, keys and values {own.cache_gib:g} GiB"
    return f"vLLM takes {100 * own.gpu_memory:.0f} % of its GPU (rollout.vllm.gpu_memory): {weights}"


def _total(memory: Memory) -> str:
    parts = parts_text(memory)
    return f"about {memory.gpu_bytes / GIB:.1f} GiB at most{f' ({parts})' if parts else ''}"


# --- does it fit? ---


def _verdict(recipe: RLRecipe, sizes: ModelSizes) -> str:
    """Say whether a GPU holds what is put on it, and what to change where it does not."""
    left = room_left(recipe, sizes)
    shared = "a rank and an actor share it: " if _shared(recipe) else ""
    if left >= 0:
        return f"{shared}fits, with {left / GIB:.1f} GiB to spare"
    mends = _mends(lambda changes: room_left(recipe, sizes, **changes) >= 0, list(_changes(recipe, sizes)))
    return f"{shared}does not fit: {-left / GIB:.1f} GiB too much; {mends}"


def _shared(recipe: RLRecipe) -> bool:
    """Whether Ray can put a rank and an actor on one GPU."""
    return recipe.rollout.gpus_per_actor > 0 and recipe.learner.gpus_per_rank + recipe.rollout.gpus_per_actor <= 1


def room_left(
    recipe: RLRecipe, sizes: ModelSizes, *, setup: dict[str, Any] | None = None, chunk_prompts: int = 0
) -> float:
    """Return the bytes that are left on the fullest GPU, given changes to the learner's setup and the actor's chunk."""
    assert recipe.learner.gpu_gib
    gpu = recipe.learner.gpu_gib * GIB
    rank = _rank(recipe, sizes, replace(learner_setup(recipe, sizes), **(setup or {}))).gpu_bytes
    sampling = _actor(recipe, sizes, chunk_prompts)
    actor = sampling.gpu_bytes if sampling else recipe.rollout.vllm.gpu_memory * gpu
    if not recipe.rollout.gpus_per_actor:
        actor = 0
    return gpu - (rank + actor if _shared(recipe) else max(rank, actor))


Change = tuple[str, dict[str, Any]]


def _changes(recipe: RLRecipe, sizes: ModelSizes) -> Iterator[Change]:
    """Yield what takes less memory, the cheapest first."""
    setup, chunk = learner_setup(recipe, sizes), recipe.rollout.chunk_prompts
    if not setup.gradient_checkpointing:
        yield "model.gradient_checkpointing=true", {"setup": {"gradient_checkpointing": True}}
    if recipe.rollout.engine == "transformers" and chunk > 1:
        fewer = max(1, chunk // 2)
        yield f"rollout.chunk_prompts={fewer} evaluation.chunk_prompts={fewer}", {"chunk_prompts": fewer}
    if setup.micro_rows > SMALLEST_MICRO:
        yield f"learner.micro_batch_tokens={setup.row_tokens}", {"setup": {"micro_rows": SMALLEST_MICRO}}
    for stage in (2, 3):
        if setup.ranks > 1 and stage > setup.zero_stage:
            yield f"learner.zero_stage={stage}", {"setup": {"zero_stage": stage}}
    if setup.zero_stage and not setup.offload:
        yield "learner.offload=true", {"setup": {"offload": True}}
    if setup.adapters is None:
        adapters = sizes.adapter_parameters(16, "all-linear")
        yield "learner.lora={}", {"setup": {"adapters": adapters}}


def _mends(fits: Callable[[dict[str, Any]], bool], changes: list[Change]) -> str:
    """Return the single changes that make it fit, or else how many of them it takes together."""
    if single := [text for text, change in changes if fits(change)]:
        return f"any of these would do: {', '.join(single)}"
    together: dict[str, Any] = {"setup": {}}
    texts: list[str] = []
    for text, change in changes:
        together = together | change | {"setup": together["setup"] | change.get("setup", {})}
        texts.append(text)
        if fits(together):
            return f"together these would do: {', '.join(texts)}"
    return "take more ranks, shorter responses, or a smaller model"
