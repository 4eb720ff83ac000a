"""The part of `agapo check` that is about RL alone: the memory of learner ranks and rollout actors, before a run."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from agapo.errors import UserError
from agapo.model.memory import CONTEXT_BYTES, GIB, FineTuningSetup, Memory, Part, SharedBlocks
from agapo.model.rl_memory import handed_over, learner_memory
from agapo.model.sizes import ModelSizes
from agapo.placement import divide
from agapo.preflight.model import (
    Change,
    Rows,
    base_recipe,
    disk_rows,
    longest_sequence,
    mends,
    model_sizes,
    parts_text,
)
from agapo.preflight.sampling import (
    actor_memory,
    fewer_prompts,
    vllm_lacks,
    vllm_share,
    vllm_verdict,
)
from agapo.recipe import RLRecipe
from agapo.recipe.lora import quantizes
from agapo.recipe.sharding import stage_run

SMALLEST_MICRO = 1
"""Rows of the smallest micro-batch."""


def check_memory(recipe: RLRecipe) -> Rows:
    """Return what a rank and an actor take, and whether that fits `learner.gpu_gib`."""
    try:
        sizes, where = model_sizes(base_recipe(recipe))
        if sizes is None:
            return [("memory", f"not looked at: {where}")]
        setup = learner_setup(recipe, sizes)
    except UserError as error:
        # Of an architecture that the formulas do not know; it may train all the same.
        return [("memory", f"not looked at: {error}")]
    rank, actor = rank_memory(recipe, sizes, setup), actor_memory(recipe, sizes)
    rows = [("memory a rank", _total(rank))]
    if rank.host_bytes >= 0.05 * GIB:
        rows.append(("memory of a host", f"about {rank.host_bytes / GIB:.1f} GiB for each of its ranks"))
    rows += disk_rows(rank, recipe.learner.offload_folder)
    by_host = recipe.rollout.weight_transport == "host"
    if by_host and (handed := handed_over(sizes, setup)) >= 0.05 * GIB:
        text = f"{handed / GIB:.1f} GiB in the first rank, and as much in Ray's object store"
        rows.append(("weights on their way", text))
    rows.append(("memory an actor", _total(actor) if actor else vllm_share(recipe, sizes)))
    if recipe.learner.gpu_gib and recipe.learner.gpus_per_rank:
        rows.append((f"a GPU of {recipe.learner.gpu_gib:g} GiB", gpu_verdict(recipe, sizes)))
    return rows


def learner_setup(recipe: RLRecipe, sizes: ModelSizes) -> FineTuningSetup:
    """Return what the memory of the recipe's ranks depends on."""
    own = recipe.learner
    if sizes.heads % own.sequence_parallel:
        raise UserError(
            f"learner.sequence_parallel: {own.sequence_parallel} ranks cannot share the model's {sizes.heads} heads; "
            "take a number that divides them"
        )
    longest = longest_sequence(recipe)
    bfloat16 = recipe.model.dtype == "bfloat16"
    return FineTuningSetup(
        row_tokens=-(-longest // own.sequence_parallel),
        # One sequence longer than the budget is a micro-batch all the same.
        micro_rows=max(SMALLEST_MICRO, own.micro_batch_tokens * own.sequence_parallel // longest),
        sequence_parallel=own.sequence_parallel,
        ranks=own.ranks,
        zero_stage=stage_run(own.zero_stage, bfloat16=bfloat16),
        offload=own.offload,
        on_disk=own.offload_folder is not None,
        bfloat16=bfloat16,
        attention=recipe.model.attention,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        adapters=sizes.adapter_parameters(own.lora.rank, own.lora.targets, "learner.lora") if own.lora else None,
        quantized=quantizes(own.lora),
        background=recipe.checkpoint.background,
        gpu=bool(own.gpus_per_rank),
        shared=_shared_blocks(recipe, own.micro_batch_tokens),
    )


def _shared_blocks(recipe: RLRecipe, budget: int) -> SharedBlocks | None:
    """Return the blocks that fill `budget` tokens with the longest prompts and responses; None where none share."""
    own, prompt, response = recipe.learner, recipe.data.max_prompt_tokens, recipe.rollout.max_new_tokens
    if not own.shared_prompts or own.layout != "packed" or recipe.model.attention != "sdpa":
        return None
    # A group that is longer than the budget is cut into blocks, each with the prompt.
    responses = min(recipe.rollout.group_size, max(1, (budget - prompt) // response))
    blocks = max(1, budget // (prompt + responses * response))
    return SharedBlocks(blocks, prompt, responses, response)


def rank_memory(recipe: RLRecipe, sizes: ModelSizes, setup: FineTuningSetup) -> Memory:
    """Return the memory of a rank, with its reference policy where there is one, and what `ipc` keeps for engines."""
    memory = learner_memory(sizes, setup, reference=recipe.algorithm.kl.coefficient > 0)
    if recipe.rollout.weight_transport != "ipc":
        return memory
    return Memory([*memory.parts, Part("weights for the engine", handed_over(sizes, setup))])


def _total(memory: Memory) -> str:
    parts = parts_text(memory)
    return f"about {memory.gpu_bytes / GIB:.1f} GiB at most{f' ({parts})' if parts else ''}"


# --- does it fit? ---


def gpu_verdict(recipe: RLRecipe, sizes: ModelSizes) -> str:
    """Say whether a GPU holds what is put on it, and what to change where it does not."""
    left = room_left(recipe, sizes)
    actors = _actors_beside_a_rank(recipe)
    shared = f"a rank and {'an actor' if actors == 1 else f'{actors} actors'} share it: " if actors else ""
    if (lacking := vllm_lacks(recipe, sizes)) > 0:
        return vllm_verdict(lacking)
    if left >= 0:
        return f"{shared}fits, with {left / GIB:.1f} GiB to spare"
    found = mends(
        memory_changes(recipe, sizes),
        lambda change: room_left(recipe, sizes, **change) >= 0,
        "take more ranks, shorter responses, or a smaller model",
    )
    return f"{shared}does not fit: {-left / GIB:.1f} GiB too much; {found}"


def _actors_beside_a_rank(recipe: RLRecipe) -> int:
    """Return how many actors there are on the GPU of the rank that shares it with the most."""
    own, rollout = recipe.learner, recipe.rollout
    bundles = divide(own.ranks, own.gpus_per_rank, rollout.actors, rollout.gpus_per_actor)
    return max(map(bundles.actors.count, bundles.ranks), default=0)


def room_left(
    recipe: RLRecipe, sizes: ModelSizes, *, chunk_prompts: int = 0, sleep: bool = False, **setup: Any
) -> float:
    """Return the bytes that are left on the fullest GPU, given changes to the actor's chunk and the learner's setup.

    `sleep`: as if `rollout.sleep_while_learning` were set.
    """
    assert recipe.learner.gpu_gib
    gpu = recipe.learner.gpu_gib * GIB
    memory = rank_memory(recipe, sizes, replace(learner_setup(recipe, sizes), **setup))
    rank = memory.gpu_bytes
    sampling = actor_memory(recipe, sizes, chunk_prompts)
    actor = sampling.gpu_bytes if sampling else recipe.rollout.vllm.gpu_memory * gpu
    share, beside = recipe.rollout.gpus_per_actor, _actors_beside_a_rank(recipe)
    if not share:
        return gpu - rank
    if beside and (sleep or recipe.rollout.sleep_while_learning):
        # By turns: actors that sleep keep their CUDA context, a rank that waits all that is not of a phase alone.
        return gpu - max(rank + beside * CONTEXT_BYTES, memory.idle_bytes + beside * actor)
    alone = min(recipe.rollout.actors, max(1, int(1 / share)))
    return gpu - (rank + beside * actor if beside else max(rank, alone * actor))


def memory_changes(recipe: RLRecipe, sizes: ModelSizes) -> list[Change]:
    """Return what takes less memory, the cheapest first."""
    return list(_changes(recipe, sizes))


def _changes(recipe: RLRecipe, sizes: ModelSizes) -> Iterator[Change]:
    setup = learner_setup(recipe, sizes)
    if not setup.gradient_checkpointing:
        yield "model.gradient_checkpointing=true", {"gradient_checkpointing": True}
    if _actors_beside_a_rank(recipe) and not recipe.rollout.sleep_while_learning:
        yield "rollout.sleep_while_learning=true", {"sleep": True}
    if fewer := fewer_prompts(recipe, lambda count: room_left(recipe, sizes, chunk_prompts=count) >= 0):
        yield fewer[0], {"chunk_prompts": fewer[1]}
    if setup.micro_rows > SMALLEST_MICRO:
        smallest = {"micro_rows": SMALLEST_MICRO, "shared": _shared_blocks(recipe, setup.row_tokens)}
        yield f"learner.micro_batch_tokens={setup.row_tokens}", smallest
    for stage in (2, 3):
        if setup.ranks > 1 and stage > setup.zero_stage and not (setup.quantized and stage == 3):
            yield f"learner.zero_stage={stage}", {"zero_stage": stage}
    if setup.zero_stage and not setup.offload:
        needed = "" if recipe.learner.zero_stage else "learner.zero_stage=1 "
        yield f"{needed}learner.offload=true", {"offload": True}
    if setup.adapters is None:
        adapters = sizes.adapter_parameters(16, "all-linear")
        yield "learner.lora={}", {"adapters": adapters}
    if not setup.quantized and setup.ranks == 1 and setup.zero_stage < 3:
        adapters = setup.adapters or sizes.adapter_parameters(16, "all-linear")
        yield "learner.lora.quantize=nf4", {"adapters": adapters, "quantized": True}
