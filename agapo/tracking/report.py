"""What a run leaves to look at: the table before and after, solve rates, lengths of pairs, and where things lie."""

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from agapo.tracking.curves import BLUE, GREEN, GREY, RED, save_figure
from agapo.tracking.progress import format_duration, make_console, percent, print_table
from agapo.tracking.run_directory import RunDirectory


def before_after_table(
    before: Mapping[str, float],
    after: Mapping[str, float],
    questions: Mapping[str, int] | None = None,
    console: Console | None = None,
    title: str = "Held-out accuracy",
) -> list[tuple[str, str, str, str]]:
    """Print accuracy (0 to 1) by mode before and after, with the gain in points; return the rows.

    `questions`: how many there are by mode, for the standard errors.
    """
    counts = questions or {}
    rows = [_gain_row(mode, before.get(mode), after.get(mode), counts.get(mode)) for mode in {**before, **after}]
    print_table(title, ("mode", "before", "after", "gain"), rows, console or make_console())
    return rows


def thinking_table(
    before: Mapping[str, float], after: Mapping[str, float], console: Console | None = None
) -> list[tuple[str, str, str]]:
    """Print the share of responses that think by mode, before and after; return the rows."""
    rows = [(mode, percent(before[mode]), percent(after[mode])) for mode in after if mode in before]
    print_table("Responses that think", ("mode", "before", "after"), rows, console or make_console())
    return rows


def solve_rate_table(counts: Mapping[str, int], console: Console | None = None) -> None:
    """Print `solve_rate_counts` with a bar for each."""
    most = max(counts.values(), default=0)
    rows = [(label, f"{count}", "█" * round(40 * count / max(most, 1))) for label, count in counts.items()]
    print_table("Solve rates of the prompts", ("correct", "prompts", ""), rows, console or make_console(), left=(2,))


def solve_rate_counts(rates: Sequence[float | None], samples: int) -> dict[str, int]:
    """Return the number of prompts by how many of `samples` responses were correct, from none to all."""
    counts = dict.fromkeys((f"{number} of {samples}" for number in range(samples + 1)), 0)
    for rate in rates:
        if rate is not None:
            counts[f"{round(rate * samples)} of {samples}"] += 1
    unknown = sum(rate is None for rate in rates)
    return counts | ({"no verdict": unknown} if unknown else {})


def solve_rate_histogram(counts: Mapping[str, int], png_path: Path) -> None:
    """Draw `solve_rate_counts` as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    colors = [RED, *[GREY] * (len(counts) - 2), GREEN]
    axes.bar(list(counts), list(counts.values()), color=colors[: len(counts)])
    axes.set_xlabel("correct responses")
    axes.set_ylabel("prompts")
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, png_path)


def pairs_histogram(rows: Sequence[Mapping[str, Any]], png_path: Path) -> None:
    """Draw the lengths of chosen and rejected responses, and the margins of their rewards, as a PNG of two panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    lengths, margins = figure.subplots(1, 2)
    lengths.set_title("Lengths")
    lengths.set_xlabel("tokens")
    margins.set_title("Margins")
    margins.set_xlabel("reward of the chosen minus that of the rejected response")
    found = {name: [row[f"{name}_tokens"] for row in rows] for name in ("chosen", "rejected")}
    longest = max((max(values, default=1) for values in found.values()), default=1)
    for (name, values), color in zip(found.items(), (GREEN, RED), strict=True):
        lengths.hist(values, bins=30, range=(0, longest), color=color, alpha=0.6, label=name)
    lengths.legend(frameon=False)
    margins.hist([row["margin"] for row in rows if row["margin"] is not None], bins=30, color=BLUE)
    for axes in (lengths, margins):
        axes.set_ylabel("pairs")
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, png_path)


def final_summary(
    run: RunDirectory,
    *,
    steps: int,
    total_steps: int,
    wall_s: float,
    command: str | None = None,
    console: Console | None = None,
) -> None:
    """Print how the run ended, where things lie, and how to go on or use the model.

    `command` resumes the run; it defaults to the command that this process was started with.
    """
    console = console or make_console()
    for line in _summary_lines(run, steps, total_steps, wall_s, command or this_command()):
        console.print(Text(line), soft_wrap=True)


def this_command(argv: Sequence[str] | None = None) -> str:
    """Return the command that this process was started with, to be typed again."""
    program, *arguments = sys.argv if argv is None else argv
    name = Path(program).name
    start = ["python", "-m", "agapo"] if name == "__main__.py" else [name]
    return shlex.join([*start, *arguments])


def _summary_lines(run: RunDirectory, steps: int, total_steps: int, wall_s: float, command: str) -> Iterable[str]:
    if steps < total_steps:
        yield f"Stopped after step {steps} of {total_steps} ({format_duration(wall_s)}). To go on: {command}"
    else:
        yield f"Finished {steps} steps in {format_duration(wall_s)}."
    for name, path in _places(run):
        yield f"  {name:<9} {_shown(path)}"
    if run.hf.exists() and steps >= total_steps:
        yield f'Use the model: AutoModelForCausalLM.from_pretrained("{_shown(run.hf)}")'
    offline = sorted((run.path / "wandb").glob("offline-run-*"))
    if offline:
        yield f"Send to W&B:   wandb sync {' '.join(shlex.quote(_shown(path)) for path in offline)}"


def _places(run: RunDirectory) -> list[tuple[str, Path]]:
    """What there is to look at: only what exists."""
    places = [
        ("model", run.hf),
        ("best", run.best),
        ("saved", run.checkpoints),
        ("metrics", run.metrics),
        ("rollouts", run.rollouts),
        ("curve", run.curve),
        ("report", run.report),
        ("summary", run.summary),
        ("errors", run.reward_errors),
    ]
    return [(name, path) for name, path in places if path.is_dir() or (path.is_file() and path.stat().st_size)]


def _shown(path: Path) -> str:
    """Return `path` from the working directory where it lies below it: shorter to read and to type."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _gain_row(mode: str, before: float | None, after: float | None, of: int | None) -> tuple[str, str, str, str]:
    gain = "–" if before is None or after is None else f"{100 * (after - before):+.1f} points"
    return mode, percent(before, of), percent(after, of), gain
