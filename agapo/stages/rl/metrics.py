"""A step's figures, by W&B group: reward/ group/ advantage/ kl/ policy/ mismatch/ memory/ rollout/ staleness/ time/."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from agapo.evaluation.figures import term_means
from agapo.recipe import RLRecipe
from agapo.schema import Batch, Group, Prompt, Response


class Clock:
    """Seconds of a step by phase."""

    def __init__(self, note: Callable[[str, float, float], None] = lambda *_: None) -> None:
        """`note` is told of each interval: phase, start and end (`time.monotonic`)."""
        self._note = note
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the phase."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._spent(name, started, time.monotonic())

    def laps(self) -> Callable[[str], None]:
        """Return a function that adds the time since its last call (or now) to the phase of a name."""
        last = time.monotonic()

        def lap(name: str) -> None:
            nonlocal last
            now = time.monotonic()
            self._spent(name, last, now)
            last = now

        return lap

    def _spent(self, name: str, start: float, end: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + end - start
        self._note(name, start, end)

    def metrics(self, tokens: float) -> dict[str, float]:
        """Return `time/<phase>`, `time/step`, and the sampling speed."""
        metrics = {f"time/{name}": value for name, value in self.seconds.items()}
        metrics["time/step"] = time.monotonic() - self.started
        metrics["rollout/tokens_per_s"] = tokens / max(1e-9, self.seconds.get("generate", 0.0))
        return metrics


@dataclass
class Collected:
    """What a step sampled."""

    version: int = 0
    """Of the weights that learn from it."""
    groups: list[Group] = field(default_factory=list)
    """All groups, in prompt order."""
    visits: list[int] = field(default_factory=list)
    """Each group's visit."""
    kept: list[Group] = field(default_factory=list)
    dropped: list[Group] = field(default_factory=list)
    surplus: int = 0
    """Prompts that were begun, and are left to the next step."""

    @property
    def prompts(self) -> int:
        """Prompts taken from the stream."""
        return len(self.groups)

    def add(
        self, taken: Sequence[tuple[Prompt, int]], groups: Sequence[Group], kept: list[Group], dropped: list[Group]
    ) -> None:
        """Add a round of sampling."""
        self.groups += groups
        self.visits += [visit for _, visit in taken]
        self.kept += kept
        self.dropped += dropped


def rollout_metrics(collected: Collected, recipe: RLRecipe) -> dict[str, float]:
    """Return the figures of the sampled responses."""
    responses = [response for group in collected.groups for response in group.responses]
    groups = max(1, len(collected.groups))
    all_correct = sum(group.all_correct for group in collected.groups) / groups
    all_wrong = sum(group.all_wrong for group in collected.groups) / groups
    lengths = [len(response.token_ids) for response in responses]
    return {
        "reward/mean": _mean([r.reward for r in responses if r.reward is not None]),
        "reward/accuracy": _mean([float(r.correct) for r in responses if r.correct is not None]),
        "reward/errors": _mean([float(r.reward_error is not None) for r in responses]),
        **_errors_by_kind(responses),
        **_accuracy_by_domain(collected.groups),
        **{f"reward/{name}": value for name, value in term_means(collected.groups).items()},
        "group/all_correct": all_correct,
        "group/all_wrong": all_wrong,
        "group/mixed": 1 - all_correct - all_wrong,
        "group/kept": float(len(collected.kept)),
        "group/dropped": float(len(collected.dropped)),
        "group/refilled": float(len(collected.groups) - recipe.prompts_per_step),
        "group/short": float(recipe.prompts_per_step - len(collected.kept)),
        **({"group/surplus": float(collected.surplus)} if recipe.rollout.oversample else {}),
        "rollout/length": _mean(lengths),
        "rollout/truncated": _mean([float(r.finish == "length") for r in responses]),
        "rollout/tokens": float(sum(lengths)),
    }


def advantage_metrics(batch: Batch) -> dict[str, float]:
    """Return the largest |advantage|: normalised over the batch, a lone group with a difference gets a huge one."""
    return {"advantage/max": max((abs(value) for row in batch.advantages for value in row), default=0.0)}


def staleness_metrics(batch: Batch, version: int, updates_a_step: int) -> dict[str, float]:
    """Return by how many steps the weights that sampled the batch's tokens were behind those that learn: mean and max.

    `version`: of the latter, before the step's updates.
    """
    responses = [response for group in batch.groups for response in group.responses]
    behind = [(version - response.versions[response.trained]) / updates_a_step for response in responses]
    tokens = max(1, sum(map(len, behind)))
    return {
        "staleness/mean": float(sum(float(values.sum()) for values in behind)) / tokens,
        "staleness/max": float(max((values.max() for values in behind if len(values)), default=0.0)),
    }


def learn_metrics(sums: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the figures of the step's updates; empty when there was nothing to learn from."""
    if not sums:
        return {}
    tokens = max(1.0, sum(item["tokens"] for item in sums))
    responses = max(1.0, sum(item["responses"] for item in sums))
    metrics = {
        "policy/loss": sum(item["loss"] for item in sums) / len(sums),
        "policy/entropy": sum(item["entropy"] for item in sums) / tokens,
        "policy/grad_norm": max(item["grad_norm"] for item in sums),
        "policy/ratio_max": max(item["ratio_max"] for item in sums),
        "policy/ratio_capped": sum(item["ratio_outside"] for item in sums) / tokens,
    }
    if "gpu_gib_max" in sums[0]:
        metrics["memory/rank_gib"] = max(item["gpu_gib_max"] for item in sums)
    if "kl" in sums[0]:
        metrics["kl/sequence"] = sum(item["kl"] for item in sums) / responses
        metrics["kl/token"] = sum(item["kl"] for item in sums) / tokens
        metrics["kl/k3"] = sum(item["kl_k3"] for item in sums) / tokens
    return metrics


def _errors_by_kind(responses: Sequence[Response]) -> dict[str, float]:
    """Share of responses whose scoring met a timeout, a crash, …, of those kinds that came up."""
    kinds = Counter(r.reward_error.partition(":")[0] for r in responses if r.reward_error)
    return {f"reward/errors_{kind}": count / len(responses) for kind, count in sorted(kinds.items())}


def _accuracy_by_domain(groups: Sequence[Group]) -> dict[str, float]:
    """Share of correct responses by domain, where there are several."""
    found: dict[str, list[float]] = {}
    for group in groups:
        found.setdefault(group.prompt.domain, []).extend(map(float, group.verdicts))
    return {f"reward/accuracy_{domain}": _mean(values) for domain, values in found.items()} if len(found) > 1 else {}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
