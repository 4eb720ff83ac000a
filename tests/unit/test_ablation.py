"""What an ablation runs, and what it makes of the runs."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from agapo.errors import UserError
from agapo.recipe import RLRecipe, load_recipe
from agapo.recipe.ablation import Ablation
from agapo.recipe.read import load_ablation
from agapo.signals import Stopped
from agapo.stages.ablate import run as ablate_run
from agapo.stages.ablate.results import mean_and_half, read_run, table
from agapo.stages.ablate.run import Run, recipes_of, run_ablation, runs_of
from agapo.stages.running.interrupt import StopRequest
from agapo.tracking import RunDirectory, write_json_atomic
from agapo.tracking.ownership import is_over

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("starts: {a: [], a-1: []}\nvariants: {1-b: [], b: []}", "would be one run, a-1-1-b; rename"),
        ("variants: {a: [], b: [algorithm.updates_per_batch=4]}", "variants.b: .*: updates lists them; leave it out"),
        ("overrides: [run.seed=3]\nvariants: {a: [], b: []}", "overrides: run.seed=3: seeds says"),
    ],
)
def test_what_would_be_in_vain_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"base: recipes/rl/tiny.yaml\n{text}")
    with pytest.raises(UserError, match=message):
        load_ablation(tmp_path / "a.yaml")


def small(folder: Path, *overrides: str, variant: str = "algorithm.preset=grpo") -> Ablation:
    content = {"base": ROOT / "recipes/rl/tiny.yaml", "output": folder, "overrides": ["steps=5", *overrides]}
    return Ablation.model_validate(content | {"variants": {"agapo": [], "other": [variant]}, "seeds": 2})


def test_wrong_and_vain_variants_are_said_before_any_run(tmp_path: Path) -> None:
    for variant, message in {
        "algorithm.presett=grpo": "start-1-other-0: .*did you mean 'preset'",
        "algorithm.preset=agapo": "start-1-agapo-0 and start-1-other-0 are one recipe",
    }.items():
        with pytest.raises(UserError, match=message):
            run_ablation(small(tmp_path, variant=variant), tmp_path / "small.yaml")
    assert not list(tmp_path.iterdir())


def test_runs_of_another_version_of_the_file_are_not_taken(tmp_path: Path) -> None:
    """Finished or under way; a run that is to go on for longer is lacking, and one that was refused at once is made."""
    before = small(tmp_path, "max_sampled_tokens=100")
    folder = tmp_path / "ablate/small"
    done, begun, *_ = runs = list(runs_of(before, folder))
    for run, recipe in recipes_of(runs, before.base).items():
        with RunDirectory.open(recipe, before.base) as opened:
            if run is done:
                write_json_atomic(opened.summary, {"finished": True, "steps": 3, "tokens_generated": 120})
            if run is begun:
                opened.metrics.touch()
    change = "learner.learning_rate=1e-3"
    with pytest.raises(UserError, match=r"agapo-0: holds a run of another recipe \(.*\), and so do 1 more; name a new"):
        run_ablation(small(tmp_path, "max_sampled_tokens=100", change), tmp_path / "small.yaml")
    for tokens, over in {100: True, 110: True, 500: False}.items():
        longer = recipes_of(list(runs_of(small(tmp_path, f"max_sampled_tokens={tokens}"), folder)), before.base)
        assert [is_over(run.folder, recipe) for run, recipe in longer.items()] == [over, False, False, False]


def test_an_ablation_goes_on_in_a_project_that_was_moved(tmp_path: Path) -> None:
    def recipe(project: Path, *overrides: str) -> RLRecipe:
        shutil.copytree(ROOT / "recipes", project / "recipes", dirs_exist_ok=True)
        own = small(project / "outputs", f"model.start={project}/recipes/sft/tiny.yaml", *overrides)
        return next(iter(recipes_of(list(runs_of(own, own.output / "ablate/small")), own.base).values()))

    with RunDirectory.open(recipe(tmp_path / "old"), ROOT / "recipes/rl/tiny.yaml") as run:
        run.metrics.touch()
    (tmp_path / "old").rename(tmp_path / "new")
    recipe(tmp_path / "new")
    with pytest.raises(UserError, match=r"another recipe \(learner.weight_decay"):
        recipe(tmp_path / "new", "learner.weight_decay=0.5")


def test_who_stops_at_once_leaves_no_run_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    def begin(*_: object) -> "subprocess.Popen[bytes]":
        begun.append(subprocess.Popen(["sleep", "60"], process_group=0))
        return begun[-1]

    def again(_: float) -> None:
        raise Stopped

    monkeypatch.setattr(ablate_run, "_begun", begin)
    monkeypatch.setattr(ablate_run, "time", SimpleNamespace(sleep=again, monotonic=time.monotonic))
    own = small(tmp_path).model_copy(update={"parallel": 2})
    with pytest.raises(Stopped):
        ablate_run._make(list(runs_of(own, tmp_path)), own, StopRequest())
    assert [process.wait(10) for process in begun] == [-signal.SIGINT] * 2
