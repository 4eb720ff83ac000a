"""What `agapo filter` finds out before it samples, as the other stages do: the stretched context, and the GPUs."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from agapo.errors import UserError
from agapo.recipe import RLRecipe, load_recipe
from agapo.stages.filter import run_filter
from tests.stages.conftest import ROOT


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "exceed the model's context of 256"),
        (["model.rope.factor=4"], "rollout.actors × gpus_per_actor: 2000 GPUs are asked for"),
    ],
)
def test_known_before_anything_is_sampled(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    """300 new tokens fit the model of 256 only stretched; then no machine has the GPUs."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("agapo.stages.filter.started_ray", lambda address: nullcontext())
    asked = [f"run.output={tmp_path}", "rollout.max_new_tokens=300", "rollout.gpus_per_actor=2000", *overrides]
    recipe = load_recipe(RLRecipe, recipe_file, asked)
    with pytest.raises(UserError, match=message):
        run_filter(recipe, recipe_file, samples=2, drop_from=1.0, drop_below=0.0)
