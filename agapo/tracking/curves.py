"""The picture of a run: the curves of `metrics.jsonl`, a few panels for each stage."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agapo.tracking.files import read_json_lines, write_bytes_atomic

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
    """Draw `metrics.jsonl` as a PNG of panels; metrics that a run does not have are left out.

    RL: reward, accuracy (training, held-out), the mix of groups, KL and entropy, response length and truncation, the
    norm of the gradient. SFT: loss, token accuracy and entropy, tokens by mode, shares of the domains. Preference:
    loss, pairs told apart, log-probs of chosen and rejected responses, and how far they have moved.
    """
    save_figure(draw_curves(read_curves(metrics_path)), png_path)


def draw_curves(curves: Mapping[str, Points]) -> "Figure":
    """Return the panels of `learning_curve` as a figure, in two columns."""
    # Imported here: it takes half a second, and only the end of a run draws.
    from matplotlib.figure import Figure

    panels = (_reward, _accuracy, _group_mix, _divergence, _length, _gradient)
    if "train/token_accuracy" in curves:
        panels = (_loss, _tokens, _mode_mix, _domain_mix)
    elif "pairs/accuracy" in curves:
        panels = (_loss, _told_apart, _pair_logprobs, _drift)
    rows = len(panels) // 2
    figure = Figure(figsize=(11, 3.75 * rows), layout="constrained")
    for axes, draw in zip(figure.subplots(rows, 2).flat, panels, strict=True):
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


def save_figure(figure: "Figure", png_path: Path) -> None:
    """Write a figure as a PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_bytes_atomic(png_path, picture.getvalue())


def _reward(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Reward a response")
    _noisy(axes, curves, "reward/mean", "training", BLUE)
    if "eval/reward" in curves:
        axes.plot(*curves["eval/reward"], "o-", color=GREEN, markersize=4, label="validation questions")


def _gradient(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Gradient norm and learning rate")
    axes.set_ylabel("norm before clipping", color=BLUE)
    _noisy(axes, curves, "policy/grad_norm", "gradient norm", BLUE)
    _learning_rate(axes, curves, "policy/learning_rate")


def _accuracy(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Accuracy")
    axes.set_ylim(-0.02, 1.02)
    _noisy(axes, curves, "reward/accuracy", "training", BLUE)
    held_out = {name: curve for name, curve in curves.items() if name.startswith("eval/") and name != "eval/reward"}
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
        twin = _twin(axes, "entropy a token, nats", BLUE)
        _noisy(twin, curves, "policy/entropy", "entropy", BLUE)


def _length(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Response length and truncation")
    axes.set_ylabel("tokens", color=BLUE)
    _noisy(axes, curves, "rollout/length", "length", BLUE)
    if "rollout/length" in curves:
        axes.set_ylim(0, 1.1 * max(1.0, *curves["rollout/length"][1]))
    if "rollout/truncated" in curves:
        twin = _twin(axes, "share cut at the limit", ORANGE)
        twin.set_ylim(-0.02, 1.02)
        _noisy(twin, curves, "rollout/truncated", "truncated", ORANGE)


def _loss(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Loss")
    axes.set_ylabel("the mean over the step", color=BLUE)
    _noisy(axes, curves, "train/loss", "loss", BLUE)
    _learning_rate(axes, curves, "train/learning_rate")


def _learning_rate(axes: Any, curves: Mapping[str, Points], name: str) -> None:
    _exact(_twin(axes, "learning rate", GREY), curves, name, "learning rate", GREY)


def _tokens(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Next-token accuracy and entropy")
    axes.set_ylim(-0.02, 1.02)
    _noisy(axes, curves, "train/token_accuracy", "accuracy", GREEN)
    twin = _twin(axes, "entropy a token, nats", BLUE)
    _noisy(twin, curves, "train/entropy", "entropy", BLUE)


def _mode_mix(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Trained tokens by mode")
    for mode, color in (("reasoning", BLUE), ("non_reasoning", ORANGE)):
        _exact(axes, curves, f"data/tokens/{mode}", mode, color)
    twin = _twin(axes, "reasoning : non-reasoning", GREY)
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
    twin = _twin(axes, "margin", BLUE)
    _noisy(twin, curves, "pairs/margin", "margin", BLUE)


def _pair_logprobs(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Log-probability, nats a token")
    _noisy(axes, curves, "pairs/chosen_logprob", "chosen", GREEN)
    _noisy(axes, curves, "pairs/rejected_logprob", "rejected", RED)


def _drift(axes: Any, curves: Mapping[str, Points]) -> None:
    axes.set_title("Moved since the start, nats a token")
    _noisy(axes, curves, "pairs/chosen_drift", "chosen", GREEN)
    _noisy(axes, curves, "pairs/rejected_drift", "rejected", RED)


def _twin(axes: Any, label: str, color: str) -> Any:
    """Return axes over these, with a scale of their own on the right."""
    twin = axes.twinx()
    twin.set_ylabel(label, color=color)
    return twin


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


def _cycle(*colors: str) -> Iterable[str]:
    while True:
        yield from colors
