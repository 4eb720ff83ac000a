"""From a recipe's sources to the rows that SFT trains on, all of it known before training starts.

    sources ──rows──► checked ──► curated ──► tokens, loss mask ──► mixed by trained tokens ──► packed rows

What is left out on the way, and why, stands in `dropped.jsonl`. The result lies in the run's folder, so that a resumed
run trains on the same rows without reading anything again.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from agapo.curation.dialogues import normal_dialogue, row_examples
from agapo.curation.prompts import read_rows
from agapo.curation.token_mix import Stratum, mixed
from agapo.errors import UserError
from agapo.learner.packing import Example, flatten, pack, unflatten
from agapo.learner.token_file import TokenWriter
from agapo.recipe import SFTRecipe
from agapo.recipe.sft import DialogueSourceConfig
from agapo.tracking.files import json_line, read_json, write_json_atomic

log = logging.getLogger(__name__)

SHOWN_MISTAKES = 5
"""So many malformed rows are named before the run refuses."""


class Kind(NamedTuple):
    """What trained tokens are counted under."""

    mode: str
    domain: str
    source: str
    language: str


@dataclass(frozen=True)
class TrainingData:
    """The tokenised examples of a run, and which of them stand in which row."""

    folder: Path
    """Of the token files."""
    lengths: np.ndarray
    """[N] tokens of each example."""
    trained: np.ndarray
    """[N] trained tokens of each example."""
    kinds: list[Kind]
    codes: np.ndarray
    """[N] each example's place in `kinds`."""
    rows: list[list[int]]
    """The packed rows in order: indices of examples."""
    rows_per_step: int
    report: dict[str, Any]
    """Rows read and left out, by source and reason."""

    @property
    def steps(self) -> int:
        """Optimizer steps that the rows are enough for."""
        return len(self.rows) // self.rows_per_step

    @cached_property
    def tokens_by_step(self) -> np.ndarray:
        """[steps, kinds] trained tokens of each step."""
        counts = np.zeros((self.steps, len(self.kinds)), dtype=np.int64)
        for step in range(self.steps):
            rows = self.rows[step * self.rows_per_step : (step + 1) * self.rows_per_step]
            indices = np.concatenate([np.asarray(row) for row in rows])
            np.add.at(counts[step], self.codes[indices], self.trained[indices])
        return counts

    def totals(self, *fields: str, until: int | None = None) -> dict[str, int]:
        """Return the trained tokens of the first `until` steps (all by default) by e.g. mode, or mode/domain."""
        found: Counter[str] = Counter()
        sums = self.tokens_by_step[:until].sum(axis=0)
        for kind, count in zip(self.kinds, sums, strict=True):
            found["/".join(getattr(kind, name) for name in fields)] += int(count)
        return dict(found)

    def fill(self) -> float:
        """Return the share of the rows' places that hold a token, 0 to 1."""
        used = int(sum(self.lengths[np.asarray(row)].sum() for row in self.rows))
        longest = max(int(self.lengths[np.asarray(row)].sum()) for row in self.rows)
        return used / (longest * len(self.rows))

    def passes(self) -> float:
        """Return the trained tokens of the run over those of the examples: mean passes over the data."""
        return float(self.tokens_by_step.sum() / self.trained.sum())


def token_ratio(trained: Mapping[str, int]) -> float | None:
    """Return reasoning tokens to non-reasoning tokens, of those trained; None without any of the latter."""
    plain = trained.get("non_reasoning", 0)
    return trained.get("reasoning", 0) / plain if plain else None


def training_data(
    recipe: SFTRecipe,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    announce: Callable[[str], None] = log.info,
) -> TrainingData:
    """Return the run's training data: what an earlier start left in `folder`, or made anew, whole or not at all.

    Raises UserError for rows that cannot be trained on, and for shares that cannot be met.
    """
    if not (folder / "plan.npz").exists():
        beside = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        _save(beside, *_tokenise(recipe, tokenizer, beside, announce), recipe)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    return _load(folder, recipe.training.rows_per_step)


def dialogues(recipe: SFTRecipe, tally: "Tally") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (source's name, row) of every row that is a dialogue and passes the recipe's filters."""
    for name, source in recipe.data.parts.items():
        if source.weight:
            yield from ((name, row) for row in _source_rows(recipe, name, source, tally))


def _source_rows(recipe: SFTRecipe, name: str, source: Any, tally: "Tally") -> Iterator[dict[str, Any]]:
    key = f"data.sources.{name}" if recipe.data.sources else "data"
    rows = read_rows(source.source, "train", source.args, source.path, key)
    limit = source.limit if isinstance(source, DialogueSourceConfig) else None
    checked = _checked(islice(rows, limit), source.source, tally.of(name), refuse=recipe.data.malformed == "refuse")
    yield from checked


def _checked(
    rows: Iterator[dict[str, Any]], source: str, tally: "SourceTally", *, refuse: bool
) -> Iterator[dict[str, Any]]:
    """Yield the rows that are dialogues, normalised. Raises UserError naming the first few that are not."""
    mistakes: list[str] = []
    for number, row in enumerate(rows, start=1):
        place = str(row.get("place") or f"{source}: row {number}")
        tally.read += 1
        try:
            yield {**normal_dialogue(row, place), "place": place}
        except UserError as error:
            mistakes.append(str(error))
            tally.drop(place, "malformed", str(error))
        if refuse and len(mistakes) == SHOWN_MISTAKES:
            break
    if refuse and mistakes:
        raise UserError("\n".join([*mistakes, "(data.malformed: drop leaves such rows out)"]))


class SourceTally:
    """What became of a source's rows."""

    def __init__(self, write: Callable[[dict[str, Any]], None]) -> None:
        self.read = self.examples = 0
        self.dropped: Counter[str] = Counter()
        self.truncated = 0
        self._write = write

    def drop(self, place: str, reason: str, detail: str = "") -> None:
        """Note a row that is left out."""
        self.dropped[reason] += 1
        self._write({"place": place, "reason": reason, "detail": detail})


class Tally:
    """What became of all rows; those left out are written to a file."""

    def __init__(self, path: Path) -> None:
        self.sources: dict[str, SourceTally] = {}
        self._file = path.open("w", encoding="utf-8")

    def of(self, name: str) -> SourceTally:
        """Return a source's tally."""
        write = lambda record: self._file.write(json_line({"source": name, **record}))  # noqa: E731
        return self.sources.setdefault(name, SourceTally(write))

    def close(self) -> dict[str, Any]:
        """Return the figures by source, and close the file."""
        self._file.close()
        return {
            name: {"read": own.read, "examples": own.examples, "truncated": own.truncated, "dropped": dict(own.dropped)}
            for name, own in self.sources.items()
        }


def _tokenise(
    recipe: SFTRecipe, tokenizer: PreTrainedTokenizerBase, folder: Path, announce: Callable[[str], None]
) -> tuple[list[Kind], list[int], list[int], list[int], dict[str, Any]]:
    """Write the examples' tokens; return (kinds, codes, lengths, trained tokens, what was left out)."""
    kinds: dict[Kind, int] = {}
    codes, lengths, trained = [], [], []
    tally = Tally(folder / "dropped.jsonl")
    with TokenWriter(folder) as writer:
        for name, row in dialogues(recipe, tally):
            for example in _examples(row, recipe, tokenizer, tally.of(name)):
                writer.add(example)
                kind = Kind(row["mode"], row.get("domain", "general"), name, row.get("language", "en"))
                codes.append(kinds.setdefault(kind, len(kinds)))
                lengths.append(len(example.token_ids))
                trained.append(sum(example.mask[1:]))
                if writer.count % 50_000 == 0:
                    announce(f"{writer.count:,} examples tokenised")
    return list(kinds), codes, lengths, trained, tally.close()


def _examples(
    row: dict[str, Any], recipe: SFTRecipe, tokenizer: PreTrainedTokenizerBase, tally: SourceTally
) -> Iterator[Example]:
    """Yield a row's examples that fit, cut where the recipe says so."""
    longest, place = recipe.training.row_tokens, row["place"]
    try:
        found = row_examples(tokenizer, row, place)
    except UserError as error:
        if recipe.data.malformed == "refuse":
            raise
        tally.drop(place, "malformed", str(error))
        return
    for ids, mask in found:
        if len(ids) > longest:
            ids, mask = _cut(ids, mask, place, recipe, tally)
        if any(mask[1:]):
            tally.examples += 1
            yield Example(ids, mask)


def _cut(
    ids: list[int], mask: list[int], place: str, recipe: SFTRecipe, tally: SourceTally
) -> tuple[list[int], list[int]]:
    longest, long = recipe.training.row_tokens, f"{len(ids)} tokens, training.row_tokens is"
    if recipe.data.overlong == "refuse":
        raise UserError(
            f"{place}: {long} {longest}; raise it, or set data.overlong to drop or truncate ({recipe.run.name})"
        )
    if recipe.data.overlong == "truncate" and any(mask[1:longest]):
        tally.truncated += 1
        return ids[:longest], mask[:longest]
    tally.drop(place, "overlong", f"{long} {longest}")
    return [], []


def _save(
    folder: Path,
    kinds: list[Kind],
    codes: list[int],
    lengths: list[int],
    trained: list[int],
    report: dict[str, Any],
    recipe: SFTRecipe,
) -> None:
    if not codes:
        raise UserError(f"data: no dialogue is left to train on: {json.dumps(report)}; see data.overlong, curation")
    indices, ends = flatten(plan_rows(recipe, kinds, codes, lengths, trained))
    np.savez(folder / "plan.npz", codes=codes, lengths=lengths, trained=trained, indices=indices, ends=ends)
    write_json_atomic(folder / "about.json", {"kinds": kinds, "sources": report})


def plan_rows(
    recipe: SFTRecipe, kinds: list[Kind], codes: list[int], lengths: list[int], trained: list[int]
) -> list[list[int]]:
    """Return the packed rows of the run, whole steps of them."""
    mix, training = recipe.data.mix, recipe.training
    strata = [Stratum(*kinds[code][:3]) for code in codes]

    def stream() -> Iterator[tuple[int, int]]:
        order = mixed(
            strata,
            trained,
            modes={str(mode): share for mode, share in mix.modes.items()},
            domains=mix.domains_of,
            sources={name: source.weight for name, source in recipe.data.parts.items()},
            seed=recipe.run.seed,
            shuffled=recipe.data.order == "shuffled",
        )
        return ((index, lengths[index]) for index in order)

    steps = recipe.steps or _steps(stream(), trained, recipe)
    return list(pack(stream(), row_tokens=training.row_tokens, rows=steps * training.rows_per_step))


def _steps(stream: Iterator[tuple[int, int]], trained: list[int], recipe: SFTRecipe) -> int:
    """Return the steps in which `epochs` times the data's trained tokens fit, rounded up."""
    assert recipe.epochs
    wanted = recipe.epochs * sum(trained)

    def enough() -> Iterator[tuple[int, int]]:
        taken = 0
        for index, length in stream:
            if taken >= wanted:
                return
            taken += trained[index]
            yield index, length

    rows = sum(1 for _ in pack(enough(), row_tokens=recipe.training.row_tokens))
    return -(-rows // recipe.training.rows_per_step)


def _load(folder: Path, rows_per_step: int) -> TrainingData:
    about = read_json(folder / "about.json") or {}
    with np.load(folder / "plan.npz") as plan:
        return TrainingData(
            folder=folder,
            lengths=plan["lengths"],
            trained=plan["trained"],
            kinds=[Kind(*kind) for kind in about["kinds"]],
            codes=plan["codes"],
            rows=unflatten(plan["indices"], plan["ends"]),
            rows_per_step=rows_per_step,
            report=about["sources"],
        )
