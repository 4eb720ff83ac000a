"""Inputs with their right values, collected from public reports: one test a line of the folder AGAPO_TEST_CASES."""

import json
import os
import re
from ast import literal_eval
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from agapo.chat import trained_turns
from agapo.curation.dialogues import normal_dialogue
from agapo.errors import UserError
from agapo.recipe import RLRecipe, load_recipe
from data import files
from tests.sandboxed import needs_sandbox

ROOT = Path(__file__).parents[2]
FOLDER = os.environ.get("AGAPO_TEST_CASES")
WITHOUT = pytest.mark.skip(
    reason="AGAPO_TEST_CASES is not set (a folder with rewards.jsonl and data_and_recipes.jsonl)"
)


def cases(file: str) -> Iterator[Any]:
    """Yield each line as a test's parameter; one that is skipped where there is no folder."""
    if not FOLDER:
        yield pytest.param({}, marks=WITHOUT, id=file)
        return
    for number, line in enumerate((Path(FOLDER) / file).read_text(encoding="utf-8").splitlines(), start=1):
        case = json.loads(line)
        kind = re.sub(r"\W+", "-", case["kind"]).strip("-").lower()
        marks = [needs_sandbox] if case["area"] == "code" else []
        yield pytest.param(case, marks=marks, id=f"{number}-{case['area'].replace(' ', '-')}-{kind}")


@pytest.mark.parametrize("case", list(cases("rewards.jsonl")))
def test_rewards(case: dict[str, Any]) -> None:
    module, name = case["function"].rsplit(".", 1)
    assert getattr(import_module(module), name)(**case["arguments"]) == [case["expected"]], case["source"]


@pytest.mark.parametrize("case", list(cases("data_and_recipes.jsonl")))
def test_data_and_recipes(case: dict[str, Any], tmp_path: Path) -> None:
    read = {"chat data": read_chat, "recipes": read_recipe}[case["area"]]
    assert read(case, tmp_path) == case["expected"], case["source"]


def read_chat(case: dict[str, Any], folder: Path) -> Any:
    """Return the turns that are trained on, or the roles of all."""
    (folder / "rows.jsonl").write_text(json.dumps(case["arguments"]), encoding="utf-8")
    row = normal_dialogue(next(files.dialogues("train", path=folder / "rows.jsonl")), "rows.jsonl:1")
    if "trained_turns" in case["function"]:
        return trained_turns(row["messages"], row["mode"])
    return [turn["role"] for turn in row["messages"]]


def read_recipe(case: dict[str, Any], folder: Path) -> str:
    """Return what is asked for, as text, `accepted` where nothing is, or `refused`."""
    arguments = case["arguments"]
    file, overrides = folder / "r.yaml", [arguments["override"]] if "override" in arguments else []
    file.write_text(recipe_text(arguments.get("file", "recipes/rl/tiny.yaml")), encoding="utf-8")
    try:
        recipe = load_recipe(RLRecipe, file, overrides)
    except UserError:
        return "refused"
    if case["expected"] == "refused":
        return "accepted"
    return recipe.run.name if overrides else str(next(iter(recipe.reward.terms[0].args.values())))


def recipe_text(said: str) -> str:
    """Read `PATH`, `PATH + 'TEXT'` and `PATH with reward.terms[0] = NAME, args {…}`."""
    path, _, change = said.partition(" ")
    text = (ROOT / path).read_text(encoding="utf-8")
    if change.startswith("+ "):
        return text + literal_eval(change[2:])
    if change:
        found = re.fullmatch(r"with reward\.terms\[0\] = (\w+), args (\{.*\})", change)
        assert found, said
        name, args = found.groups()
        content = yaml.safe_load(text)
        content["reward"]["terms"] = [{"name": name, "function": f"rewards.{name}:score", "args": "ARGS"}]
        return yaml.safe_dump(content).replace("ARGS", args)
    return text


@pytest.mark.parametrize(
    ("said", "ending"),
    [
        ("recipes/rl/tiny.yaml", ""),
        ("recipes/rl/tiny.yaml + '\\nsteps: 3\\n'", "\nsteps: 3\n"),
        ("recipes/rl/tiny.yaml with reward.terms[0] = science, args {x: 1e-2}", ""),
    ],
)
def test_how_a_recipe_is_described(said: str, ending: str) -> None:
    text = recipe_text(said)
    assert text.endswith(ending)
    assert ("args: {x: 1e-2}" in text) == ("args" in said)
