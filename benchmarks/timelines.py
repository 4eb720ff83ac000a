"""Draw the timelines of runs one below the other, a few seconds of each, as one SVG (docs/timelines.svg).

    python -m benchmarks.timelines RUN [RUN ...] --out docs/timelines.svg [--from-step 3] [--seconds 8]

Runs as they come: the recipe's tiny one that takes turns, and one with `rollout.max_staleness=1`, say.
"""

import argparse
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from agapo.tracking.timeline import ACTORS, DRIVER, RANKS, read_timeline

LEFT, WIDTH, ROW, GAP = 110, 760, 20, 34
COLORS = {
    "generate": "#2f6fb3",
    "score": "#7b5ea7",
    "learn": "#2e9e5b",
    "sync": "#e08e2b",
    "evaluate": "#8a8f98",
    "checkpoint": "#d1495b",
    "sample": "#2f6fb3",
    "forward and backward": "#2e9e5b",
    "optimizer": "#1d6b3c",
    "judge": "#7b5ea7",
}
"""What is drawn; phases within phases are left out."""


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--from-step", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    own = parser.parse_args()
    named = [(run.name, read_timeline(run / "timeline.json")) for run in own.runs]
    own.out.write_text(picture(named, own.from_step, own.seconds))


def picture(runs: Sequence[tuple[str, Sequence[dict[str, Any]]]], from_step: int, seconds: float) -> str:
    """Return the SVG of (name, events) of each run, from the beginning of a step on."""
    parts, top = list[str](), 0
    for name, events in runs:
        drawn, height = _panel(name, events, from_step, seconds, top)
        parts += drawn
        top += height
    legend = [name for name in COLORS if name not in ("sample", "judge", "evaluate", "checkpoint")]
    x = LEFT
    for name in legend:
        parts.append(f'<rect x="{x}" y="{top}" width="10" height="10" rx="2" fill="{COLORS[name]}"/>')
        parts.append(f'<text x="{x + 15}" y="{top + 9}">{name}</text>')
        x += 40 + 7 * len(name)
    size = f'width="{LEFT + WIDTH + 20}" height="{top + 20}"'
    style = "<style>text{font:12px sans-serif;fill:#808790}.t{font-weight:bold;font-size:13px}</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{"".join(parts)}</svg>\n'


def _panel(
    name: str, events: Sequence[dict[str, Any]], from_step: int, seconds: float, top: int
) -> tuple[list[str], int]:
    spans = [event for event in events if event.get("ph") == "X" and event["name"] in COLORS]
    start = min(e["ts"] for e in spans if e["pid"] == DRIVER and e["args"]["step"] == from_step)
    rows = sorted({(event["pid"], event["tid"]) for event in spans})
    parts = [f'<text class="t" x="{LEFT}" y="{top + 16}">{escape(name)}</text>']
    for number, row in enumerate(rows):
        y = top + 26 + number * ROW
        parts.append(f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{_label(row)}</text>')
        parts += _bars((event for event in spans if (event["pid"], event["tid"]) == row), start, seconds, y)
    bottom = top + 26 + len(rows) * ROW
    for second in range(int(seconds) + 1):
        x = LEFT + WIDTH * second / seconds
        parts.append(f'<text x="{x:.0f}" y="{bottom + 12}" text-anchor="middle">{second} s</text>')
    return parts, 26 + len(rows) * ROW + GAP


def _bars(spans: Iterator[dict[str, Any]], start: float, seconds: float, y: float) -> Iterator[str]:
    scale = WIDTH / (seconds * 1e6)
    for event in spans:
        left = max(0.0, (event["ts"] - start) * scale)
        right = min(float(WIDTH), (event["ts"] + event["dur"] - start) * scale)
        if right > 0 and left < WIDTH:
            title = f"<title>{event['name']}, step {event['args']['step']}, {event['dur'] / 1e6:.3f} s</title>"
            place = f'x="{LEFT + left:.1f}" y="{y}" width="{max(0.4, right - left):.1f}" height="{ROW - 5}"'
            yield f'<rect {place} rx="2" fill="{COLORS[event["name"]]}">{title}</rect>'


def _label(row: tuple[int, int]) -> str:
    kind, number = row
    if kind == DRIVER:
        return "driver"
    return {ACTORS: f"actor {number}", RANKS: f"rank {number}"}.get(kind, "verifiers")


if __name__ == "__main__":
    main()
