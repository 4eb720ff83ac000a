"""From the times of paired runs to what is printed and written as JSON (pure, but for the look at the machine)."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.work import Run, Step

PACKAGES = ("torch", "transformers", "trl", "deepspeed", "ray")
PHASES = {
    "generate": "generate",
    "score": "score",
    "prepare": "pad, advantages, reference log-probs",
    "sync": "weights to the actors",
    "forward": "learn: forward",
    "backward": "learn: backward, clipping",
    "optimizer": "learn: optimizer",
    "learn": "learn (all of it)",
    "other": "other (logging, the loop)",
}
"""Every phase of either side, in the order of a step."""


@dataclass(frozen=True)
class Side:
    """One side's run, reduced to the steps that count."""

    steps: list[Step]
    startup_s: float

    @property
    def step_s(self) -> float:
        """Median seconds a step."""
        return median(step.seconds for step in self.steps)

    @property
    def tokens(self) -> float:
        """Mean sampled tokens a step."""
        return fmean(step.tokens for step in self.steps)

    @property
    def token_us(self) -> float:
        """Median microseconds a sampled token: a step's seconds over its own tokens."""
        return median(1e6 * step.seconds / step.tokens for step in self.steps)

    @property
    def cpu_s(self) -> float:
        """Median CPU seconds a step."""
        return median(step.cpu_s for step in self.steps)

    @property
    def longest(self) -> float:
        """Mean of each step's longest response: TRL decodes and pads all rows up to it."""
        return fmean(max(step.lengths) for step in self.steps)

    @property
    def learned(self) -> float:
        """Mean responses a step that went through the learner."""
        return fmean(step.learned for step in self.steps)

    def phases(self) -> dict[str, float]:
        """Return the median seconds of each phase."""
        return {name: median(step.phases[name] for step in self.steps) for name in self.steps[0].phases}


@dataclass(frozen=True)
class Pair:
    """TRL's run and agapo's, one after the other."""

    trl: Side
    agapo: Side

    @property
    def ratio(self) -> float:
        """TRL's median step over agapo's."""
        return self.trl.step_s / self.agapo.step_s

    @property
    def token_ratio(self) -> float:
        """The same a sampled token, since sampled lengths differ a little."""
        return self.trl.token_us / self.agapo.token_us

    @property
    def cpu_ratio(self) -> float:
        """The same in CPU seconds."""
        return self.trl.cpu_s / self.agapo.cpu_s


def make_pair(trl: Run, agapo: Run, spawned: Mapping[str, float], warmup: int) -> Pair:
    """Return the pair without its warm-up steps. Raises ValueError when the sides had different prompts."""
    check_same_prompts(trl, agapo)
    sides = {"trl": trl, "agapo": agapo}
    return Pair(**{name: Side(run.steps[warmup:], run.ready_at - spawned[name]) for name, run in sides.items()})


def check_same_prompts(trl: Run, agapo: Run) -> None:
    """Raise ValueError when some step's prompts have other token ids on one side than on the other."""
    for number, (one, other) in enumerate(zip(trl.steps, agapo.steps, strict=True), start=1):
        if one.prompt_ids != other.prompt_ids or len(one.lengths) != len(other.lengths):
            raise ValueError(f"step {number}: TRL and agapo had different prompts or numbers of responses")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return 'median (min–max)'."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns; the first is text, so it is flush left like the others here."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    ruled = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in ruled
    )


def settings_table(shared: Mapping[str, str], trl: Run, agapo: Run) -> str:
    """Return both sides' settings, next to each other."""
    rows = [(name, value, "the same") for name, value in shared.items()]
    rows += [(name, value, agapo.settings[name]) for name, value in trl.settings.items()]
    return table(("setting", "TRL GRPOTrainer", "agapo"), rows)


def pairs_table(pairs: Sequence[Pair]) -> str:
    """Return one line a pair."""
    rows = [
        (
            str(number),
            f"{pair.trl.step_s:.3f}",
            f"{pair.agapo.step_s:.3f}",
            f"{pair.ratio:.2f}",
            f"{pair.trl.tokens:.0f}",
            f"{pair.agapo.tokens:.0f}",
            f"{pair.token_ratio:.2f}",
        )
        for number, pair in enumerate(pairs, start=1)
    ]
    header = ("pair", "TRL s/step", "agapo s/step", "ratio", "TRL tokens", "agapo tokens", "ratio a token")
    return table(header, rows)


def phase_table(pairs: Sequence[Pair]) -> str:
    """Return the median over pairs of each phase's median seconds, and its share of the median step."""
    known = {name: ([pair.trl.phases() for pair in pairs], [pair.agapo.phases() for pair in pairs]) for name in PHASES}
    totals = [median(pair.trl.step_s for pair in pairs), median(pair.agapo.step_s for pair in pairs)]
    rows = []
    for name, sides in known.items():
        cells = [_phase_cell(side, name, total) for side, total in zip(sides, totals, strict=True)]
        if any(cells):
            rows.append((PHASES[name], *cells))
    whole = [f"{total:.3f} s" for total in totals]
    return table(("phase", "TRL", "agapo"), [*rows, ("step", *whole)])


def _phase_cell(side: Sequence[Mapping[str, float]], name: str, total: float) -> str:
    if name not in side[0]:
        return ""
    seconds = median(phases[name] for phases in side)
    return f"{seconds:.3f} s {100 * seconds / total:3.0f} %"


def totals_table(pairs: Sequence[Pair]) -> str:
    """Return each side's figures over all pairs: median (min–max)."""
    sides = [[pair.trl for pair in pairs], [pair.agapo for pair in pairs]]
    rows = {
        "step, s": [spread([side.step_s for side in one], 3) for one in sides],
        "CPU s a step, all processes": [spread([side.cpu_s for side in one], 3) for one in sides],
        "tokens a step": [spread([side.tokens for side in one], 0) for one in sides],
        "longest response of a step": [spread([side.longest for side in one], 0) for one in sides],
        "tokens/s, whole step": [spread([1e6 / side.token_us for side in one], 0) for one in sides],
        "tokens/s while generating": [spread([_sampling_speed(side) for side in one], 0) for one in sides],
        "responses learned a step": [spread([side.learned for side in one], 0) for one in sides],
        "start-up, s (not counted)": [spread([side.startup_s for side in one], 1) for one in sides],
    }
    return table(("median (min–max) over the pairs", "TRL", "agapo"), [(name, *cells) for name, cells in rows.items()])


def _sampling_speed(side: Side) -> float:
    return median(step.tokens / step.phases["generate"] for step in side.steps)


def headline(pairs: Sequence[Pair]) -> str:
    """Return the result in three lines."""
    return (
        f"TRL's step over agapo's: {spread([pair.ratio for pair in pairs])}, median (min–max) of {len(pairs)} pairs\n"
        f"the same a sampled token: {spread([pair.token_ratio for pair in pairs])}\n"
        f"the same in CPU seconds: {spread([pair.cpu_ratio for pair in pairs])}"
    )


def as_json(shared: Mapping[str, str], trl: Run, agapo: Run, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return everything that was measured."""
    return {
        "ratio": _summary([pair.ratio for pair in pairs]),
        "ratio_per_token": _summary([pair.token_ratio for pair in pairs]),
        "ratio_in_cpu_seconds": _summary([pair.cpu_ratio for pair in pairs]),
        "settings": {"shared": dict(shared), "trl": trl.settings, "agapo": agapo.settings},
        "pairs": [
            {"ratio": pair.ratio, "trl": _side_json(pair.trl), "agapo": _side_json(pair.agapo)} for pair in pairs
        ],
    }


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def _side_json(side: Side) -> dict[str, Any]:
    steps = [_step_json(step) for step in side.steps]
    return {"step_s": side.step_s, "startup_s": side.startup_s, "steps": steps}


def _step_json(step: Step) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(step).items() if name not in ("lengths", "prompt_ids")}
    return kept | {"tokens": step.tokens, "longest": max(step.lengths)}


def machine() -> str:
    """Return what the comparison ran on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, load average before the start {load}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in _lines(path) if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def versions() -> str:
    """Return the versions of the packages that decide the speed."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
