"""What a run leaves to look at: the learning curve, the table before and after, and where things lie."""

import io
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from agapo.tracking.files import read_json_lines, write_bytes_atomic
from agapo.tracking.progress import format_duration, make_console, print_table
from agapo.tracking.run_directory import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = tuple[list[int], list[float]]
"""Steps and values of one metric, where it was finite."""

GREEN, GREY, RED, BLUE, ORANGE = "#2e9e5b", "#b8bcc4", "#d1495b", "#2f6fb3", "#e08e2b"

MIX = (
    ("all correct", "group/all_correct", GREEN),
    ("mixed", "group/mixed", GREY),
    ("all wrong", "group/all_wrong", RED),
)


def learning_curve(metrics_path: Path, png_path: Path) -> None:
    """Draw `metrics.jsonl` as a PNG of four panels; metrics that a run does not have are left out.

    RL: accuracy (training, held-out), the mix of groups, KL and entropy, response length and truncation. SFT: loss,
    token accuracy and entropy, tokens by mode, shares of the domains. Preference: loss, pairs told apart, log-probs of
    chosen and rejected responses, and how far they have moved.
    """
    _save(draw_curves(read_curves(metrics_path)), png_path)


def draw_curves(curves: Mapping[str, Points]) -> "Figure":
    """Return the four panels of `learning_curve` as a figure."""
    # Imported here: it takes half a second, and only the end of a run draws.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    panels = (_accuracy, _group_mix, _divergence, _length)
    if "train/token_accuracy" in curves:
        panels = (_loss, _tokens, _mode_mix, _domain_mix)
    elif "pairs/accuracy" in curves:
        panels = (_loss, _told_apart, _pair_logprobs, _drift)
    for axes, draw in zip(figure.subplots(2, 2).flat, panels, strict=True):
        draw(axes, curves)
        _finish(axes)
    return figure


def read_curves(metrics_path: Path) -> dict[str, Points]:
    """Return every metric of `metrics.jsonl` as steps and values; of a step written twice the last line counts."""
    curves: dict[str, dict[int, float]] = {}
    for line in read_json_lines(metrics_path):
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                curves.setdefault(name, {})[line.get("step", 0)] = value
    return {name: (sorted(curve), [curve[step] for step in sorted(curve)]) for name, curve in curves.items()}


def before_after_table(
    before: Mapping[str, float], after: Mapping[str, float], console: Console | None = None
) -> list[tuple[str, str, str, str]]:
    """Print held-out accuracy (0 to 1) by mode before and after, with the gain in points; return the rows."""
    rows = [_gain_row(mode, before.get(mode), after.get(mode)) for mode in {**before, **after}]
    print_table("Held-out accuracy", ("mode", "before", "after", "gain"), rows, console or make_console())
    return rows


def thinking_table(
    before: Mapping[str, float], after: Mapping[str, float], console: Console | None = None
) -> list[tuple[str, str, str]]:
    """Print the share of responses that think by mode, before and after; return the rows."""
    rows = [(mode, f"{100 * before[mode]:.1f}%", f"{100 * after[mode]:.1f}%") for mode in after if mode in before]
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
    _save(figure, png_path)


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
    _save(figure, png_path)


def _save(figure: "Figure", png_path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_bytes_atomic(png_path, picture.getvalue())


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


def _gain_row(mode: str, before: float | None, after: float | None) -> tuple[str, str, str, str]:
    gain = "–" if before is None or after is None else f"{100 * (after - before):+.1f} points"
    return mode, _percent(before), _percent(after), gain


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _accuracy(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Accuracy")
    _noisy(axes, curves, "reward/accuracy", "training", BLUE)
    if "reward/accuracy" not in curves:
        _noisy(axes, curves, "reward/mean", "training reward", BLUE)
    else:
        axes.set_ylim(-0.02, 1.02)
    held_out = {name: points for name, points in curves.items() if name.startswith("eval/") and _is_share(points)}
    for (name, (steps, values)), color in zip(held_out.items(), _cycle(GREEN, ORANGE, RED, GREY), strict=False):
        axes.plot(steps, values, "o-", color=color, markersize=4, label=f"held-out {name.removeprefix('eval/')}")


def _group_mix(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Groups sampled")
    present = [(label, curves[name], color) for label, name, color in MIX if name in curves]
    if not present:
        return
    steps = sorted(set.intersection(*(set(points[0]) for _, points, _ in present)))
    values = [[dict(zip(*points, strict=True))[step] for step in steps] for _, points, _ in present]
    axes.stackplot(steps, values, labels=[item[0] for item in present], colors=[item[2] for item in present])
    axes.set_ylim(0, 1)


def _divergence(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("KL to the reference and entropy")
    axes.set_ylabel("KL a response, nats", color=RED)
    _noisy(axes, curves, "kl/sequence", "KL", RED)
    if "policy/entropy" in curves:
        twin = axes.twinx()
        twin.set_ylabel("entropy a token, nats", color=BLUE)
        _noisy(twin, curves, "policy/entropy", "entropy", BLUE)


def _length(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Response length and truncation")
    axes.set_ylabel("tokens", color=BLUE)
    _noisy(axes, curves, "rollout/length", "length", BLUE)
    if "rollout/length" in curves:
        axes.set_ylim(0, 1.1 * max(1.0, *curves["rollout/length"][1]))
    if "rollout/truncated" in curves:
        twin = axes.twinx()
        twin.set_ylabel("share cut at the limit", color=ORANGE)
        twin.set_ylim(-0.02, 1.02)
        _noisy(twin, curves, "rollout/truncated", "truncated", ORANGE)


def _loss(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Loss")
    axes.set_ylabel("the mean over the step", color=BLUE)
    _noisy(axes, curves, "train/loss", "loss", BLUE)
    twin = axes.twinx()
    twin.set_ylabel("learning rate", color=GREY)
    _exact(twin, curves, "train/learning_rate", "learning rate", GREY)


def _tokens(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Next-token accuracy and entropy")
    axes.set_ylim(-0.02, 1.02)
    _noisy(axes, curves, "train/token_accuracy", "accuracy", GREEN)
    twin = axes.twinx()
    twin.set_ylabel("entropy a token, nats", color=BLUE)
    _noisy(twin, curves, "train/entropy", "entropy", BLUE)


def _mode_mix(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Trained tokens by mode")
    for mode, color in (("reasoning", BLUE), ("non_reasoning", ORANGE)):
        _exact(axes, curves, f"data/tokens/{mode}", mode, color)
    twin = axes.twinx()
    twin.set_ylabel("reasoning : non-reasoning", color=GREY)
    _exact(twin, curves, "data/token_ratio", "ratio", GREY)


def _domain_mix(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Shares of the trained tokens so far")
    axes.set_ylim(bottom=0)
    shares = [name for name in curves if name.startswith("data/domain/")]
    for name, color in zip(shares, _cycle(BLUE, GREEN, ORANGE, RED, GREY, "#7b5ea7", "#4aa3a2"), strict=False):
        _exact(axes, curves, name, name.removeprefix("data/domain/"), color)


def _told_apart(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Pairs told apart")
    axes.set_ylim(-0.02, 1.02)
    _noisy(axes, curves, "pairs/accuracy", "chosen is the likelier", GREEN)
    twin = axes.twinx()
    twin.set_ylabel("margin", color=BLUE)
    _noisy(twin, curves, "pairs/margin", "margin", BLUE)


def _pair_logprobs(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Log-probability, nats a token")
    _noisy(axes, curves, "pairs/chosen_logprob", "chosen", GREEN)
    _noisy(axes, curves, "pairs/rejected_logprob", "rejected", RED)


def _drift(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Moved since the start, nats a token")
    _noisy(axes, curves, "pairs/chosen_drift", "chosen", GREEN)
    _noisy(axes, curves, "pairs/rejected_drift", "rejected", RED)


def _exact(axes: Any, curves: Mapping[str, Points], name: str, label: str, color: str) -> None:
    """Draw what has no noise as it is."""
    if name in curves:
        axes.plot(*curves[name], color=color, label=label)


def _noisy(axes: Any, curves: Mapping[str, Points], name: str, label: str, color: str) -> None:
    """Draw each step faintly and a moving average over it; few points are drawn as they are."""
    if name not in curves:
        return
    steps, values = curves[name]
    window = max(1, len(values) // 20)
    if window > 1:
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    style = "o-" if len(values) < 10 else "-"
    axes.plot(steps, moving_average(values, window), style, color=color, markersize=4, label=label)


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value and up to `window - 1` before it."""
    spans = (values[max(0, end - window) : end] for end in range(1, len(values) + 1))
    return [sum(span) / len(span) for span in spans]


def _finish(axes: Any) -> None:
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    axes.spines[["top"]].set_visible(False)
    # A panel with two scales is two axes, which share the x axis and should share a legend.
    shared = axes.get_shared_x_axes()
    layers = [layer for layer in axes.figure.axes if layer is axes or shared.joined(axes, layer)]
    handles = [handle for layer in layers for handle in layer.get_legend_handles_labels()[0]]
    if handles:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": min(4, len(handles)), "frameon": False}
        axes.legend(handles=handles, fontsize=9, **below)
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color=GREY)


def _is_share(points: Points) -> bool:
    return all(0 <= value <= 1 for value in points[1])


def _cycle(*colors: str) -> Iterable[str]:
    while True:
        yield from colors
