"""What a run says while it runs: a live line in a terminal, plain lines now and then in a log file.

Everything that a model wrote is shown as plain text: no markup, no terminal control codes.
"""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from agapo.schema import Response

KEY_FIGURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("reward/mean", "reward", lambda value: f"{value:.2f}"),
    ("reward/accuracy", "acc", lambda value: f"{100 * value:.0f}%"),
    ("group/all_wrong", "all wrong", lambda value: f"{100 * value:.0f}%"),
    ("kl/sequence", "kl", lambda value: f"{value:.3g}"),
    ("mismatch/mean", "engine off", lambda value: f"{value:.0e}"),
    ("train/loss", "loss", lambda value: f"{value:.3f}"),
    ("pairs/accuracy", "told apart", lambda value: f"{100 * value:.0f}%"),
    ("pairs/chosen_drift", "chosen moved", lambda value: f"{value:+.3f}"),
    ("rollout/length", "length", lambda value: f"{value:.0f}"),
    ("time/step", "s/step", lambda value: f"{value:.2g}" if value < 10 else f"{value:.0f}"),
)
"""Metric, short name and format of the figures that stand beside the bar, where a step has them."""

SAMPLE_CHARACTERS = 600
"""A shown sample is cut in its middle to about so many characters: start and answer stay."""

PLAIN_WIDTH = 100
"""Columns for panels and tables where the output is no terminal."""

ROOMY = 100
"""Columns from which on the bar is long, and tables have columns that are good to have; below, others need the room."""


class StepProgress:
    """The progress of a run of `total` steps, of which `done` were made before this process started.

    Use as a context manager. In a terminal one line is live: steps and time left, and as many key figures as it has
    room for. Elsewhere a plain line with all of them appears every `log_every` steps, after the first and after the
    last. The ETA comes from the last 20 steps of this process, evaluation and checkpoints included, so that it is right
    after a resume too.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        *,
        name: str = "train",
        log_every: int = 10,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or make_console()
        self._total, self._done, self._first = total, done, done + 1
        self._name, self._log_every, self._clock = name, log_every, clock
        self._last_time = clock()
        self._seconds: deque[float] = deque(maxlen=20)
        self._live = self._make_live() if self.console.is_terminal else None
        self._task = self._live.add_task(name, total=total, completed=done, left="", figures="") if self._live else None

    def __enter__(self) -> "StepProgress":
        self._last_time = self._clock()
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the live line; printing goes on below it. Harmless when done twice."""
        if self._live:
            self._live.stop()

    def begin(self, seconds: float) -> None:
        """Count the first step as `seconds` long: what came before it says nothing about how long steps take."""
        self._last_time = self._clock() - seconds

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show that `step` (counted from 1) is done, with its key figures."""
        now = self._clock()
        self._seconds.append((now - self._last_time) / max(step - self._done, 1))
        self._last_time, self._done = now, step
        if self._live and self._task is not None:
            self._live.update(self._task, completed=step, left=self._left(), figures=self._fitting(metrics))
        elif step in (self._first, self._total) or step % self._log_every == 0:
            self._line("  ".join([f"{self._name} {step}/{self._total}", *self._figures(metrics), self._left()]))

    @property
    def done(self) -> int:
        """Steps that are done."""
        return self._done

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last step at the recent pace; None before the first step."""
        if not self._seconds:
            return None
        return (self._total - self._done) * sum(self._seconds) / len(self._seconds)

    def evaluation(
        self,
        step: int,
        scores: Mapping[str, float],
        questions: Mapping[str, int] | None = None,
        *,
        reward: float = 0.0,
        best: bool = False,
    ) -> None:
        """Print a line of held-out accuracy by mode, 0 to 1 each, of so many `questions`; `best` marks a new best.

        The mean `reward` stands in it where no answer was correct and it alone tells steps apart.
        """
        if not self._seconds:
            # The evaluation before the first step says nothing about how long steps take.
            self._last_time = self._clock()
        figures = "  ".join(f"{mode} {percent(score, (questions or {}).get(mode))}" for mode, score in scores.items())
        if reward and not any(scores.values()):
            figures += f"  reward {reward:.3g}"
        self._line(f"eval at step {step}: {figures}{'  (best so far)' if best else ''}")

    def show_sample(self, step: int, prompt_text: str, response: Response) -> None:
        """Print one sampled response in a panel, with its verdict and reward."""
        mark, style = _verdict(response.correct)
        reward = "" if response.reward is None else f"  reward {response.reward:.2f}"
        cut = "  cut at the token limit" if response.finish == "length" else ""
        title = Text(f"step {step}  {mark}{reward}{cut}", style)
        body = Group(Text(_clip(prompt_text), "bold"), Rule(style="dim"), Text(_clip(response.text)))
        self.console.print(
            Panel(body, title=title, title_align="left", width=table_width(self.console), border_style="dim")
        )

    def print_table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print a table: first column left, the others right."""
        print_table(title, columns, rows, self.console)

    def announce(self, text: str) -> None:
        """Print one line above the live line."""
        self._line(text)

    def _figures(self, metrics: Mapping[str, float]) -> list[str]:
        shown = [f"{name} {form(metrics[key])}" for key, name, form in KEY_FIGURES if metrics.get(key) is not None]
        return shown if "time/step" in metrics else [*shown, f"s/step {self._seconds[-1]:.2g}"]

    def _left(self) -> str:
        return f"left {format_duration(self.eta_seconds)}"

    def _fitting(self, metrics: Mapping[str, float]) -> str:
        """Return the first of the figures, whole ones, that have room beside what the line always has."""
        always = " ".join([self._name, "━" * self._bar_width, f"{self._total}/{self._total}", self._left(), ""])
        text = ""
        for figure in self._figures(metrics):
            longer = f"{text}  {figure}" if text else figure
            if len(always) + len(longer) > self.console.width:
                break
            text = longer
        return text

    @property
    def _bar_width(self) -> int:
        return 20 if self.console.width >= ROOMY else 10

    def _line(self, text: str) -> None:
        # Soft wrap: a log file gets one line a message, whatever its width.
        self.console.print(Text(printable(text)), soft_wrap=True)

    def _make_live(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(self._bar_width),
            TaskProgressColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.fields[figures]}", markup=False),
        )
        return Progress(*columns, console=self.console, refresh_per_second=4)


def make_console() -> Console:
    """Return a console on standard output that never fails on a character the terminal lacks."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False)


def say(text: str) -> None:
    """Print one line, at once and as it is: what a run is doing, what it has found."""
    make_console().print(text, soft_wrap=True, highlight=False, markup=False)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], console: Console, left: Sequence[int] = ()
) -> None:
    """Print a table: first column left, the others right, but for the numbers in `left`; only the first may wrap."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        justify = "right" if number and number not in left else "left"
        table.add_column(column, justify=justify, no_wrap=number > 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console.print(table, width=table_width(console))


def format_duration(seconds: float | None) -> str:
    """Return `45s`, `3m20s` or `2h05m`; `?` for None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def percent(share: float | None, of: int | None = None) -> str:
    """Return a share, 0 to 1, as `94.7%`, with its standard error in points where it is one of `of` questions.

    √(p(1−p)/n): how far another draw of as many questions would be, one time in three further. Of none or all, where
    that is 0, it says nothing, and is left out.
    """
    if share is None:
        return "–"
    error = f" ±{100 * math.sqrt(share * (1 - share) / of):.1f}" if of and 0 < share < 1 else ""
    return f"{100 * share:.1f}%{error}"


def printable(text: str) -> str:
    """Return `text` with control characters made visible: a model's output must not steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _verdict(correct: bool | None) -> tuple[str, str]:
    if correct is None:
        return "no verdict", "dim"
    return ("✓ correct", "green") if correct else ("✗ wrong", "red")


def _clip(text: str) -> str:
    text = printable(text)
    if len(text) <= SAMPLE_CHARACTERS:
        return text
    half = SAMPLE_CHARACTERS // 2
    return f"{text[:half]} […] {text[-half:]}"


def table_width(console: Console) -> int:
    """Return the columns that a panel or table takes."""
    return min(console.width, PLAIN_WIDTH) if console.is_terminal else PLAIN_WIDTH
