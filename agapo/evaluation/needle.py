"""The needle test: prompts of many lengths asked greedily, and counted by cell of length × position.

    source ──fit to tokens──► prompts ──► rollout actors ──► verdicts ──► needle.json, needle.png

Responses are greedy and one a prompt, so the same model gives the same grid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from agapo.errors import UserError
from agapo.evaluation.needle_prompts import NeedlePrompt
from agapo.recipe.needle import NeedleConfig
from agapo.rewarding.scorer import Scorer
from agapo.rewarding.start import start_scorer
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.pool import RolloutPool
from agapo.rollouts.sampling import sample_and_score
from agapo.schema import Group, Mode
from agapo.tracking import read_json, write_json_atomic
from agapo.tracking.heatmap import Grid, needle_heatmap, print_grid

SHOWN = 6
"""Red cells that the error names."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class NeedleCell:
    """What came of the prompts of one mode, length and position."""

    mode: Mode
    length: int
    position: float
    found: int
    asked: int
    tokens: tuple[int, int]
    """The shortest and the longest prompt."""
    wrong: Mapping[str, str] | None = None
    """A response that did not find its needle, with the `answer` that it should have given."""

    @property
    def share(self) -> float:
        """Needles found, 0 to 1."""
        return self.found / self.asked

    def __str__(self) -> str:
        mode = " in reasoning mode" if self.mode == "reasoning" else ""
        return f"length {self.length} at {self.position:.0%}{mode}: {self.share:.2f}".replace("%", " %")


@dataclass(frozen=True)
class NeedleResult:
    """A needle test's grid."""

    cells: tuple[NeedleCell, ...]
    green: float
    stop: bool
    folder: Path
    """Where `needle.json` and `needle.png` lie."""
    tokens: int = 0
    """Tokens generated."""

    @property
    def red_cells(self) -> list[NeedleCell]:
        """The cells below `green`, worst first."""
        return sorted((cell for cell in self.cells if cell.share < self.green), key=lambda cell: cell.share)

    @property
    def summary(self) -> dict[str, Any]:
        """What a run's `summary.json` says of it, under `needle`."""
        by_mode = {cell.mode: _share([c for c in self.cells if c.mode == cell.mode]) for cell in self.cells}
        return {
            "green": not self.red_cells,
            "stop": self.stop,
            "threshold": self.green,
            "cells": len(self.cells),
            "red": [str(cell) for cell in self.red_cells],
            "lowest": min(cell.share for cell in self.cells),
            "found": by_mode,
        }


def needle_test(
    needle: NeedleConfig,
    pool: RolloutPool,
    prompts: Sequence[NeedlePrompt],
    folder: Path,
    *,
    seed: int = 0,
    stop: Sequence[str] = (),
    say: Say = lambda line: None,
) -> NeedleResult:
    """Ask the model that `pool` holds for each needle, and write `needle.json` and `needle.png` to `folder`.

    `prompts`: of `needle_prompts`. `stop`: texts that end a response, as in `rollout.stop`. Starts and ends verifier
    workers of its own. Red cells are the caller's part (`require_green`).
    """
    params = SamplingParams(
        group_size=1, max_new_tokens=needle.max_new_tokens, temperature=0.0, seed=seed, stop=tuple(stop)
    )
    scorer = start_scorer(needle.reward)
    try:
        groups = [
            judged for length in needle.lengths for judged in _ask(needle, length, prompts, pool, params, scorer, say)
        ]
    finally:
        scorer.close()
    result = _result(needle, groups, folder)
    _write(needle, result)
    return result


def require_green(result: NeedleResult | None) -> None:
    """Raise UserError where the recipe wants a green grid and it is not; None (no needle test) is fine."""
    if result is not None:
        refuse_red(result.summary, result.folder)


def refuse_red(needle: Mapping[str, Any], folder: Path) -> None:
    """Like `require_green`, from what `summary.json` in `folder` has under `needle`."""
    if needle["stop"] and not needle["green"]:
        raise UserError(
            f"needle: {describe_red(needle)}; see {folder / 'needle.json'}; train longer on contexts of these lengths, "
            "or accept it with needle.stop=false"
        )


def require_green_start(summary: Mapping[str, Any], recipe_path: Path) -> None:
    """Raise UserError when a run that others start from has a needle test that should have been green and is not.

    `summary`: that run's `summary.json`; `recipe_path`: its recipe, as `model.start` names it.
    """
    needle = summary.get("needle") or {}
    if needle.get("stop") and not needle.get("green"):
        raise UserError(
            f"model.start: the needle test of {recipe_path} is not green ({describe_red(needle)}); train that run "
            "longer, or accept it with needle.stop=false in its recipe"
        )


def describe_red(needle: Mapping[str, Any]) -> str:
    """Return `3 of 30 cells below 0.9: length 4096 at 50 %: 0.62, …` from a `summary`."""
    red = list(needle["red"])
    more = f", and {len(red) - SHOWN} more" if len(red) > SHOWN else ""
    shown = ", ".join(red[:SHOWN]) + more
    return f"{len(red)} of {needle['cells']} cells below {needle['threshold']:g}: {shown}"


def _ask(
    needle: NeedleConfig,
    length: int,
    prompts: Sequence[NeedlePrompt],
    pool: RolloutPool,
    params: SamplingParams,
    scorer: Scorer,
    say: Say,
) -> list[tuple[NeedlePrompt, Group]]:
    """Return the judged groups of one length: prompts of other lengths beside it would be padded to it."""
    own = [item for item in prompts if item.length == length]
    requests = [PromptRequest(item.prompt, item.token_ids) for item in own]
    chunk_prompts = max(1, needle.chunk_tokens // max(len(item.token_ids) for item in own))
    chunks = sample_and_score(pool, scorer, requests, params, chunk_prompts=chunk_prompts)
    judged = [group for chunk in chunks for group in chunk]
    found = sum(_is_found(group) for group in judged)
    say(f"needle: {found} of {len(judged)} found in {length} tokens")
    return list(zip(own, judged, strict=True))


def _is_found(group: Group) -> bool:
    return group.responses[0].correct is True


def _result(needle: NeedleConfig, groups: Sequence[tuple[NeedlePrompt, Group]], folder: Path) -> NeedleResult:
    cells: dict[tuple[Mode, int, float], list[tuple[NeedlePrompt, Group]]] = {}
    for item, group in groups:
        cells.setdefault((item.prompt.mode, item.length, item.position), []).append((item, group))
    ordered = sorted(cells, key=lambda key: (needle.modes.index(key[0]), *key[1:]))
    tokens = sum(len(group.responses[0].token_ids) for _, group in groups)
    return NeedleResult(
        tuple(_cell(*key, cells[key]) for key in ordered), needle.green, needle.stop, folder, tokens=tokens
    )


def _cell(mode: Mode, length: int, position: float, asked: Sequence[tuple[NeedlePrompt, Group]]) -> NeedleCell:
    sizes = [len(item.token_ids) for item, _ in asked]
    wrong = [
        {"answer": str(group.prompt.columns.get("answer")), "response": group.responses[0].text}
        for _, group in asked
        if not _is_found(group)
    ]
    return NeedleCell(
        mode=mode,
        length=length,
        position=position,
        found=len(asked) - len(wrong),
        asked=len(asked),
        tokens=(min(sizes), max(sizes)),
        wrong=wrong[0] if wrong else None,
    )


def _share(cells: Sequence[NeedleCell]) -> float:
    return sum(cell.found for cell in cells) / sum(cell.asked for cell in cells)


def _write(needle: NeedleConfig, result: NeedleResult) -> None:
    cells = [{**vars(cell), "share": cell.share, "green": cell.share >= result.green} for cell in result.cells]
    about = {"source": needle.source, "modes": needle.modes, "lengths": needle.lengths, "positions": needle.positions}
    write_json_atomic(
        result.folder / "needle.json", {**result.summary, **about, "per_cell": needle.per_cell, "grid": cells}
    )
    needle_heatmap(grids(result), result.green, result.folder / "needle.png")


def grids(result: NeedleResult) -> dict[str, Grid]:
    """Return each mode's shares by (length, position)."""
    return _by_mode([vars(cell) | {"share": cell.share} for cell in result.cells])


def print_needle(folder: Path, console: Console | None = None) -> None:
    """Print the grids of `needle.json` in a run's folder."""
    stored = read_json(folder / "needle.json") or {"grid": []}
    for mode, grid in _by_mode(stored["grid"]).items():
        title = f"Needles found in {mode.replace('_', '-')} mode (green from {stored['threshold']:.0%})"
        print_grid(title, grid, stored["threshold"], console)


def _by_mode(cells: Sequence[Mapping[str, Any]]) -> dict[str, Grid]:
    found: dict[str, dict[tuple[int, float], float]] = {}
    for cell in cells:
        found.setdefault(cell["mode"], {})[cell["length"], cell["position"]] = cell["share"]
    return dict(found)
