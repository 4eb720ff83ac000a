"""An evaluation to look at: accuracy with its intervals, pass@k and maj@k by k, and accuracy by thinking budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agapo.tracking.curves import BLUE, GREEN, ORANGE, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {"reasoning": BLUE, "non_reasoning": ORANGE}
Table = Sequence[Mapping[str, Any]]


def accuracy_picture(accuracy: Mapping[str, Any], path: Path) -> None:
    """Draw a summary's `accuracy` as a PNG, a panel for each thing that was measured."""
    save_figure(draw_accuracy(accuracy), path)


def draw_accuracy(accuracy: Mapping[str, Any]) -> "Figure":
    """Return the panels of `accuracy_picture` as a figure."""
    # Imported here: it takes half a second, and only the end of a run draws.
    from matplotlib.figure import Figure

    overall = [row for row in accuracy["table"] if row["domain"] == "all"]
    parts = _parts(accuracy)
    panels: list[Any] = [lambda axes: _dots(axes, parts)]
    if any(row["samples"] > 1 for row in overall):
        panels.append(lambda axes: _by_k(axes, overall))
    if accuracy["budgets"]:
        panels.append(lambda axes: _by_budget(axes, accuracy["budgets"]))
    height = max(3.6, 0.34 * len(parts) + 1.6)
    figure = Figure(figsize=(5.4 * len(panels), height), layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _parts(accuracy: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return (label, row) for all questions of each mode, and for each set where there are several, else domain."""
    several = len({row["set"] for row in accuracy["sets"]}) > 1
    table = accuracy["sets"] if several else [row for row in accuracy["table"] if row["domain"] != "all"]
    overall = [("all", row) for row in accuracy["table"] if row["domain"] == "all"]
    named = [(row["set" if several else "domain"], row) for row in table]
    return sorted(
        [*overall, *named], key=lambda one: list(dict.fromkeys(n for n, _ in [*overall, *named])).index(one[0])
    )


def _dots(axes: Any, parts: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    axes.set_title("Accuracy, with its 95 % interval over questions", fontsize=11)
    modes = list(dict.fromkeys(row["mode"] for _, row in parts))
    for mode in modes:
        own = [(place, row) for place, (_, row) in enumerate(parts) if row["mode"] == mode]
        values = [row["all"] for _, row in own]
        spans = [
            [row["all"] - row["interval"][0] for _, row in own],
            [row["interval"][1] - row["all"] for _, row in own],
        ]
        places = [place for place, _ in own]
        axes.errorbar(values, places, xerr=spans, fmt="o", color=COLORS[mode], capsize=3, label=_named(mode))
    axes.set_yticks(range(len(parts)), [f"{name} ({row['questions']:,})" for name, row in parts])
    axes.invert_yaxis()
    _percent(axes.xaxis)
    axes.set_xlim(-0.02, 1.02)
    _legend(axes)


def _by_k(axes: Any, rows: Table) -> None:
    axes.set_title("By answers a question", fontsize=11)
    axes.set_xlabel("k")
    most = max(row["samples"] for row in rows)
    for row in rows:
        color = COLORS[row["mode"]]
        if row["samples"] == 1:
            axes.axhline(row["all"], color=color, linestyle=":", label=f"{_named(row['mode'])}: one answer")
            continue
        for name, style, shown in (("pass", "o-", "pass@k"), ("majority", "s--", "maj@k")):
            if curve := row[name]:
                _banded(
                    axes, [int(k) for k in curve], list(curve.values()), style, color, f"{_named(row['mode'])}: {shown}"
                )
    axes.set_xscale("log", base=2)
    ticks = [2**power for power in range(most.bit_length()) if 2**power <= most]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    _percent(axes.yaxis)
    _legend(axes)


def _by_budget(axes: Any, rows: Table) -> None:
    axes.set_title("By thinking budget", fontsize=11)
    axes.set_xlabel("tokens of thinking, at most")
    limited = [row for row in rows if row["budget"] is not None]
    points = [[row["all"], *row["interval"]] for row in limited]
    _banded(axes, [row["budget"] for row in limited], points, "o-", BLUE, "with </think> put behind the budget")
    for row in rows:
        if row["budget"] is None:
            axes.axhline(row["all"], color=GREEN, linestyle=":", label="as long as it likes")
            axes.axhspan(*row["interval"], color=GREEN, alpha=0.12, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks([row["budget"] for row in limited], [f"{row['budget']:,}" for row in limited])
    axes.minorticks_off()
    _percent(axes.yaxis)
    _legend(axes)


def _banded(
    axes: Any, places: list[int], points: Sequence[Sequence[float]], style: str, color: str, label: str
) -> None:
    """Draw [value, low, high] at each place as a line in a band."""
    values, lows, highs = zip(*points, strict=True)
    axes.plot(places, values, style, color=color, markersize=4, label=label)
    axes.fill_between(places, lows, highs, color=color, alpha=0.15, linewidth=0)


def _named(mode: str) -> str:
    return mode.replace("_", "-")


def _percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _legend(axes: Any) -> None:
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
