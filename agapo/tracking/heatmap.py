"""The needle test to look at: a heat map of length × position, and the same as a table."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from agapo.tracking.files import write_bytes_atomic
from agapo.tracking.progress import make_console, print_table

if TYPE_CHECKING:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

Grid = Mapping[tuple[int, float], float]
"""Share of the needles found, 0 to 1, by (length in tokens, position from 0 to 1)."""

DEEP_RED, PALE_RED, PALE_GREEN, DEEP_GREEN = "#b3263a", "#f8d9c0", "#cdeccf", "#1f8a4c"
INK = "#1d232b"


def needle_heatmap(grids: Mapping[str, Grid], green: float, path: Path) -> None:
    """Draw one panel a mode as a PNG: lengths from left to right, positions from top to bottom.

    The colours change from red to green at the threshold `green`, and cells below it have a frame.
    """
    picture = io.BytesIO()
    draw_heatmap(grids, green).savefig(picture, format="png", dpi=120)
    write_bytes_atomic(path, picture.getvalue())


def draw_heatmap(grids: Mapping[str, Grid], green: float) -> "Figure":
    """Return the panels of `needle_heatmap` as a figure."""
    # Imported here: it takes half a second, and only the end of a run draws.
    from matplotlib.figure import Figure

    columns, rows = (max(len(axis) for axis in sizes) for sizes in zip(*map(axes_of, grids.values()), strict=True))
    size = (len(grids) * max(3.6, 0.85 * columns + 1.3) + 1.2, max(3.0, 0.46 * rows + 1.7))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(grids), squeeze=False)[0]
    image = None
    for axes, (mode, grid) in zip(panels, grids.items(), strict=True):
        image = _panel(axes, mode, grid, green)
    _color_bar(figure, image, panels, green)
    return figure


def axes_of(grid: Grid) -> tuple[list[int], list[float]]:
    """Return the lengths and the positions of a grid, ascending."""
    return sorted({length for length, _ in grid}), sorted({position for _, position in grid})


def tokens_label(length: int) -> str:
    """Return `512`, `4k` or `128k`; what is no whole number of thousands or of 1024 stays a number."""
    for unit in (1024, 1000):
        if length >= unit and length % unit == 0:
            return f"{length // unit}k"
    return f"{length:,}"


def print_grid(title: str, grid: Grid, green: float, console: Console | None = None) -> None:
    """Print a grid in percent; cells below the threshold are marked `✗`."""
    lengths, positions = axes_of(grid)
    rows = [
        (f"{position:.0%}", *(_cell(grid.get((length, position)), green) for length in lengths))
        for position in positions
    ]
    columns = ("position", *(f"{tokens_label(length)} tokens" for length in lengths))
    print_table(title, columns, rows, console or make_console())


def _cell(share: float | None, green: float) -> str:
    return "–" if share is None else f"{'✗ ' if share < green else ''}{100 * share:.0f}%"


def colormap(green: float) -> "LinearSegmentedColormap":
    """Return colours over 0 to 1: reds that grow pale towards the threshold, greens that grow deep from it on."""
    from matplotlib.colors import LinearSegmentedColormap

    # A map cannot jump at its very end: with a threshold of 1 the last shade is the green.
    turn = min(green, 1 - 1 / 512)
    stops = [(0, DEEP_RED), (turn, PALE_RED), (turn, PALE_GREEN), (1, DEEP_GREEN)]
    return LinearSegmentedColormap.from_list("needle", stops, N=1024)


def _panel(axes: Any, mode: str, grid: Grid, green: float) -> Any:
    lengths, positions = axes_of(grid)
    values = [[grid.get((length, position), float("nan")) for length in lengths] for position in positions]
    image = axes.imshow(values, cmap=colormap(green), vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(lengths)), [tokens_label(length) for length in lengths])
    axes.set_yticks(range(len(positions)), [f"{position:.0%}" for position in positions])
    axes.set_xlabel("prompt, tokens")
    axes.set_ylabel("position of the needle")
    axes.set_title(f"Needles found, {mode.replace('_', '-')} mode", fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks([edge - 0.5 for edge in range(1, len(lengths))], minor=True)
    axes.set_yticks([edge - 0.5 for edge in range(1, len(positions))], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for row, line in enumerate(values):
        for column, share in enumerate(line):
            _write_cell(axes, column, row, share, green)
    return image


def _write_cell(axes: Any, column: int, row: int, share: float, green: float) -> None:
    if share != share:  # not asked
        return
    from matplotlib.patches import Rectangle

    red = share < green
    dark = share < 0.35 * green or (not red and share >= green + 0.6 * (1 - green))
    axes.text(
        column,
        row,
        f"{100 * share:.0f}%",
        ha="center",
        va="center",
        color="white" if dark else INK,
        fontsize=9,
        fontweight="bold" if red else "normal",
    )
    if red:
        frame = Rectangle((column - 0.44, row - 0.44), 0.88, 0.88, fill=False, edgecolor=DEEP_RED, linewidth=1.6)
        axes.add_patch(frame)


def _color_bar(figure: "Figure", image: Any, panels: Any, green: float) -> None:
    bar = figure.colorbar(image, ax=list(panels), fraction=0.05, pad=0.02)
    bar.set_ticks([0, green, 1] if green < 1 else [0, 1])
    bar.set_ticklabels(["0%", f"green from {green:.0%}", "100%"] if green < 0.95 else ["0%", *_top_labels(green)])
    bar.ax.axhline(green, color=INK, linewidth=1.5)
    bar.outline.set_visible(False)


def _top_labels(green: float) -> list[str]:
    """Near the top the two labels would overlap."""
    return [f"green from {green:.0%}", ""] if green < 1 else ["green: 100%"]
