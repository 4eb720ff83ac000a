"""`agapo curate`: run the filters of an SFT recipe over its rows, and show what they drop and why.

`curated` is the same for training; here nothing is trained, and the rows that stay can be written down.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import tee
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from agapo.curation.curate import Filter, Item, Judged, curate
from agapo.curation.report import CurationReport, Dropped, Finding
from agapo.curation.text import completion
from agapo.errors import UserError
from agapo.recipe import SFTRecipe
from agapo.recipe.curation import CurationConfig
from agapo.rewarding.scorer import Scorer
from agapo.rewarding.start import start_scorer
from agapo.schema import Group, Prompt, Response
from agapo.stages.pasted import only_source
from agapo.stages.running.dialogues import Named, read_dialogues
from agapo.tracking.files import json_line, write_json_atomic
from agapo.tracking.progress import make_console, print_table, printable

_ENOUGH, _FEW = 100, 8
"""The rate of errors is looked at every so many rows, and at the end, where there are a few."""
_ABOUT = ("id", "messages", "domain", "mode", "language", "place")


def run_curate(recipe: SFTRecipe, *, explain: bool, out: Path | None, samples: int) -> None:
    """Filter the recipe's training rows; print what was dropped, and write those that stay to `out`."""
    if out and out.exists():
        raise UserError(f"--out {out}: is there already; remove it, or give another file")
    report = CurationReport(most_samples=samples)
    kept = curated(
        read_dialogues(recipe, report), recipe.curation, seed=recipe.run.seed, report=report, count=_token_count(recipe)
    )
    if out:
        _write(out, kept)
    else:
        deque(kept, maxlen=0)
    console = make_console()
    print_report(report, console)
    if explain:
        print_samples(report, console)
    if out:
        write_json_atomic(out.with_name(f"{out.name}.report.json"), report.as_dict())
        data = out.parent if out.name == "train.jsonl" else out
        line = f"To train on them: {only_source('data.files:dialogues', data)}"
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def curated(
    rows: Iterable[Named],
    config: CurationConfig,
    *,
    seed: int,
    report: CurationReport,
    count: Callable[[str], int] | None = None,
) -> Iterator[Named]:
    """Yield the pairs (source's name, row) that pass, as `curation.curate.curate` does, with the rewards it asks.

    Raises UserError where the rewards do not work.
    """
    if config.verify is None:
        yield from curate(rows, config, seed=seed, report=report, count=count)
        return
    scorer = start_scorer(config.verify)
    try:
        yield from curate(rows, config, seed=seed, verify=verify_by(scorer, report), report=report, count=count)
    finally:
        scorer.close()


def verify_by(scorer: Scorer, report: CurationReport) -> Filter:
    """Return the filter that drops the rows that the scorer's rewards call wrong; `report.verdicts` counts all.

    Rows of domains that no term judges, and rows without a verdict, stay. Raises UserError when more rows meet errors
    than `verify.max_error_rate`.
    """

    def judged(items: Iterator[Item]) -> Judged:
        errors: list[str | None] = []
        for item, group in _judged_groups(items, scorer):
            response = group.responses[0] if group else None
            errors.append(response.reward_error if response else None)
            if len(errors) % _ENOUGH == 0:
                _check_errors(errors, scorer.reward.max_error_rate)
            finding = _wrong(group, scorer) if group else None
            verdict = "wrong" if finding else "correct" if response and response.correct else "no verdict"
            report.verdicts[verdict] += 1
            yield item, finding
        if len(errors) >= _FEW:
            _check_errors(errors, scorer.reward.max_error_rate)

    return judged


def _wrong(group: Group, scorer: Scorer) -> Finding | None:
    """What a verdict of wrong says. A reward that raises (over a column that is not there, say) has none."""
    response = group.responses[0]
    kind = (response.reward_error or "").partition(":")[0]
    if response.correct is not False or kind == "exception":
        return None
    by = f"wrong by {scorer.reward.verdict_for(group.prompt.domain)}"
    return Finding(f"{by} ({kind})" if kind else by, response.reward_error or "")


def _check_errors(errors: list[str | None], most: float) -> None:
    found = [error for error in errors if error]
    if len(found) > most * len(errors):
        raise UserError(
            f"curation.verify.max_error_rate: {len(found)} of {len(errors)} rows met errors, above {most:.0%}; the "
            f"last: {found[-1]}"
        )


def _judged_groups(items: Iterator[Item], scorer: Scorer) -> Iterator[tuple[Item, Group | None]]:
    """Yield every item with its judged response; None where no term judges its domain."""
    ahead, asked = tee(items)
    judged = scorer.judge(_group(item) for item in asked if scorer.reward.terms_for(_domain(item)))
    for item in ahead:
        yield item, next(judged) if scorer.reward.terms_for(_domain(item)) else None


def _domain(item: Item) -> str:
    return item.row.get("domain") or Prompt.domain


def _group(item: Item) -> Group:
    """The row as a prompt and one response to it; its columns are what the rewards read."""
    row = item.row
    prompt = Prompt(
        id=str(id(row)),
        messages=tuple(row["messages"][:-1]),
        domain=_domain(item),
        mode=row["mode"],
        language=row.get("language") or Prompt.language,
        columns={name: value for name, value in row.items() if name not in _ABOUT},
    )
    response = Response((), completion(row), "stop")
    return Group(prompt, (), (response,))


def _token_count(recipe: SFTRecipe) -> Callable[[str], int] | None:
    lengths = recipe.curation.lengths
    if lengths is None or lengths.unit == "characters":
        return None
    if not recipe.model.path:
        raise UserError("curation.lengths.unit: tokens need a model to count with (model.path); give characters")
    from agapo.model.loading import load_tokenizer  # brings transformers

    tokenizer = load_tokenizer(recipe.model.path)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _write(path: Path, rows: Iterable[Named]) -> None:
    """Write the rows as JSON lines, complete or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            for _, row in rows:
                file.write(json_line({name: value for name, value in row.items() if name != "place"}))
        part.replace(path)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def print_report(report: CurationReport, console: Console) -> None:
    """Print how many rows stayed, and those dropped by source, filter and reason."""
    seen, kept = report.seen.total(), report.kept.total()
    rows = [
        (source, name, reason, number, f"{number / report.seen[source]:.1%}")
        for (source, name, reason), number in sorted(report.dropped.items())
    ]
    title = f"kept {kept} of {seen} rows"
    if rows:
        print_table(title, ("source", "dropped by", "reason", "rows", "of source"), rows, console, left=(1, 2))
    else:
        console.print(title)
    if report.verdicts:
        verdicts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(report.verdicts.items()))
        console.print(f"verified: {verdicts}", soft_wrap=True)


def print_samples(report: CurationReport, console: Console) -> None:
    """Print the dropped rows that were kept to look at, shortened, with why."""
    for sample in report.samples:
        console.print(Rule(Text(printable(f"{sample.filter}: {sample.reason}")), align="left", style="dim"))
        console.print(Text(printable(_sample_text(sample))), soft_wrap=True)


def _sample_text(sample: Dropped) -> str:
    lines = [f"{sample.place}{f' ({sample.detail})' if sample.detail else ''}"]
    for turn in sample.messages:
        for name in ("reasoning_content", "content", "tool_calls"):
            if turn.get(name):
                label = turn["role"] if name == "content" else f"{turn['role']}, {name}"
                lines.append(f"  {label}: {turn[name]}")
    return "\n".join(lines)
