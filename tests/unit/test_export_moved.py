"""`agapo export` of adapters after their project, with the model that they were trained beside, was moved."""

from pathlib import Path

import pytest
import torch
import yaml

from agapo.learner.checkpoint import Saved, save_checkpoint
from agapo.learner.trl.callbacks import STATE
from agapo.model.adapters import WEIGHTS, add_adapters, write_adapter
from agapo.model.loading import export_hf, load_model
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import trained_parameters
from agapo.recipe import SFTRecipe, load_recipe
from agapo.stages.export import export_model
from agapo.stages.running.start import keep_start
from agapo.tracking import RunDirectory
from tests.builders import stirred, tiny_qwen


@pytest.mark.parametrize("made", ["before", "here"])
def test_adapters_find_their_model_where_it_lies_now(made: str, tmp_path: Path) -> None:
    """It is a model of the project, or one that the run itself has made (`create`)."""
    project, moved = tmp_path / "project", tmp_path / "moved"
    content = {
        "stage": "sft",
        "run": {"output": str(project / "outputs"), "name": "mine"},
        "steps": 3,
        "data": {"source": "data.arithmetic:dialogues"},
        "training": {"lora": {"rank": 2}},
    }
    start = project / "model" if made == "before" else project / "outputs/sft/mine/start"
    content |= {"model": {"path": str(start)}} if made == "before" else {"model": {}, "create": {}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe = load_recipe(SFTRecipe, path)
    lora = recipe.training.lora
    assert lora
    with RunDirectory.open(recipe, path) as run:
        export_hf(tiny_qwen(), build_tokenizer(), start)
        if made == "before":
            keep_start(run, str(start))
        model = tiny_qwen()
        add_adapters(model, lora, 0)
        adapters = dict(trained_parameters(stirred(model)))

        def save(folder: Path) -> Saved:
            write_adapter(folder / STATE, adapters, lora, str(start))
            return Saved(1, 0, [f"{STATE}/{WEIGHTS}"])

        save_checkpoint(run.checkpoints, 3, {"step": 3}, save, keep=1)
    project.rename(moved)
    export_model(moved / "outputs/sft/mine", None, tmp_path / "hf", None, private=False)
    exported, before = (
        load_model(folder).state_dict() for folder in (tmp_path / "hf", moved / start.relative_to(project))
    )
    changed = {name for name in before if not torch.equal(exported[name], before[name])}
    assert any("q_proj" in name for name in changed)
