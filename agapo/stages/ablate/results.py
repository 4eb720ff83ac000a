"""What an ablation came to: a table with intervals over seeds, learning curves, and all of it as JSON.

The accuracy is that on the test questions after training, mean over the modes. A seed is the unit: the interval of a
variant is Student's over its seeds, and that of its difference to the first variant is of the differences seed by seed,
as runs of one seed begin with the same weights and see the same questions.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from agapo.evaluation.statistics import student_t
from agapo.tracking import make_console, read_json, say, write_json_atomic
from agapo.tracking.curves import save_figure
from agapo.tracking.files import read_json_lines, write_text_atomic
from agapo.tracking.progress import print_table

if TYPE_CHECKING:
    from agapo.stages.ablate.run import Run

COLUMNS = ("start", "updates", "variant", "seeds", "before", "after", "against the first", "all wrong", "tokens a step")
WINDOW = 5
"""Steps over which a curve is a mean."""


def report(runs: Sequence["Run"], folder: Path, reference: str) -> None:
    """Print the table, and write `ablation.json`, `ablation.md` and `curves.png`."""
    found = [one for run in runs if (one := read_run(run))]
    rows = table(found, reference)
    write_json_atomic(folder / "ablation.json", {"reference": reference, "rows": rows, "runs": found})
    cells = [_cells(row) for row in rows]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *cells]
    write_text_atomic(folder / "ablation.md", "".join(f"| {' | '.join(line)} |\n" for line in lines))
    print_table("Held-out accuracy, mean and 95 % interval over seeds", COLUMNS, cells, make_console(), left=(2,))
    if found:
        save_figure(_curves(found), folder / "curves.png")
    for name in ("ablation.json", "ablation.md", "curves.png"):
        say(str(folder / name))


def read_run(run: "Run") -> dict[str, Any] | None:
    """Return what a run came to, None where it is not finished."""
    summary = read_json(run.folder / "summary.json") or {}
    if not summary.get("finished"):
        return None
    steps = [line for line in read_json_lines(run.folder / "metrics.jsonl") if "rollout/tokens" in line]
    return {
        "run": run.folder.name,
        "start": run.start,
        "updates": run.updates,
        "variant": run.variant,
        "seed": run.seed,
        "before": fmean(summary["before"].values()),
        "after": fmean(summary["after"].values()),
        "steps": len(steps),
        "tokens": [line["rollout/tokens"] for line in steps],
        "accuracy": [line["reward/accuracy"] for line in steps],
        "all_wrong": fmean(line["group/all_wrong"] for line in steps),
        "wall_s": summary["wall_s"],
    }


def table(found: Sequence[Mapping[str, Any]], reference: str) -> list[dict[str, Any]]:
    """Return a row for each start, number of updates and variant: means over seeds, and half the intervals' widths."""
    parts: dict[tuple[str, int, str], dict[int, Mapping[str, Any]]] = {}
    for one in found:
        parts.setdefault((one["start"], one["updates"], one["variant"]), {})[one["seed"]] = one
    rows = []
    for (start, updates, variant), seeds in parts.items():
        first = parts.get((start, updates, reference), {})
        gains = [one["after"] - first[seed]["after"] for seed, one in seeds.items() if seed in first]
        row = {"start": start, "updates": updates, "variant": variant, "seeds": len(seeds)}
        row["before"], row["before_half"] = mean_and_half([one["before"] for one in seeds.values()])
        row["after"], row["after_half"] = mean_and_half([one["after"] for one in seeds.values()])
        row["gain"], row["gain_half"] = mean_and_half(gains) if variant != reference else (None, None)
        row["all_wrong"] = fmean(one["all_wrong"] for one in seeds.values())
        row["tokens_a_step"] = fmean(fmean(one["tokens"]) for one in seeds.values())
        rows.append(row)
    return rows


def mean_and_half(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the mean of seeds, and half of its 95 % interval's width (Student's t); None where there are too few."""
    if not values:
        return None, None
    if len(values) < 2:
        return values[0], None
    return fmean(values), student_t(len(values) - 1) * stdev(values) / math.sqrt(len(values))


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["start"],
        str(row["updates"]),
        row["variant"],
        str(row["seeds"]),
        *(_points(row[name], row[f"{name}_half"]) for name in ("before", "after")),
        "" if row["gain"] is None else _points(row["gain"], row["gain_half"], sign="+"),
        f"{100 * row['all_wrong']:.0f}%",
        f"{row['tokens_a_step']:,.0f}",
    ]


def _points(value: float | None, half: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    return f"{100 * value:{sign}.1f}" + ("" if half is None else f" ±{100 * half:.1f}")


def _curves(found: Sequence[Mapping[str, Any]]) -> Any:
    """Return a figure: accuracy of what is sampled against sampled tokens, a panel a start and number of updates."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((one["start"], one["updates"]) for one in found))
    variants = list(dict.fromkeys(one["variant"] for one in found))
    figure = Figure(figsize=(6.5 * len(panels), 4.5), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        for number, variant in enumerate(variants):
            runs = [one for one in found if (one["start"], one["updates"], one["variant"]) == (*panel, variant)]
            steps = min((len(one["accuracy"]) for one in runs), default=0)
            if not steps:
                continue
            tokens = [fmean(sum(one["tokens"][: step + 1]) for one in runs) for step in range(steps)]
            means = [
                fmean(fmean(one["accuracy"][max(0, step - WINDOW + 1) : step + 1]) for one in runs)
                for step in range(steps)
            ]
            axes.plot(tokens, means, label=variant, color=f"C{number % 10}", linestyle="-" if number < 10 else "--")
        axes.set_title(f"{panel[0]}, {panel[1]} update{'s' if panel[1] > 1 else ''} a batch")
        axes.set_xlabel("tokens sampled")
        axes.set_ylabel(f"accuracy of samples, mean of {WINDOW} steps and the seeds")
        axes.set_ylim(0, 1)
        axes.legend(fontsize=8)
    return figure
