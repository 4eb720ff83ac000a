"""The SFT part of `agapo check`: batch arithmetic, a sample of the dialogues; `model_check.py` has the model's.

What cannot be reached is said to be not looked at.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from agapo.curation.dialogues import row_examples
from agapo.curation.report import CurationReport
from agapo.errors import UserError
from agapo.preflight.model import base_recipe, base_tokenizer, check_model
from agapo.recipe import SFTRecipe
from agapo.recipe.dialogues import DialogueSourceConfig
from agapo.stages.running.dialogues import read_dialogues
from agapo.stages.sft.plan import Kind, mix_order, overlong_warning, plan_rows

Rows = list[tuple[str, str]]
SAMPLE = 300
"""Rows of each source that are looked at."""


def check_fine_tuning(recipe: SFTRecipe) -> Rows:
    """Return what is found about a recipe, besides its functions and questions. Raises UserError at a mistake."""
    base = base_recipe(recipe)
    return [*arithmetic(recipe), *check_dialogues(recipe, base_tokenizer(base)), *check_model(recipe, base)]


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
    examples: list[tuple[Kind, int, int]] = field(default_factory=list)
    """Kind, tokens and trained tokens of each example that fits a row; empty without a tokenizer."""
    malformed: int = 0

    @property
    def rows(self) -> int:
        """Rows that are dialogues."""
        return self.modes.total()

    @property
    def is_whole(self) -> bool:
        """Whether these are all rows of the source."""
        return self.rows + self.malformed < SAMPLE


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
    odd = list(_unmixed(recipe, samples, complete=complete))
    if complete and not odd:
        odd += _repeats(recipe, samples)
    lengths = [length for sample in samples for length in sample.lengths]
    overlong = sum(length > recipe.training.row_tokens for length in lengths)
    odd += overlong_warning(recipe, overlong, len(lengths), max(lengths, default=0))
    return [*rows, *(("warning", text) for text in odd)]


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
            found = row_examples(tokenizer, row, row["place"])
            sample.lengths += [len(ids) for ids, _ in found]
            kind = Kind(row["mode"], row.get("domain") or "general", name, row.get("language") or "en")
            fits = [(ids, mask) for ids, mask in found if len(ids) <= recipe.training.row_tokens]
            sample.examples += [(kind, len(ids), sum(mask[1:])) for ids, mask in fits]
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
    if mix.modes:
        yield from _differences("data.mix.modes", mix.shares_of_modes, set(present), complete)
    for mode, domains in present.items():
        if shares := mix.domains_of(mode):
            yield from _differences(f"data.mix.domains (in {mode})", shares, domains, complete)


def _differences(key: str, shares: Mapping[str, float], present: set[str], complete: bool) -> Iterator[str]:
    for name in sorted(present - set(shares)):
        yield f"{key}: dialogues are '{name}', which has no share; add it (0 leaves out)"
    for name in sorted(name for name, share in shares.items() if share and name not in present and complete):
        yield f"{key}: no dialogue of the sample is '{name}'"


def _repeats(recipe: SFTRecipe, samples: list[Sample]) -> list[str]:
    """Return what the run would warn of: of all rows, or of the first ones of its only source."""
    examples = [example for sample in samples for example in sample.examples]
    if not examples:
        return []
    kinds, lengths, trained = (list(column) for column in zip(*examples, strict=True))
    found: dict[str, None] = {}
    with suppress(UserError):  # a part of the mix has no dialogues among them: seen above, or too long for a row
        if all(sample.is_whole for sample in samples):
            return plan_rows(recipe, kinds, range(len(kinds)), lengths, trained)[1]
        if len(samples) == 1:
            mix_order(recipe, kinds, trained, lambda line: found.setdefault(f"first {SAMPLE} rows: {line}"))
    return list(found)
