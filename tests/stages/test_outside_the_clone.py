"""A wheel in a fresh environment, and an empty folder: one's own reward and data, all three stages, a move.

The environment sees the packages of the one that runs the tests, so that nothing is fetched, but not its clone.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.stages.conftest import ROOT

pytestmark = pytest.mark.slow

DATA = """
def prompts(split):
    for n in range(32 if split == "train" else 8):
        yield {"messages": [{"role": "user", "content": f"{split} {n}?"}], "answer": str(n)}


def dialogues(split):
    for row in prompts(split):
        answer = {"role": "assistant", "content": row["answer"]}
        yield {"messages": [*row["messages"], answer], "mode": "non_reasoning"}


def pairs(split):
    for row in prompts(split):
        chosen, rejected = ({"role": "assistant", "content": text} for text in (row["answer"], "no"))
        about = {"mode": "non_reasoning", "domain": "math", "language": "en"}
        yield {"prompt": row["messages"], "chosen": chosen, "rejected": rejected, **about}
"""
REWARD = """
from rewards.answers.numbers import read_number  # a built-in helper


def score(prompts, completions, **columns):
    return [float(len(text) % 2) for text in completions]
"""
SMALL = "{group_size: 2, max_new_tokens: 8, threads: 1}"
RECIPES = {
    "sft": """
stage: sft
model: {}
create: {}
steps: 3
data: {source: data.mine:dialogues}
training: {threads: 1}
""",
    "rl": f"""
stage: rl
model: {{}}
steps: 1
prompts_per_step: 2
data: {{source: data.mine:prompts, modes: {{non_reasoning: 1}}}}
reward:
  workers: 1
  terms: [{{name: mine, function: rewards.mine:score}}, {{name: format, function: rewards.format:score, weight: 0}}]
rollout: {SMALL}
learner: {{threads: 1}}
evaluation: {{every: 0, test_size: 4, validation_size: 4}}
""",
    "dpo": """
stage: dpo
model: {}
pairs: {rows: {source: data.mine:pairs}}
training: {threads: 1, epochs: 1}
""",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`agapo` of a wheel, installed in an environment of its own."""
    folder = tmp_path_factory.mktemp("installed")
    sources = folder / "sources"
    left_out = (".git", ".venv*", "outputs", "wandb", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(*left_out))
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, sources, cwd=folder)
    shutil.rmtree(sources)
    venv.create(folder / "env", symlinks=True)
    python = folder / "env/bin/python"
    (wheel,) = folder.glob("*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # A path file's own path files are not read: that of the editable install is not seen.
    (site,) = (folder / "env/lib").glob("*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "env/bin/agapo"


def run(*command: object, cwd: Path) -> str:
    environment: Mapping[str, str] = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(600)
def test_three_stages_in_an_empty_folder(program: Path, tmp_path: Path) -> None:
    """And the folder is moved before the last step: the run goes on."""
    folder = tmp_path / "empty"
    for name, text in {"data/mine.py": DATA, "rewards/mine.py": REWARD}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    # In place of a built-in one.
    (folder / "rewards/format.py").write_text(REWARD)
    for stage, text in RECIPES.items():
        (folder / f"{stage}.yaml").write_text(text)
    code = "import agapo, agapo.built_in as b; print(agapo.__file__, b.BUILT_IN)"
    assert str(ROOT) not in run(program.parent / "python", "-c", code, cwd=folder)

    run(program, "sft", "sft.yaml", "tracking.wandb=disabled", cwd=folder)
    said = run(program, "rl", "rl.yaml", "tracking.wandb=disabled", cwd=folder)
    assert f"rewards.format: your own {folder}/rewards/format.py, in place of the built-in one" in said
    (moved := tmp_path / "moved").mkdir()
    folder = folder.rename(moved / "folder")
    said = run(program, "rl", "rl.yaml", "tracking.wandb=disabled", "steps=2", cwd=folder)
    assert "going on from step 1 of 2" in said
    run(program, "dpo", "dpo.yaml", "tracking.wandb=disabled", cwd=folder)
    lineage = json.loads((folder / "outputs/dpo/dpo/summary.json").read_text())["lineage"]
    assert [(item["stage"], item["run"], item["steps"]) for item in lineage] == [("sft", "sft", 3), ("rl", "rl", 2)]


def test_what_is_built_in_is_there(program: Path, tmp_path: Path) -> None:
    """Every recipe, reward and source of the clone, without `init`; and laid out by it."""
    said = run(program, "check", "recipes/rl/tiny.yaml", cwd=tmp_path)
    assert "data.arithmetic:prompts" in said
    run(program, "init", "project", cwd=tmp_path)
    files = {
        str(path.relative_to(tmp_path / "project")) for path in (tmp_path / "project").rglob("*") if path.is_file()
    }
    named = run("git", "ls-files", "recipes", cwd=ROOT).split()
    assert files == {*named, "README.md", "data/doubles.py", "rewards/contains.py", "recipes/rl/doubles.yaml"}
    (built_in,) = (program.parents[1] / "lib").glob("*/site-packages/agapo/carried")
    carried = {str(path.relative_to(built_in)) for path in built_in.rglob("*.py") if "__pycache__" not in path.parts}
    assert carried == {
        name for name in run("git", "ls-files", "rewards", "data", cwd=ROOT).split() if name[-3:] == ".py"
    }
