"""The memory of rollout actors, in every stage: what their engine holds, and whether that fits a GPU."""

from collections.abc import Callable, Iterator

from agapo.model.memory import CONTEXT_BYTES, GIB, Memory
from agapo.model.rl_memory import engine_memory
from agapo.model.sizes import ModelSizes
from agapo.recipe import DPORecipe, RLRecipe, SFTRecipe
from agapo.recipe.lora import quantizes

Trained = RLRecipe | SFTRecipe | DPORecipe

LEAST_CACHE = GIB
"""Of keys and values, under which sampling crawls."""


def number_bytes(recipe: Trained) -> int:
    """Return the bytes of a number of the model's."""
    return 2 if recipe.model.dtype == "bfloat16" else 4


def gpu_gib(recipe: Trained) -> float | None:
    """Return the memory of a GPU that the recipe names."""
    return recipe.learner.gpu_gib if isinstance(recipe, RLRecipe) else recipe.training.gpu_gib


def actor_memory(recipe: Trained, sizes: ModelSizes, chunk_prompts: int = 0) -> Memory | None:
    """Return the memory of an actor with the transformers engine; None with vLLM, which takes the share it is given.

    `chunk_prompts`: another number of prompts that it samples together.
    """
    if recipe.rollout.engine == "vllm":
        return None
    rows, columns = max(_batches(recipe, chunk_prompts), key=lambda batch: batch[0] * batch[1])
    gpu = bool(recipe.rollout.gpus_per_actor)
    lora = recipe.learner.lora if isinstance(recipe, RLRecipe) else None
    quantized = quantizes(lora)
    return engine_memory(sizes, rows=rows, columns=columns, number=number_bytes(recipe), gpu=gpu, quantized=quantized)


def _batches(recipe: Trained, chunk_prompts: int) -> Iterator[tuple[int, int]]:
    """Yield the rows and columns of all that an actor samples together: to train on, and to measure."""
    own, evaluation = recipe.rollout, recipe.evaluation
    prompts = recipe.prompts if isinstance(recipe, SFTRecipe) else recipe.data
    columns = (prompts.max_prompt_tokens if prompts else 0) + own.max_new_tokens
    tries = recipe.evaluation.pass_at if isinstance(recipe, RLRecipe) else 0
    yield (chunk_prompts or evaluation.chunk_prompts) * max(1, tries), columns
    if not isinstance(recipe, SFTRecipe):
        yield (chunk_prompts or own.chunk_prompts) * own.group_size, columns
    elif grid := recipe.needle:
        for length in grid.lengths:
            yield max(1, grid.chunk_tokens // length), length + grid.max_new_tokens


def fewer_prompts(recipe: Trained, fits: Callable[[int], bool]) -> tuple[str, int] | None:
    """Return how many prompts to sample together instead, as the user writes it and as a number: halved until it fits.

    None where the engine decides itself how much it samples together, or it is one prompt already.
    """
    own = recipe.rollout
    chunks = [recipe.evaluation.chunk_prompts, *([] if isinstance(recipe, SFTRecipe) else [own.chunk_prompts])]
    if own.engine == "vllm" or max(chunks) == 1:
        return None
    fewer = (min(chunks) if min(chunks) > 1 else max(chunks)) // 2
    while fewer > 1 and not fits(fewer):
        fewer //= 2
    both = "" if isinstance(recipe, SFTRecipe) else f"rollout.chunk_prompts={fewer} "
    return f"{both}evaluation.chunk_prompts={fewer}", fewer


# --- vLLM ---


def vllm_weights(recipe: Trained, sizes: ModelSizes) -> float:
    """Return the bytes of the weights on each GPU of an actor."""
    return number_bytes(recipe) * sizes.parameters / recipe.rollout.vllm.tensor_parallel


def vllm_cache(recipe: Trained, sizes: ModelSizes) -> float:
    """Return the bytes of keys and values that vLLM's share of its GPU has room for; below 0 it lacks some."""
    gib = gpu_gib(recipe)
    assert gib
    return recipe.rollout.vllm.gpu_memory * gib * GIB - vllm_weights(recipe, sizes) - CONTEXT_BYTES


def vllm_lacks(recipe: Trained, sizes: ModelSizes) -> float:
    """Return the bytes that vLLM's share of its GPU is too small by; 0 or less where it is not."""
    if recipe.rollout.engine != "vllm" or not recipe.rollout.gpus_per_actor or not gpu_gib(recipe):
        return 0
    return LEAST_CACHE - vllm_cache(recipe, sizes)


def vllm_share(recipe: Trained, sizes: ModelSizes) -> str:
    """Return what vLLM takes, in words."""
    own, weights = recipe.rollout.vllm, vllm_weights(recipe, sizes) / GIB
    if not recipe.rollout.gpus_per_actor:
        return f"vLLM: weights {weights:.1f} GiB, keys and values {own.cache_gib:g} GiB"
    share = f"{100 * own.gpu_memory:.0f} % of its GPU (rollout.vllm.gpu_memory)"
    return f"vLLM takes {share}: weights {weights:.1f} GiB, the rest keys and values"


def vllm_verdict(lacking: float) -> str:
    """Return by how many bytes vLLM's share is too small, and the mend."""
    return (
        f"does not fit: vLLM's share is {lacking / GIB:.1f} GiB too little for the weights and "
        f"{LEAST_CACHE / GIB:g} GiB of keys and values; raise rollout.vllm.gpu_memory or tensor_parallel"
    )


# --- an actor that has its GPU to itself, by turns with training ---


def room_for_actor(recipe: SFTRecipe | DPORecipe, sizes: ModelSizes, chunk_prompts: int = 0) -> float:
    """Return the bytes that actors leave on a GPU; below 0 they lack some. Training is not there at the time."""
    gib, share = gpu_gib(recipe), recipe.rollout.gpus_per_actor
    assert gib
    memory = actor_memory(recipe, sizes, chunk_prompts)
    if not share:
        return gib * GIB
    if memory is None:
        return -vllm_lacks(recipe, sizes)
    return gib * GIB - min(recipe.rollout.actors, max(1, int(1 / share))) * memory.gpu_bytes


def actor_verdict(recipe: SFTRecipe | DPORecipe, sizes: ModelSizes) -> str:
    """Say whether a GPU holds the actors that are put on it, and what to change where it does not."""
    left = room_for_actor(recipe, sizes)
    if left >= 0:
        return "fits" if recipe.rollout.engine == "vllm" else f"fits, with {left / GIB:.1f} GiB to spare"
    if recipe.rollout.engine == "vllm":
        return vllm_verdict(-left)
    fewer = fewer_prompts(recipe, lambda count: room_for_actor(recipe, sizes, count) >= 0)
    enough = fewer and room_for_actor(recipe, sizes, fewer[1]) >= 0
    mend = fewer[0] if fewer and enough else "rollout.engine=vllm with a vllm.tensor_parallel, or shorter responses"
    return f"does not fit: {-left / GIB:.1f} GiB too much; {mend} would do"
