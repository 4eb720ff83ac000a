"""What an ablation runs, and what it makes of the runs."""

import json
from pathlib import Path

import pytest

from agapo.errors import UserError
from agapo.recipe import RLRecipe, load_recipe
from agapo.recipe.read import load_ablation
from agapo.stages.ablate.results import mean_and_half, read_run, table
from agapo.stages.ablate.run import Run, runs_of

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "recipes/ablation").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_run_of_a_shipped_ablation_is_a_recipe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    own = load_ablation(path)
    runs = list(runs_of(own, Path("out")))
    assert (
        len(runs)
        == len({run.folder for run in runs})
        == own.seeds * len(own.starts) * len(own.updates) * len(own.variants)
    )
    assert {run.seed for run in runs[: len(runs) // own.seeds]} == {0}, "a part of the runs compares all variants"
    for run in runs[: len(runs) // own.seeds]:
        recipe = load_recipe(RLRecipe, own.base, list(run.overrides))
        assert recipe.max_sampled_tokens, "they are to sample equally much"
        assert (recipe.run_directory.name, recipe.evaluation.keep) == (run.folder.name, "last")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: recipes/rl/tiny.yaml\nvariants: {a: []}", "variants"),
        ("base: recipes/rl/tiny.yaml\nvariants: {a: [], b c: []}", "variants"),
        ("base: recipes/rl/tiny.yaml\nvariants: {a: [], b: []}\nupdates: [1, 1]", "each number of updates once"),
        ("base: recipes/rl/tiny.yaml\nvariant: {a: [], b: []}", "did you mean 'variants'"),
    ],
)
def test_what_cannot_be_compared_is_a_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_ablation(tmp_path / "a.yaml")


def run_that_came_to(folder: Path, variant: str, seed: int, after: float) -> Run:
    run = Run("easy", 1, variant, seed, (), folder / "rl" / f"easy-1-{variant}-{seed}")
    run.folder.mkdir(parents=True)
    summary = {
        "finished": True,
        "before": {"reasoning": 0.2, "plain": 0.3},
        "after": {"reasoning": after},
        "wall_s": 1.0,
    }
    (run.folder / "summary.json").write_text(json.dumps(summary))
    steps = [
        {"step": step, "rollout/tokens": 100.0, "reward/accuracy": 0.5, "group/all_wrong": 0.25} for step in (1, 2)
    ]
    lines = [*steps, {"step": 2, "eval/reasoning": 1.0}]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_seeds_are_compared_with_their_own(tmp_path: Path) -> None:
    """Differences of 0.1, 0.1 and 0.4 have mean 0.2 and deviation 0.1732; t of two degrees of freedom is 4.303."""
    came_to = {"agapo": [0.5, 0.7, 0.6], "grpo": [0.6, 0.8, 1.0]}
    runs = [
        run_that_came_to(tmp_path, name, seed, x) for name, all_of in came_to.items() for seed, x in enumerate(all_of)
    ]
    first, second = table([found for run in runs if (found := read_run(run))], "agapo")
    assert (first["gain"], first["after"], first["before"]) == (None, pytest.approx(0.6), pytest.approx(0.25))
    assert first["after_half"] == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert second["gain"] == pytest.approx(0.2)
    assert second["gain_half"] == pytest.approx(4.303 * 0.03**0.5 / 3**0.5)
    assert (second["tokens_a_step"], second["all_wrong"], second["seeds"]) == (100, 0.25, 3)


def test_an_unfinished_run_is_not_counted(tmp_path: Path) -> None:
    run = run_that_came_to(tmp_path, "agapo", 0, 0.5)
    (run.folder / "summary.json").write_text('{"finished": false}')
    assert read_run(run) is None
    assert not run.finished


def test_one_seed_has_no_interval() -> None:
    assert mean_and_half([0.5]) == (0.5, None)
    assert mean_and_half([]) == (None, None)
