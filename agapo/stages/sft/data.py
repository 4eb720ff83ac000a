"""From a recipe's sources to the rows that SFT trains on, all of it known before training starts.

    sources ──rows──► checked ──► curated ──► tokens, loss mask ──► mixed by trained tokens ──► packed rows

What is left out on the way, and why, stands in `dropped.jsonl`. The result lies in the run's folder, so that a resumed
run trains on the same rows without reading anything again.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from agapo.chat import trained_turns
from agapo.curation.dialogues import row_examples
from agapo.curation.prompts import question_key
from agapo.curation.report import CurationReport, Dropped, Finding
from agapo.errors import UserError
from agapo.learner.trl.packing import Example, flatten, unflatten
from agapo.learner.trl.token_file import PLAN, TokenFile, TokenWriter
from agapo.recipe import SFTRecipe
from agapo.schema import Prompt
from agapo.stages.curate import curated
from agapo.stages.running.dialogues import read_dialogues
from agapo.stages.sft.plan import Kind, held_out, overlong_warning, plan_rows
from agapo.tracking.files import json_line, read_json, write_json_atomic

log = logging.getLogger(__name__)

ABOUT = "about.json"


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
    held: list[int]
    """Indices of the examples held out of training."""
    rows_per_step: int
    report: dict[str, Any]
    """Rows read and left out, by source, filter and reason (`CurationReport`)."""
    warnings: list[str]
    """What is odd: dialogues that come again and again or are held from it, many that are too long, only warm-up."""

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

    @cached_property
    def _so_far(self) -> np.ndarray:
        """[steps + 1, kinds] trained tokens of the first so many steps."""
        return np.concatenate([np.zeros((1, len(self.kinds)), dtype=np.int64), self.tokens_by_step.cumsum(axis=0)])

    def totals(self, *fields: str, until: int | None = None) -> dict[str, int]:
        """Return the trained tokens of the first `until` steps (all by default) by e.g. mode, or mode/domain."""
        found: Counter[str] = Counter()
        sums = self._so_far[self.steps if until is None else until]
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
        return float(self.tokens_by_step.sum() / self.amount)

    @property
    def amount(self) -> int:
        """Trained tokens of one pass over the data."""
        return int(self.trained.sum() - self.trained[self.held].sum())

    def held_out(self) -> list[Example]:
        """Return the examples held out of training."""
        tokens = TokenFile(self.folder)
        return [tokens[index] for index in self.held]


class _Tokenised(NamedTuple):
    """What is known of the examples besides their tokens."""

    kinds: list[Kind]
    codes: list[int]
    """[N] each example's place in `kinds`."""
    lengths: list[int]
    """[N] tokens."""
    trained: list[int]
    """[N] trained tokens."""
    questions: list[int]
    """[N] a number for what is asked: the same for other answers to it."""


def token_ratio(trained: Mapping[str, int]) -> float | None:
    """Return reasoning tokens to non-reasoning tokens, of those trained; None without any of the latter."""
    plain = trained.get("non_reasoning", 0)
    return trained.get("reasoning", 0) / plain if plain else None


def training_data(
    recipe: SFTRecipe,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    tested: Set[str] = frozenset(),
    keep: bool = False,
    announce: Callable[[str], None] = log.info,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingData:
    """Return the run's training data, made anew, whole or not at all; or, to `keep`, what an earlier start made.

    tested: the `question_keys` that are not trained on. Raises UserError for rows that cannot be trained on, for shares
    that cannot be met, and where files have changed since the data to keep was made; Interrupted.
    """
    if keep and (folder / PLAN).exists():
        _require_same_files(recipe, folder)
    else:
        beside = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        _save(beside, *_tokenise(recipe, tokenizer, beside, tested, announce, should_stop), recipe)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    return _load(folder, recipe.training.rows_per_step)


def question_keys(questions: Iterable[Prompt]) -> set[str]:
    """Return what makes questions the same: their turns, whatever the system's turn says."""
    return {_key(prompt.messages) for prompt in questions}


def _key(messages: Sequence[Mapping[str, Any]]) -> str:
    return question_key([turn for turn in messages if turn["role"] != "system"])


def _is_tested(row: Mapping[str, Any], tested: Set[str]) -> bool:
    """Whether a turn that is trained on answers a test question."""
    return any(_key(row["messages"][:number]) in tested for number in trained_turns(row["messages"], row["mode"]))


def _require_same_files(recipe: SFTRecipe, folder: Path) -> None:
    """A run goes on with the rows it has. Raises UserError where their files have changed since: which are meant?"""
    before = (read_json(folder / ABOUT) or {}).get("files", {})
    changed = [path for path, state in _files(recipe).items() if before.get(path) != state]
    if changed:
        raise UserError(
            f"{changed[0]}: has changed since this run began; name a new run with run.name=…, or put it back to go on"
        )


def _files(recipe: SFTRecipe) -> dict[str, list[int]]:
    """Size and time of change of every file that the recipe's sources read."""
    paths = [source.path for source in recipe.data.parts.values() if source.path]
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()}


def _tokenise(
    recipe: SFTRecipe,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    tested: Set[str],
    announce: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> tuple[_Tokenised, CurationReport]:
    """Write the examples' tokens; return (what is known of them, what was left out)."""
    kinds: dict[Kind, int] = {}
    asked: dict[str, int] = {}
    found = _Tokenised([], [], [], [], [])
    with TokenWriter(folder) as writer, (folder / "dropped.jsonl").open("w", encoding="utf-8") as dropped:
        report = CurationReport(on_drop=partial(_write_dropped, dropped))
        for name, row in curated(
            read_dialogues(recipe, report, should_stop),
            recipe.curation,
            seed=recipe.run.seed,
            report=report,
            count=lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
        ):
            if _is_tested(row, tested):
                report.drop(row, row["place"], name, "test", Finding("among the test questions"))
                continue
            question = asked.setdefault(_question(row["messages"]), len(asked))
            for example in _examples(name, row, recipe, tokenizer, report):
                writer.add(example)
                kind = Kind(row["mode"], row.get("domain") or "general", name, row.get("language") or "en")
                found.codes.append(kinds.setdefault(kind, len(kinds)))
                found.lengths.append(len(example.token_ids))
                found.trained.append(sum(example.mask[1:]))
                found.questions.append(question)
                if writer.count % 50_000 == 0:
                    announce(f"{writer.count:,} examples tokenised")
    found.kinds.extend(kinds)
    return found, report


def _question(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the first question of a dialogue is known by, its system turn included: the task may stand there."""
    first = next((number for number, turn in enumerate(messages) if turn["role"] == "assistant"), len(messages))
    return question_key(messages[:first])


def _write_dropped(file: IO[str], dropped: Dropped) -> None:
    file.write(json_line({name: value for name, value in vars(dropped).items() if name != "messages"}))


def _examples(
    source: str,
    row: dict[str, Any],
    recipe: SFTRecipe,
    tokenizer: PreTrainedTokenizerBase,
    report: CurationReport,
) -> Iterator[Example]:
    """Yield a row's examples that fit, cut where the recipe says so."""
    try:
        found = row_examples(tokenizer, row, row["place"])
    except UserError as error:
        if recipe.data.malformed == "refuse":
            raise
        report.drop(row, row["place"], source, "template", Finding("refused by the chat template", str(error)))
        return
    for ids, mask in found:
        if len(ids) <= recipe.training.row_tokens:
            yield Example(ids, mask)
        elif cut := _cut(Example(ids, mask), source, row, recipe, report):
            yield cut


def _cut(
    example: Example, source: str, row: dict[str, Any], recipe: SFTRecipe, report: CurationReport
) -> Example | None:
    """Return the start of an example that is too long, where the recipe says so and there is something to train."""
    longest, wish = recipe.training.row_tokens, recipe.data.overlong
    problem = f"{len(example.token_ids)} tokens, training.row_tokens is {longest}"
    if wish == "refuse":
        raise UserError(f"{row['place']}: {problem}; raise it, or set data.overlong to drop or truncate")
    if wish == "truncate" and any(example.mask[1:longest]):
        report.verdicts["truncated"] += 1
        return Example(example.token_ids[:longest], example.mask[:longest])
    report.drop(row, row["place"], source, "overlong", Finding("longer than a row", problem))
    return None


def _save(
    folder: Path,
    found: _Tokenised,
    report: CurationReport,
    recipe: SFTRecipe,
) -> None:
    if not found.codes:
        why = ", ".join(f"{count} {name} ({reason})" for (_, name, reason), count in report.dropped.items())
        mend = "; raise training.row_tokens" if any(name == "overlong" for _, name, _ in report.dropped) else ""
        raise UserError(
            f"data: no dialogue is left to train on, of {report.seen.total()}: {why or 'there were none'}{mend}"
        )
    held = held_out(recipe, found.questions)
    left = np.delete(np.arange(len(found.codes)), held)
    codes, lengths, trained = (np.asarray(column) for column in (found.codes, found.lengths, found.trained))
    places, warnings = plan_rows(
        recipe, found.kinds, codes[left].tolist(), lengths[left].tolist(), trained[left].tolist()
    )
    overlong = sum(count for (_, name, _), count in report.dropped.items() if name == "overlong")
    warnings += overlong_warning(recipe, overlong, overlong + len(found.codes))
    indices, ends = flatten(places)
    np.savez(
        folder / PLAN,
        codes=codes,
        lengths=lengths,
        trained=trained,
        indices=left[indices],
        ends=ends,
        held=np.asarray(held, dtype=np.int64),
    )
    curation = {name: value for name, value in report.as_dict().items() if name != "samples"}
    write_json_atomic(
        folder / ABOUT, {"kinds": found.kinds, "files": _files(recipe), "curation": curation, "warnings": warnings}
    )


def _load(folder: Path, rows_per_step: int) -> TrainingData:
    about = read_json(folder / ABOUT) or {}
    with np.load(folder / PLAN) as plan:
        return TrainingData(
            folder=folder,
            lengths=plan["lengths"],
            trained=plan["trained"],
            kinds=[Kind(*kind) for kind in about["kinds"]],
            codes=plan["codes"],
            rows=unflatten(plan["indices"], plan["ends"]),
            held=plan["held"].tolist() if "held" in plan else [],
            rows_per_step=rows_per_step,
            report=about["curation"],
            warnings=about.get("warnings", []),
        )
