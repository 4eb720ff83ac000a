"""Outside a clone: what is built in beside one's own, a project that is laid out, and one that moves."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agapo.built_in import BUILT_IN, find_recipe
from agapo.errors import UserError
from agapo.recipe import RLRecipe, fingerprint, load_recipe
from agapo.stages.running.start import keep_start, starting_model
from agapo.starter import lay_out
from agapo.tracking import RunDirectory
from agapo.tracking.provenance import noted_start

ROOT = Path(__file__).parents[2]
RESOLVE = """
import sys
from agapo.resolve import resolve
for name in sys.argv[1:]:
    function = resolve(name, key="reward")
    print(function.__module__, function.__code__.co_filename)
"""
IMPORTED = "import sys; sys.path.insert(0, ''); import rewards.answers.mine\n"


def resolved(folder: Path, *names: str, first: str = "") -> list[str]:
    """What a fresh process in `folder` finds, and says."""
    command = [sys.executable, "-c", first + RESOLVE, *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def write(path: Path, text: str = "def score(prompts, completions, **columns):\n    return [1.0]\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("init", [False, True])
def test_own_folders_add_to_the_built_in_ones(init: bool, tmp_path: Path) -> None:
    mine = write(tmp_path / "rewards/mine.py")
    write(tmp_path / "data/rows.jsonl", "{}")
    if init:
        write(tmp_path / "rewards/__init__.py", "")
    found = resolved(tmp_path, "rewards.mine:score", "rewards.math_answer:score", "data.gsm8k:prompts")
    assert found == [
        f"rewards.mine {mine}",
        f"rewards.math_answer {ROOT / 'rewards/math_answer.py'}",
        f"data.gsm8k {ROOT / 'data/gsm8k.py'}",
    ]


def test_own_modules_of_any_name_import_built_in_ones(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere.py", "from rewards.math_answer import score\n")
    assert resolved(tmp_path, "elsewhere:score") == [f"rewards.math_answer {ROOT / 'rewards/math_answer.py'}"]


def test_own_packages_that_are_imported_already_are_added_to(tmp_path: Path) -> None:
    write(tmp_path / "rewards/mine.py")
    first = "import sys; sys.path.insert(0, ''); import rewards.mine\n"
    assert len(resolved(tmp_path, "rewards.mine:score", "rewards.format:score", first=first)) == 2


def test_of_one_name_the_own_module_wins_and_a_line_says_so(tmp_path: Path) -> None:
    mine = write(tmp_path / "rewards/math_answer.py")
    name = "rewards.math_answer:score"
    assert resolved(tmp_path, name, name) == [
        f"rewards.math_answer: your own {mine}, in place of the built-in one",
        *[f"rewards.math_answer {mine}"] * 2,
    ]


def test_an_own_module_that_a_built_in_one_imports_is_said(tmp_path: Path) -> None:
    mine = write(tmp_path / "rewards/sentences.py", "count_sentences = punkt_sentences = len\n")
    assert resolved(tmp_path, "rewards.instructions:score") == [
        f"rewards.sentences: your own {mine}, in place of the built-in one",
        f"rewards.instructions {ROOT / 'rewards/instructions.py'}",
    ]


@pytest.mark.parametrize(("init", "first"), [(False, ""), (True, ""), (True, IMPORTED)])
def test_own_folders_inside_add_to_the_built_in_ones(init: bool, first: str, tmp_path: Path) -> None:
    mine = write(tmp_path / "rewards/answers/mine.py")
    package = write(tmp_path / "rewards/answers/__init__.py", "") if init else None
    found = resolved(tmp_path, "rewards.answers.units:is_unit", "rewards.answers.mine:score", first=first)
    said = [f"rewards.answers: your own {package}, in place of the built-in one"] if init else []
    assert found == [
        *said,
        f"rewards.answers.units {ROOT / 'rewards/answers/units.py'}",
        f"rewards.answers.mine {mine}",
    ]


def test_a_recipe_is_ones_own_or_the_built_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = Path("recipes/rl/tiny.yaml")
    assert find_recipe(named) == BUILT_IN / named == ROOT / named
    assert load_recipe(RLRecipe, find_recipe(named)).model.start == ROOT / "recipes/sft/tiny.yaml"
    write(named, "stage: rl\n")
    assert find_recipe(named) == named
    with pytest.raises(UserError, match=r"tine\.yaml: no such recipe; did you mean 'recipes/rl/tiny\.yaml'"):
        load_recipe(RLRecipe, find_recipe(Path("recipes/rl/tine.yaml")))


def test_a_project_is_laid_out_and_nothing_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "project"
    mine = write(folder / "rewards/mine.py")
    lay_out(folder)
    assert f"cd {folder} && agapo check recipes/rl/doubles.yaml" in capsys.readouterr().out
    laid = {path.relative_to(folder) for path in (folder / "recipes").rglob("*.yaml")}
    assert laid == {path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*.yaml")} | {
        Path("recipes/rl/doubles.yaml")
    }
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert mine in before
    with pytest.raises(UserError, match=r"ablation/tiny\.yaml: is there already, and nothing was written"):
        lay_out(folder)
    (folder / "recipes").rename(folder / "other")
    with pytest.raises(UserError, match=r"README\.md: is there already, and nothing was written"):
        lay_out(folder)
    assert not (folder / "recipes").exists()
    (folder / "other").rename(folder / "recipes")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


EXAMPLE = """
from pathlib import Path
from agapo.curation.prompts import read_prompts
from agapo.recipe import RLRecipe, load_recipe
from agapo.resolve import resolve
recipe = load_recipe(RLRecipe, Path("recipes/rl/doubles.yaml"))
score = resolve(recipe.reward.terms[0].function, key="reward")
for split in ("train", "test"):
    prompts = read_prompts(recipe.data.source, split, recipe.data.args, recipe.data.path)
    golds = [prompt.columns["answer"] for prompt in prompts]
    print(len(prompts), sum(score([None] * len(golds), golds, golds)), score(["?"], ["It is -1"], ["2"]))
"""


def test_the_example_of_a_project_fits_together(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "agapo", "init", tmp_path / "project"], cwd=ROOT, check=True)
    command = [sys.executable, "-c", EXAMPLE]
    done = subprocess.run(command, cwd=tmp_path / "project", capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["80 80.0 [0.0]", "20 20.0 [0.0]"], done.stderr


def test_a_package_carries_no_data_that_somebody_has_put_beside_the_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    left_out = runpy.run_path(str(ROOT / "setup.py"))["left_out"]
    monkeypatch.chdir(tmp_path)
    for name in ("rows.csv", "rows.jsonl", "sets/all.arrow", "mine/rows.py", "__pycache__/rows.pyc"):
        write(Path("data", name))
    write(Path("recipes/cluster/a.sbatch"))
    for name in ("data", "recipes"):
        shutil.copytree(name, Path("out", name), ignore=left_out)
    carried = [str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file()]
    assert sorted(carried) == ["data/mine/rows.py", "recipes/cluster/a.sbatch"]


def project(folder: Path, model: Path) -> tuple[RLRecipe, Path]:
    """A recipe of a project in `folder`, its data in it, and its start in `model`."""
    content = {
        "stage": "rl",
        "model": {"path": str(model)},
        "steps": 2,
        "run": {"output": str(folder / "outputs")},
        "data": {"source": "data.files:prompts", "path": str(folder / "rows")},
        "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
    }
    path = folder / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return load_recipe(RLRecipe, path), path


def begin(recipe: RLRecipe, path: Path) -> None:
    with RunDirectory.open(recipe, path) as run:
        keep_start(run, starting_model(recipe))
        (run.path / "metrics.jsonl").write_text("{}")


@pytest.mark.parametrize("inside", [True, False])
def test_a_project_and_its_start_can_be_moved(inside: bool, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    model = (old if inside else tmp_path / "models") / "start"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(bytes(range(256)))
    recipe, path = project(old, model)
    begin(recipe, path)
    old.rename(new)
    if not inside:
        model = model.rename(tmp_path / "moved")
    moved, path = project(new, new / "start" if inside else model)
    begin(moved, path)
    assert noted_start(moved.run_directory) == str(new / "start") if inside else str(tmp_path / "models/start")
    if inside:
        assert fingerprint(moved) == fingerprint(recipe)
    (Path(str(moved.model.path)) / "model.safetensors").write_bytes(bytes(256))
    with pytest.raises(UserError, match=r"other weights|another recipe"):
        begin(moved, path)


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json", "config.json"])
def test_the_same_weights_in_another_form_are_another_start(name: str, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for model, text in ((one, "{}"), (other, "{ }")):
        write(model / name, text)
        (model / "model.safetensors").write_bytes(bytes(9))
    begin(*project(tmp_path / "project", one))
    with pytest.raises(UserError, match=r"another recipe \(model\.path: "):
        begin(*project(tmp_path / "project", other))
    write(one / name, "{ }")
    with pytest.raises(UserError, match=r"holds another config, tokenizer or chat template than when the run"):
        begin(*project(tmp_path / "project", one))


def test_a_built_in_start_is_the_same_in_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads(project(tmp_path, tmp_path)[1].read_text()) | {"run": {"output": str(tmp_path / "outputs")}}
    recipes = []
    for environment in ("env1", "env2"):
        carried = tmp_path / environment / "lib/agapo/carried"
        path = write(carried / "recipes/rl/mine.yaml", json.dumps(content | {"model": {"start": "../sft/tiny.yaml"}}))
        write(carried / "recipes/sft/tiny.yaml", "stage: sft\n")
        write(carried / "recipes/sft/other.yaml", "stage: sft\n")
        recipes.append((load_recipe(RLRecipe, path), path))
    with RunDirectory.open(*recipes[0]) as run:
        (run.path / "metrics.jsonl").write_text("{}")
    with RunDirectory.open(*recipes[1]) as run:
        assert run.resumed
    path = recipes[1][1]
    other = load_recipe(RLRecipe, path, [f"model.start={path.parent.parent / 'sft/other.yaml'}"])
    with pytest.raises(UserError, match=r"another recipe \(model\.start: "):
        RunDirectory.open(other, path)


def test_other_rows_are_another_run_wherever_they_lie(tmp_path: Path) -> None:
    model = tmp_path / "start"
    model.mkdir()
    recipe, path = project(tmp_path / "old", model)
    begin(recipe, path)
    shutil.move(tmp_path / "old", tmp_path / "new")
    _, path = project(tmp_path / "new", model)
    other = load_recipe(RLRecipe, path, [f"data.path={tmp_path / 'new' / 'others'}"])
    with pytest.raises(UserError, match=r"holds a run of another recipe \(data\.path: "):
        begin(other, path)
