"""The part of `agapo check` that looks at the model: for TRL its context and a rank's memory, for RL its adapters.

Of a model on the hub that cannot be reached, the sizes of `agapo.model.sizes` are taken where it is one of those.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from agapo.errors import UserError
from agapo.evaluation.needle_prompts import check_needle
from agapo.model.adapters import adapter_layout
from agapo.model.gguf import is_gguf
from agapo.model.loading import create_model, load_config, load_tokenizer, use_template
from agapo.model.memory import GIB, FineTuningSetup, Memory, training_memory
from agapo.model.rope import extend_context
from agapo.model.sizes import ModelSizes, config_sizes, published_sizes
from agapo.model.templated import read_template
from agapo.model.tokenizer import build_tokenizer
from agapo.preflight.sampling import actor_memory, actor_verdict, vllm_share
from agapo.recipe import DPORecipe, Recipe, RLRecipe, SFTRecipe
from agapo.recipe.lora import LoRAConfig, quantizes
from agapo.stages.running.start import last_finished, start_recipe

Rows = list[tuple[str, str]]


def base_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe at the beginning of a chain of `model.start`, with the context that the last one sets.

    Raises UserError where the chain is a ring, or begins with the last finished run and there is none.
    """
    seen: list[Path] = []
    rope, template = recipe.model.rope, recipe.model.chat_template
    # A path that is given as well wins, and the chain is not looked at.
    while (start := recipe.model.start) and not recipe.model.path:
        if start in seen:
            raise UserError(f"model.start: {start} starts, in the end, from itself")
        seen.append(start)
        recipe = start_recipe(recipe)
        rope = rope or recipe.model.rope
        template = template or recipe.model.chat_template
    path = recipe.model.path
    if not path and not (isinstance(recipe, SFTRecipe) and recipe.create):
        path = str(last_finished(recipe) / "hf")
    own = {"rope": rope, "path": path, "chat_template": template}
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=own)})


def base_tokenizer(base: Recipe) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of the model, None where it cannot be reached or is yet to be trained."""
    template = read_template(base.model.chat_template) if base.model.chat_template else ""
    if isinstance(base, SFTRecipe) and base.create:
        tokenizer = build_tokenizer()
        if template:
            use_template(tokenizer, template)
        return None if base.create.vocabulary else tokenizer
    return _reached(lambda: load_tokenizer(str(base.model.path), template), base)[0]


def _reached(load: Callable[[], Any], base: Recipe) -> tuple[Any, str]:
    """Return (what was loaded, ''), or (None, why) of a hub's model that cannot be reached. Raises UserError else."""
    try:
        return load(), ""
    except UserError as error:
        if Path(str(base.model.path)).is_absolute() or is_gguf(str(base.model.path)):
            raise
        return None, str(error)


def model_sizes(base: Recipe) -> tuple[ModelSizes | None, str]:
    """Return the sizes of the model that a chain of recipes begins with, and where they are from (or why none)."""
    config, problem = base_config(base)
    path = str(base.model.path)
    if config is not None:
        made_here = isinstance(base, SFTRecipe) and base.create
        return config_sizes(config), "made by this recipe" if made_here else path
    if sizes := published_sizes(path, base.model.rope_fields):
        return sizes, f"{path} (not reached; sizes as published)"
    return None, problem


def adapter_row(lora: LoRAConfig, base: Recipe) -> tuple[str, str]:
    """Return how many parameters the adapters of an RL recipe have. Raises UserError for a target that is not there."""
    config, problem = base_config(base)
    if config is not None:
        count = sum(adapter_layout(config, lora).sizes)
    elif sizes := published_sizes(str(base.model.path), base.model.rope_fields):
        count = sizes.adapter_parameters(lora.rank, lora.targets, "learner.lora")
    else:
        return "adapters", f"not looked at: {problem}"
    targets = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
    return "adapters", f"{count:,} parameters of rank {lora.rank} ({targets}) are trained, and nothing else"


def base_config(base: Recipe) -> tuple[PreTrainedConfig | None, str]:
    """Return the config of the model that a chain of recipes begins with; or None, and why, where it is not reached."""
    if isinstance(base, SFTRecipe) and base.create:
        return _created(base), ""
    return _reached(lambda: load_config(str(base.model.path), base.model.rope_fields), base)


def _created(base: SFTRecipe) -> PreTrainedConfig:
    assert base.create
    sizes = base.create.model_dump(exclude={"vocabulary"})
    config = create_model(build_tokenizer(), seed=0, **sizes).config
    config.vocab_size = base.create.vocabulary or config.vocab_size
    if rope := base.model.rope_fields:
        extend_context(config, rope)
    return config


def check_model(recipe: SFTRecipe | DPORecipe, base: Recipe) -> Rows:
    """Return the model's size, whether its context is long enough, and the memory of a rank."""
    sizes, where = model_sizes(base)
    if isinstance(recipe, SFTRecipe) and recipe.needle:
        check_needle(recipe.needle, sizes and sizes.context)
    if sizes is None:
        return [("model", f"not looked at: {where}")]
    via = f", as {recipe.model.start} leaves it" if recipe.model.start else ""
    rows = [("model", f"{where}{via}: {sizes.parameters:,} parameters in {sizes.layers} layers")]
    return [*rows, _context(recipe, sizes), *memory_rows(recipe, sizes)]


def _context(recipe: SFTRecipe | DPORecipe, sizes: ModelSizes) -> tuple[str, str]:
    longest = longest_sequence(recipe)
    if longest <= sizes.context:
        return "context", f"{sizes.context:,} tokens: a sequence as long as the recipe allows ({longest:,}) fits"
    key = "training.row_tokens" if isinstance(recipe, SFTRecipe) else "data.max_prompt_tokens + rollout.max_new_tokens"
    key = "pairs.rows.max_tokens" if isinstance(recipe, DPORecipe) and recipe.pairs.rows else key
    mend = "lower it, or stretch the context with model.rope"
    return "warning", f"{key} {longest:,}: sequences may be longer than the context {sizes.context:,}; {mend}"


def longest_sequence(recipe: RLRecipe | SFTRecipe | DPORecipe) -> int:
    """Return the tokens of the longest sequence that the recipe trains on."""
    if isinstance(recipe, SFTRecipe):
        return recipe.training.row_tokens
    if isinstance(recipe, DPORecipe) and recipe.pairs.rows:
        return recipe.pairs.rows.max_tokens
    assert recipe.data
    return recipe.data.max_prompt_tokens + recipe.rollout.max_new_tokens


# --- memory ---


def setup_of(recipe: SFTRecipe | DPORecipe, sizes: ModelSizes) -> FineTuningSetup:
    """Return what the memory of the recipe's ranks depends on."""
    own, lora = recipe.training, recipe.training.lora
    return FineTuningSetup(
        row_tokens=longest_sequence(recipe),
        # A pair is two sequences.
        micro_rows=own.micro_rows if isinstance(recipe, SFTRecipe) else 2 * own.micro_rows,
        ranks=own.ranks,
        zero_stage=own.zero_stage,
        offload=own.offload,
        on_disk=own.offload_folder is not None,
        bfloat16=recipe.model.dtype == "bfloat16",
        attention=recipe.model.attention,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        adapters=sizes.adapter_parameters(lora.rank, lora.targets) if lora else None,
        quantized=quantizes(lora),
        background=recipe.checkpoint.background and own.zero_stage > 0,
        gpu=bool(own.gpus_per_rank),
    )


def memory_rows(recipe: SFTRecipe | DPORecipe, sizes: ModelSizes) -> Rows:
    """Return the estimate by part, whether it fits `training.gpu_gib`, and the hosts' memory."""
    own, setup = recipe.training, setup_of(recipe, sizes)
    memory = training_memory(sizes, setup)
    parts = parts_text(memory)
    total = f"about {memory.gpu_bytes / GIB:.1f} GiB"
    rows = [("memory a rank", f"{total} at most{f' ({parts})' if parts else ''}")]
    if memory.host_bytes:
        host = memory.host_bytes / GIB
        rows.append(("memory of a host", f"about {host:.1f} GiB for each of its ranks ({8 * host:.0f} for eight)"))
    rows += disk_rows(memory, own.offload_folder)
    if own.gpu_gib and own.gpus_per_rank:
        rows.append((f"a GPU of {own.gpu_gib:g} GiB", gpu_verdict(recipe, sizes)))
    return [*rows, *_actor_rows(recipe, sizes)]


def disk_rows(memory: Memory, folder: Path | None) -> Rows:
    """Return what a rank takes of a disk of its host, where it does."""
    if folder is None:
        return []
    return [("disk of a host", f"about {memory.disk_bytes / GIB:.1f} GiB in {folder} for each of its ranks")]


def _actor_rows(recipe: SFTRecipe | DPORecipe, sizes: ModelSizes) -> Rows:
    """Return what an actor takes on a GPU: it samples before and after training, by turns with the ranks."""
    if not recipe.rollout.gpus_per_actor:
        return []
    memory, gib = actor_memory(recipe, sizes), recipe.training.gpu_gib
    total = f"about {memory.gpu_bytes / GIB:.1f} GiB at most ({parts_text(memory)})" if memory else ""
    rows = [("memory an actor", total or vllm_share(recipe, sizes))]
    return [*rows, (f"sampling on {gib:g} GiB", actor_verdict(recipe, sizes))] if gib else rows


def parts_text(memory: Memory) -> str:
    """Return the parts of the worst time with their GiB, those that can be seen in the sum."""
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in _by_name(memory).items() if size >= 0.05 * GIB)


Fewest = tuple[str, int]
FEWEST: dict[str, Fewest] = {"sft": ("training.micro_batch_rows=1", 1), "dpo": ("training.micro_batch_pairs=1", 2)}
"""The smallest micro-batch of a stage, and its sequences."""


def _by_name(memory: Memory) -> dict[str, int]:
    """Return the bytes on the GPU of what is there at the worst time."""
    found: dict[str, int] = {}
    for part in memory.at_worst:
        found[part.name] = found.get(part.name, 0) + part.bytes
    return found


def room_left(recipe: SFTRecipe | DPORecipe, sizes: ModelSizes, **setup: Any) -> float:
    """Return the bytes that training leaves of a rank's share of its GPU, given changes to its setup."""
    own = recipe.training
    assert own.gpu_gib
    room = own.gpu_gib * GIB / max(1, int(1 / own.gpus_per_rank))
    return room - training_memory(sizes, replace(setup_of(recipe, sizes), **setup)).gpu_bytes


def gpu_verdict(recipe: SFTRecipe | DPORecipe, sizes: ModelSizes) -> str:
    """Say whether a GPU holds its ranks, and what to change where it does not."""
    left = room_left(recipe, sizes)
    if left >= 0:
        return f"fits, with {left / GIB:.1f} GiB to spare"
    return f"does not fit: {-left / GIB:.1f} GiB too much; " + mends(
        memory_changes(recipe, sizes),
        lambda change: room_left(recipe, sizes, **change) >= 0,
        "take more ranks, shorter sequences, training.lora or a smaller model",
    )


Change = tuple[str, dict[str, Any]]
"""What a recipe is given, as the user writes it, and what that changes of what is estimated."""


def mends(changes: Sequence[Change], fits: Callable[[dict[str, Any]], bool], else_: str) -> str:
    """Return the single changes that make it fit, or how many of them it takes together, or else `else_`."""
    if single := [text for text, change in changes if fits(change)]:
        return f"any of these would do: {', '.join(single)}"
    together = enough(changes, fits)
    return f"together these would do: {', '.join(together)}" if together else else_


def enough(changes: Sequence[Change], fits: Callable[[dict[str, Any]], bool]) -> list[str] | None:
    """Return how many of the changes it takes, in order, to make it fit; None where all of them do not."""
    together: dict[str, Any] = {}
    texts: list[str] = []
    for text, change in changes:
        # The names of changes to one key come in order; the last one counts.
        together, texts = together | change, [*texts, text]
        if fits(together):
            return texts
    return None


def memory_changes(recipe: SFTRecipe | DPORecipe, sizes: ModelSizes) -> list[Change]:
    """Return what makes training take less memory, the cheapest first."""
    return list(_changes(setup_of(recipe, sizes), FEWEST[recipe.stage]))


def _changes(setup: FineTuningSetup, fewest: Fewest) -> Iterator[Change]:
    """Yield what takes less memory, the cheapest first."""
    if not setup.gradient_checkpointing:
        yield "model.gradient_checkpointing=true", {"gradient_checkpointing": True}
    if not setup.bfloat16:
        yield "model.dtype=bfloat16", {"bfloat16": True}
    key, rows = fewest
    if setup.micro_rows > rows:
        yield key, {"micro_rows": rows}
    if setup.attention != "flash_attention_2":
        yield "model.attention=flash_attention_2", {"attention": "flash_attention_2", "micro_rows": rows}
    for stage in (1, 2, 3):
        if stage > setup.zero_stage and setup.ranks > 1 and not (setup.quantized and stage == 3):
            yield f"training.zero_stage={stage}", {"zero_stage": stage}
    if setup.zero_stage and not setup.offload:
        yield "training.offload=true", {"offload": True}
    if setup.adapters and not setup.quantized and setup.ranks == 1 and setup.zero_stage < 3:
        yield "training.lora.quantize=nf4", {"quantized": True}
