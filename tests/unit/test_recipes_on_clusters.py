"""Every recipe for GPUs fits the hardware that its first lines claim, by `agapo check` and by `agapo plan`."""

import re
from pathlib import Path
from typing import Any

import pytest

from agapo.errors import UserError
from agapo.preflight.check import Trained
from agapo.preflight.model import base_recipe, memory_rows, model_sizes
from agapo.preflight.planning.fitting import case_of, misfits
from agapo.preflight.planning.phases import lengths_of, step_phases, total
from agapo.preflight.planning.plan import plan_recipe
from agapo.preflight.rl import check_memory
from agapo.recipe import DPORecipe, RLRecipe, SFTRecipe, load_cluster, load_recipe

ROOT = Path(__file__).parents[2]
KINDS: dict[str, type[Trained]] = {"rl": RLRecipe, "sft": SFTRecipe, "dpo": DPORecipe}
RECIPES = [
    path
    for stage in KINDS
    for path in sorted((ROOT / "recipes" / stage).glob("*.yaml"))
    if "gpu_gib" in path.read_text()
]
CLAIM = re.compile(r"\bone GPU of 24 GB|one GPU of 80 GB|two hosts of eight GPUs of 80 GB|eight GPUs of 80 GB")
FILES = {
    "one GPU of 24 GB": "one_24gb",
    "one GPU of 80 GB": "one_80gb",
    "eight GPUs of 80 GB": "eight_80gb",
    "two hosts of eight GPUs of 80 GB": "two_hosts_of_eight_80gb",
}
MODELS = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-8B", "Qwen3-32B", "EXAONE-4.0-1.2B", "EXAONE-4.0-32B")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def claimed(path: Path) -> str:
    """The cluster that the first comment claims first."""
    comment = " ".join(line.removeprefix("#").strip() for line in path.read_text().partition("stage:")[0].splitlines())
    found = CLAIM.search(comment)
    assert found, f"{path.name}: the first lines name no hardware: {', '.join(FILES)}"
    return FILES[found[0]]


def loaded(path: Path) -> Any:
    return load_recipe(KINDS[path.parent.name], path)


def on(path: Path, name: str) -> Any:
    recipe = loaded(path)
    sizes, where = model_sizes(base_recipe(recipe))
    assert sizes, where
    return case_of(recipe, sizes, load_cluster(ROOT / f"recipes/cluster/{name}.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recipe_fits_the_hardware_that_it_claims(path: Path) -> None:
    case = on(path, claimed(path))
    assert misfits(case) == []
    plan_recipe(path, [], ROOT / f"recipes/cluster/{claimed(path)}.yaml")  # raises where it says no
    # It is claimed because it is used.
    assert case.placement.gpus == case.cluster.gpus
    assert total(step_phases(case, lengths_of(case, None, None)))
    recipe = loaded(path)
    rows = dict(check_memory(recipe) if isinstance(recipe, RLRecipe) else memory_rows(recipe, case.sizes))
    verdicts = [text for name, text in rows.items() if name.startswith(("a GPU of", "sampling on"))]
    assert verdicts and all("fits" in text and "not fit" not in text for text in verdicts)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stage", KINDS)
def test_each_model_has_a_recipe_for_each_stage(model: str, stage: str) -> None:
    models = {
        str(base_recipe(loaded(path)).model.path).partition("/")[2] for path in RECIPES if path.parent.name == stage
    }
    assert model in models


def test_a_recipe_on_too_little_is_seen() -> None:
    """Else the test above could not fail."""
    path = ROOT / "recipes/sft/qwen3_1.7b.yaml"
    assert misfits(on(path, "one_24gb"))
    with pytest.raises(UserError, match="a GPU of 23 GiB: does not fit"):
        plan_recipe(path, [], ROOT / "recipes/cluster/one_24gb.yaml")
