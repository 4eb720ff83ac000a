"""Every Makefile target, and every command that README and docs mark `run` or `dry-run`, is executed.

In a copy of the project, with stand-ins for the models and files that commands name. `run` is run as it stands there,
or is a line of `.ci/run`; `dry-run` as far as it goes without training: `agapo check` of the recipe and overrides that
`make -n` shows, and what trains nothing as it stands. A new command in the docs is a new test here.
"""

import contextlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from agapo.cli import app
from agapo.model.loading import create_model, export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe import SFTRecipe, load_recipe
from agapo.recipe.read import load_ablation
from agapo.stages.ablate.run import recipes_of, runs_of
from agapo.tracking import RunDirectory, write_json_atomic
from tests.conftest import finished_run
from tests.documented import COMMANDS, GATE, ROOT, TARGETS

LEFT_OUT = (".git", ".venv*", "outputs", "wandb", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build")
TRAINS = {"sft", "rl", "dpo", "eval", "pairs", "filter"}
GATED = {" ".join(line.split()[:2]) for line in GATE if line.startswith("make ")} | {".ci/run"}
"""What the gate runs, whole or shortened by ARGS."""
SHORT = "--prompts 2 --group 2 --max-new-tokens 8"
"""Added to `make bench`: its table needs no long responses."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project with this environment as its `.venv`, and what the commands take as made before."""
    folder = tmp_path_factory.mktemp("documented") / "agapo"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / ".venv").mkdir()
    for item in Path(sys.prefix).iterdir():
        (folder / ".venv" / item.name).symlink_to(item)
    (folder / ".venv/.ready").unlink(missing_ok=True)
    (folder / ".venv/.ready").touch()
    with contextlib.chdir(folder):
        make_stand_ins(folder / "outputs")
        yield folder


def make_stand_ins(outputs: Path) -> None:
    """The runs whose models or files some command names, finished, each with a new model; and responses to score."""
    model = outputs / "model"
    tokenizer = build_tokenizer()
    export_hf(create_model(tokenizer, seed=0), tokenizer, model)
    start = Path("recipes/sft/tiny.yaml")
    with RunDirectory.open(load_recipe(SFTRecipe, start), start) as run:
        accuracy = {"reasoning": 0.0, "non_reasoning": 0.0}
        summary = {"stage": "sft", "steps": 1390, "before": accuracy, "after": accuracy, "wall_s": 1.0}
        write_json_atomic(run.summary, {**summary, "finished": True, "lineage": []})
        shutil.copytree(model, run.hf)
    named = " ".join(command.line for command in COMMANDS)
    for stage, name in set(re.findall(r"outputs/(sft|rl|dpo)/(\w+)/", named)) - {("sft", "tiny")}:  # it is there
        run = finished_run(outputs, stage, name, age=10)
        shutil.copytree(model, run / "hf", dirs_exist_ok=True)
        (run / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sampled(tokenizer.encode)))
    for name in ("tiny", "calm"):
        run = outputs / "rl" / name
        run.mkdir(parents=True, exist_ok=True)
        shutil.copy("recipes/rl/tiny.yaml", run / "recipe.yaml")
    row = {"completion": "It is \\boxed{4}", "answer": "4", "times": 1, "mode": "non_reasoning"}
    Path("responses.jsonl").write_text(json.dumps(row))


def sampled(encode: Callable[[str], list[int]]) -> Iterator[dict[str, Any]]:
    """A prompt's right and wrong response, as `agapo pairs` writes them."""
    about = {"id": "p", "mode": "non_reasoning", "visit": 0, "domain": "math", "language": "en"}
    for answer in (4, 5):
        text, correct = f"\\boxed{{{answer}}}", answer == 4
        judged = {"correct": correct, "reward": float(correct), "reward_parts": {"answer": float(correct)}}
        made = {"response": text, "reward_error": None, "finish": "stop", "tokens": len(encode(text)), "logprob": -1.0}
        yield {**about, "prompt": [{"role": "user", "content": "2+2"}], **judged, **made, "token_ids": encode(text)}


def of(mark: str) -> list[str]:
    """The commands so marked that the gate does not run itself, each once."""
    return list(
        dict.fromkeys(command.line for command in COMMANDS if command.mark == mark and command.line not in GATED)
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("line", of("run"), ids=str)
def test_what_is_to_be_run_runs(line: str, project: Path) -> None:
    shown = run(line.replace('ARGS="', f'ARGS="{SHORT} ') if line.startswith("make bench") else line, project)
    if line.startswith("make bench"):
        assert "TRL's step over agapo's:" in shown, shown[-2000:]


@pytest.mark.parametrize("line", of("dry-run"), ids=str)
def test_what_trains_goes_as_far_as_it_goes_without_training(line: str, project: Path) -> None:
    rehearse(line, project)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_run(target: str, project: Path) -> None:
    """By the gate, by a command in the docs, or here."""
    if target in ("help", "format", "lock", "docs"):
        assert run(f"make {target}", project) or target == "lock"
    elif target == "clean":
        expanded = run("make -n clean", project).split()
        assert expanded[:2] == ["rm", "-rf"] and "outputs" not in " ".join(expanded)
    else:
        lines = GATED | {command.line for command in COMMANDS if command.mark == "run"}
        assert any(re.match(rf"make {target}( |$)", line) for line in lines), f"nothing runs make {target}"


def run(line: str, project: Path) -> str:
    """Run a command as it stands there, and return what it said."""
    environment = os.environ | {"PYTHONPATH": str(project), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-c", line], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def rehearse(line: str, project: Path) -> None:
    """Do all of a command but the training."""
    match shlex.split(line):
        case ["make", *_]:
            for part in run(line.replace("make ", "make -n ", 1), project).replace("&&", "\n").splitlines():
                rehearse(part, project)
        case [".venv/bin/agapo", "executor", *_]:
            answer_once(f"exec {line} --port 0", project)
        case [".venv/bin/agapo" | ".venv-vllm/bin/agapo", name, *arguments]:
            command_line(name, arguments)
        case [".venv/bin/python", "-m", "pytest" | "benchmarks.trl_step" as module, *_]:
            pytest.fail(f"'python -m {module}' is marked dry-run: nothing of it can be tried without running it")
        case [".venv/bin/python", "-m", module, *_]:
            show_help(module)
        case _:
            pytest.fail(f"no test knows how far '{line}' goes without training: mark it `run`, or teach this one")


def command_line(name: str, arguments: Sequence[str]) -> None:
    """Run a command of `agapo` in this process; of one that trains, check options, recipe and overrides."""
    if name == "ablate":
        own = load_ablation(Path(arguments[0]), arguments[1:])
        assert recipes_of(list(runs_of(own, own.output / "ablate")), own.base)
        return
    command = typer.main.get_command(app)
    if name in TRAINS and "--responses" not in arguments:
        given = command.commands[name].make_context(name, list(arguments)).params  # type: ignore[attr-defined]
        arguments, name = [str(given["recipe"]), *(given["overrides"] or [])], "check"
    if name == "check" and any(is_somewhere_else(word) for word in arguments):
        arguments = [*arguments, "--schema"]
    command.main([name, *arguments], standalone_mode=False)


def is_somewhere_else(override: str) -> bool:
    """Whether an override names a place on the reader's machine."""
    value = override.partition("=")[2]
    return value.startswith("/") and not Path(value).exists()


def answer_once(line: str, project: Path) -> None:
    """Start a server and end it once it says that it is there."""
    with subprocess.Popen(["bash", "-c", line], cwd=project, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        said = server.stdout.readline()
        server.terminate()
    assert said.startswith("running programs for http://")


def show_help(module: str) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", [module, "--help"])
        runpy.run_module(module, run_name="__main__")
    assert not left.value.code
