"""The SFT part of `agapo check`: batch arithmetic, a sample of the dialogues, the model's context and memory.

What cannot be reached is said to be not looked at. Of a model on the hub that cannot be reached, the sizes of
`agapo.model.sizes` are taken where it is one of those.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from agapo.curation.dialogues import row_examples
from agapo.curation.report import CurationReport
from agapo.errors import UserError
from agapo.model.loading import create_model, load_config, load_tokenizer
from agapo.model.rope import extend_context
from agapo.model.sizes import ModelSizes, config_sizes, published_sizes
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe import SFTRecipe, load_recipe
from agapo.recipe.sft import DialogueSourceConfig
from agapo.stages.dialogues import read_dialogues
from agapo.stages.memory import GIB, FineTuningSetup, Memory, training_memory
from agapo.stages.needle_prompts import check_needle

Rows = list[tuple[str, str]]
SAMPLE = 300
"""Rows of each source that are looked at."""


def check_fine_tuning(recipe: SFTRecipe) -> Rows:
    """Return what is found about a recipe, besides its functions and questions. Raises UserError at a mistake."""
    base = base_recipe(recipe)
    return [*arithmetic(recipe), *check_dialogues(recipe, _tokenizer(base)), *_check_model(recipe, base)]


# --- batch arithmetic ---


def arithmetic(recipe: SFTRecipe) -> Rows:
    """Return the tokens of a step and of the run, and what is odd about the schedule."""
    own = recipe.training
    step = own.rows_per_step * own.row_tokens
    rows = [
        (
            "a step",
            f"{own.rows_per_step} packed rows × {own.row_tokens:,} = {step:,} tokens at most; ranks × rows × "
            f"micro-batches: {own.ranks} × {own.micro_rows} × {own.accumulation}",
        )
    ]
    if recipe.steps:
        rows.append(("the run", f"{recipe.steps:,} steps, {recipe.steps * step:,} tokens at most"))
    else:
        rows.append(("the run", f"{recipe.epochs:g} times the trained tokens of the dialogues; steps follow from them"))
    return [*rows, *(("warning", text) for text in _odd_schedule(recipe))]


def _odd_schedule(recipe: SFTRecipe) -> Iterator[str]:
    own, steps = recipe.training, recipe.steps
    if steps and own.warmup_steps >= steps:
        yield f"training.warmup_steps {own.warmup_steps}: the whole run of {steps} steps is warm-up; lower it"
    if steps and recipe.checkpoint.every > steps:
        yield f"checkpoint.every {recipe.checkpoint.every}: a run of {steps} steps saves none to go on from"
    if own.zero_stage and own.ranks == 1 and not own.offload:
        yield f"training.zero_stage {own.zero_stage}: one rank has nothing to shard over; 0 does the same"


# --- dialogues ---


@dataclass
class Sample:
    """What the first rows of a source are."""

    modes: Counter[str]
    domains: dict[str, set[str]]
    """Of each mode."""
    languages: Counter[str]
    lengths: list[int]
    """Tokens of each example; empty without a tokenizer."""
    malformed: int = 0

    @property
    def rows(self) -> int:
        """Rows that are dialogues."""
        return self.modes.total()


def check_dialogues(recipe: SFTRecipe, tokenizer: PreTrainedTokenizerBase | None) -> Rows:
    """Look at a sample of each source that can be reached. Raises UserError for malformed rows that are refused."""
    rows, samples, complete = [], [], True
    for name, source in recipe.data.parts.items():
        if not source.weight:
            continue
        key = f"data: {name}"
        try:
            samples.append(sample := look_at(recipe, name, tokenizer))
            rows.append((key, _describe(sample, recipe)))
        except UserError as error:
            if source.path or "cannot load" not in str(error):
                raise
            complete = False
            rows.append((key, f"not looked at: {error}"))
    return [*rows, *(("warning", text) for text in _unmixed(recipe, samples, complete=complete))]


def look_at(recipe: SFTRecipe, name: str, tokenizer: PreTrainedTokenizerBase | None) -> Sample:
    """Return what the first rows of a source are."""
    report = CurationReport()
    sample = Sample(Counter(), {}, Counter(), [])
    for _, row in islice(read_dialogues(_only(recipe, name), report), SAMPLE):
        domain = str(row.get("domain", "general"))
        sample.modes[row["mode"]] += 1
        sample.domains.setdefault(row["mode"], set()).add(domain)
        sample.languages[str(row.get("language", "en"))] += 1
        if tokenizer:
            sample.lengths += [len(ids) for ids, _ in row_examples(tokenizer, row, row["place"])]
    sample.malformed = sum(report.dropped.values())
    return sample


def _only(recipe: SFTRecipe, name: str) -> SFTRecipe:
    """Return the recipe with the first rows of one source."""
    if not recipe.data.sources:
        return recipe
    source = recipe.data.sources[name]
    limited = source.model_copy(update={"limit": min(source.limit or SAMPLE, SAMPLE)})
    assert isinstance(limited, DialogueSourceConfig)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"sources": {name: limited}})})


def _describe(sample: Sample, recipe: SFTRecipe) -> str:
    domains = sorted(set().union(*sample.domains.values()))
    found = [
        f"{sample.rows} rows looked at: {_counts(sample.modes)}",
        ", ".join(domains),
        _counts(sample.languages),
    ]
    if sample.malformed:
        found.append(f"{sample.malformed} malformed rows are left out")
    return "; ".join([*found, _lengths(sample.lengths, recipe)])


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _lengths(lengths: list[int], recipe: SFTRecipe) -> str:
    if not lengths:
        return "tokens not looked at"
    longest = recipe.training.row_tokens
    middle, most = np.percentile(lengths, [50, 90])
    text = f"tokens: median {middle:,.0f}, 90 % at most {most:,.0f}, longest {max(lengths):,}"
    over = sum(length > longest for length in lengths) / len(lengths)
    return f"{text}; {over:.1%} longer than a row ({recipe.data.overlong})" if over else text


def _unmixed(recipe: SFTRecipe, samples: list[Sample], *, complete: bool) -> Iterator[str]:
    """Yield where the mix and the rows name different modes or domains; what is missing only if all was looked at."""
    mix = recipe.data.mix
    present: dict[str, set[str]] = {}
    for sample in samples:
        for mode, domains in sample.domains.items():
            present.setdefault(mode, set()).update(domains)
    yield from _differences("data.mix.modes", {str(k): v for k, v in mix.modes.items()}, set(present), complete)
    for mode, domains in present.items():
        if shares := mix.domains_of(mode):
            yield from _differences(f"data.mix.domains (in {mode})", shares, domains, complete)


def _differences(key: str, shares: Mapping[str, float], present: set[str], complete: bool) -> Iterator[str]:
    for name in sorted(present - set(shares)):
        yield f"{key}: dialogues are '{name}', which has no share; add it (0 leaves out)"
    for name in sorted(name for name, share in shares.items() if share and name not in present and complete):
        yield f"{key}: no dialogue of the sample is '{name}'"


# --- the model ---


def base_recipe(recipe: SFTRecipe) -> SFTRecipe:
    """Return the recipe at the beginning of a chain of `model.start`, with the context that the last one sets.

    Raises UserError where the chain is a ring.
    """
    seen: list[Path] = []
    rope = recipe.model.rope
    while start := recipe.model.start:
        if start in seen:
            raise UserError(f"model.start: {start} starts, in the end, from itself")
        seen.append(start)
        recipe = load_recipe(SFTRecipe, start)
        rope = rope or recipe.model.rope
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"rope": rope})})


def _tokenizer(base: SFTRecipe) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of the model, None where it cannot be reached or is yet to be trained."""
    if base.create:
        return None if base.create.vocabulary else build_tokenizer()
    return _reached(lambda: load_tokenizer(str(base.model.path)), base)[0]


def _reached(load: Callable[[], Any], base: SFTRecipe) -> tuple[Any, str]:
    """Return (what was loaded, ''), or (None, why) of a hub's model that cannot be reached. Raises UserError else."""
    try:
        return load(), ""
    except UserError as error:
        if Path(str(base.model.path)).is_absolute():
            raise
        return None, str(error)


def model_sizes(base: SFTRecipe) -> tuple[ModelSizes | None, str]:
    """Return the sizes of the model that a chain of recipes begins with, and where they are from (or why none)."""
    if base.create:
        return _created(base), "made by this recipe"
    rope, path = base.model.rope_fields, str(base.model.path)
    config, problem = _reached(lambda: load_config(path, rope), base)
    if config is not None:
        return config_sizes(config), path
    if sizes := published_sizes(path, rope):
        return sizes, f"{path} (not reached; sizes as published)"
    return None, problem


def _created(base: SFTRecipe) -> ModelSizes:
    assert base.create
    sizes = base.create.model_dump(exclude={"vocabulary"})
    config = create_model(build_tokenizer(), seed=0, **sizes).config
    config.vocab_size = base.create.vocabulary or config.vocab_size
    if rope := base.model.rope_fields:
        extend_context(config, rope)
    return config_sizes(config)


def _check_model(recipe: SFTRecipe, base: SFTRecipe) -> Rows:
    sizes, where = model_sizes(base)
    if recipe.needle:
        check_needle(recipe.needle, sizes and sizes.context)
    if sizes is None:
        return [("model", f"not looked at: {where}")]
    via = f", as {recipe.model.start} leaves it" if recipe.model.start else ""
    rows = [("model", f"{where}{via}: {sizes.parameters:,} parameters in {sizes.layers} layers")]
    return [*rows, _context(recipe, sizes), *memory_rows(recipe, sizes)]


def _context(recipe: SFTRecipe, sizes: ModelSizes) -> tuple[str, str]:
    longest = recipe.training.row_tokens
    if longest <= sizes.context:
        return "context", f"{sizes.context:,} tokens: a dialogue as long as a row ({longest:,}) fits"
    mend = "lower training.row_tokens, or stretch the context with model.rope"
    return (
        "warning",
        f"training.row_tokens {longest:,}: dialogues may be longer than the context {sizes.context:,}; {mend}",
    )


# --- memory ---


def setup_of(recipe: SFTRecipe, sizes: ModelSizes) -> FineTuningSetup:
    """Return what the memory of the recipe's ranks depends on."""
    own, lora = recipe.training, recipe.training.lora
    return FineTuningSetup(
        row_tokens=own.row_tokens,
        micro_rows=own.micro_rows,
        ranks=own.ranks,
        zero_stage=own.zero_stage,
        offload=own.offload,
        bfloat16=recipe.model.dtype == "bfloat16",
        attention=recipe.model.attention,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        adapters=sizes.adapter_parameters(lora.rank, lora.targets) if lora else None,
        gpu=bool(own.gpus_per_rank),
    )


def memory_rows(recipe: SFTRecipe, sizes: ModelSizes) -> Rows:
    """Return the estimate by part, whether it fits `training.gpu_gib`, and the hosts' memory."""
    own, setup = recipe.training, setup_of(recipe, sizes)
    memory = training_memory(sizes, setup)
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in _by_name(memory).items() if size >= 0.05 * GIB)
    total = f"about {memory.gpu_bytes / GIB:.1f} GiB"
    rows = [("memory a rank", f"{total} at most{f' ({parts})' if parts else ''}")]
    if memory.host_bytes:
        host = memory.host_bytes / GIB
        rows.append(("memory of a host", f"about {host:.1f} GiB for each of its ranks ({8 * host:.0f} for eight)"))
    if own.gpu_gib and own.gpus_per_rank:
        rows.append((f"a GPU of {own.gpu_gib:g} GiB", _verdict(sizes, setup, own.gpu_gib, own.gpus_per_rank)))
    return rows


def _by_name(memory: Memory) -> dict[str, int]:
    """Return the bytes on the GPU of what is there at the worst time."""
    found: dict[str, int] = {}
    for part in memory.at_worst:
        found[part.name] = found.get(part.name, 0) + part.bytes
    return found


def _verdict(sizes: ModelSizes, setup: FineTuningSetup, gpu_gib: float, gpus_per_rank: float) -> str:
    sharing = max(1, int(1 / gpus_per_rank))
    room = gpu_gib * GIB / sharing

    def left(tried: FineTuningSetup) -> float:
        return room - training_memory(sizes, tried).gpu_bytes

    if left(setup) >= 0:
        return f"fits, with {left(setup) / GIB:.1f} GiB to spare"
    return f"does not fit: {-left(setup) / GIB:.1f} GiB too much; {_mend(setup, lambda tried: left(tried) >= 0)}"


def _mend(setup: FineTuningSetup, fits: Callable[[FineTuningSetup], bool]) -> str:
    """Return the single changes that make it fit, or else how many of them it takes together."""
    changes = list(_changes(setup))
    if single := [text for text, change in changes if fits(replace(setup, **change))]:
        return f"any of these would do: {', '.join(single)}"
    texts: list[str] = []
    for text, change in changes:
        # The names of changes to one key come in order; the last one counts.
        setup, texts = replace(setup, **change), [*texts, text]
        if fits(setup):
            return f"together these would do: {', '.join(texts)}"
    return "take more ranks, shorter rows (training.row_tokens), training.lora or a smaller model"


def _changes(setup: FineTuningSetup) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what takes less memory, the cheapest first."""
    if not setup.gradient_checkpointing:
        yield "model.gradient_checkpointing=true", {"gradient_checkpointing": True}
    if not setup.bfloat16:
        yield "model.dtype=bfloat16", {"bfloat16": True}
    if setup.micro_rows > 1:
        yield "training.micro_batch_rows=1", {"micro_rows": 1}
    if setup.attention != "flash_attention_2":
        yield "model.attention=flash_attention_2", {"attention": "flash_attention_2", "micro_rows": 1}
    for stage in (1, 2, 3):
        if stage > setup.zero_stage and setup.ranks > 1:
            yield f"training.zero_stage={stage}", {"zero_stage": stage}
    if setup.zero_stage and not setup.offload:
        yield "training.offload=true", {"offload": True}
