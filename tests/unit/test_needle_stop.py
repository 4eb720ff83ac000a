"""A needle test that ended red may be accepted afterwards with `needle.stop=false`, as its message says."""

from pathlib import Path
from typing import Any

import yaml

from agapo.recipe import RLRecipe, SFTRecipe
from agapo.stages.running.start import _as_its_recipe_says
from agapo.stages.sft.run import heed_needle_stop
from agapo.tracking import RunDirectory, read_json, write_json_atomic
from tests.unit.test_advice import RECIPES

RED = {"finished": True, "needle": {"stop": True, "green": False}}


def sft(folder: Path, stop: bool) -> dict[str, Any]:
    where = {"name": "small", "output": str(folder)}
    return {**RECIPES[SFTRecipe], "stage": "sft", "run": where, "needle": {"lengths": [64], "stop": stop}}


def test_in_its_own_run(tmp_path: Path) -> None:
    for stop in (True, False):
        recipe = SFTRecipe.model_validate(sft(tmp_path, stop))
        with RunDirectory.open(recipe, Path("small.yaml")) as run:
            if not run.summary.exists():
                write_json_atomic(run.summary, RED)
            heed_needle_stop(recipe, run)
            assert (read_json(run.summary) or {})["needle"] == {"stop": stop, "green": False}


def test_in_the_recipe_of_a_start(tmp_path: Path) -> None:
    path = tmp_path / "start.yaml"
    recipe = RLRecipe.model_validate({**RECIPES[RLRecipe], "model": {"start": str(path)}})
    for stop in (True, False):
        path.write_text(yaml.safe_dump(sft(tmp_path, stop)))
        assert _as_its_recipe_says(RED, recipe)["needle"]["stop"] is stop
