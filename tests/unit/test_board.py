"""TensorBoard beside the other places: what its files hold, also of a run that goes on, and what is said without it."""

import logging
import sys
from pathlib import Path

import pytest
import yaml

from agapo.errors import UserError
from agapo.recipe import RLRecipe, load_recipe
from agapo.schema import Group, Prompt, Response
from agapo.tracking import MetricsLogger, RunDirectory

RECIPE = {
    "steps": 4,
    "model": {"path": "some/model"},
    "data": {"source": "data.arithmetic:rows"},
    "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
    "tracking": {"wandb": "disabled", "tensorboard": True, "rollout_rows": 1},
}


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"run": {"output": str(tmp_path / "outputs")}}))
    return path


def test_numbers_and_samples_are_there_and_a_run_that_goes_on_has_each_step_once(recipe_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = load_recipe(RLRecipe, recipe_path)
    prompt = Prompt("p", ({"role": "user", "content": "2+2"},))
    group = Group(prompt, (), tuple(Response((), text, "stop", reward=1.0) for text in ("four", "vier")))
    with RunDirectory.open(recipe, recipe_path) as run:
        # Killed after step 3, going on from a checkpoint of step 2.
        for steps, factor in (((1, 2, 3), 1), ((3, 4), 10)):
            if factor > 1:
                run.truncate_after(2)
            logger = MetricsLogger(run, recipe, None, resume=factor > 1)
            if factor > 1:
                # What was still to be measured of the checkpoint's step, and hides nothing of it.
                logger.log(2, {"eval/accuracy": 0.5})
            for step in steps:
                logger.log(step, {"reward/mean": float(factor * step)})
                logger.log_rollouts(step, [group])
            logger.close(0)
        found = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("reward/mean")] == [(1, 1), (2, 2), (3, 30), (4, 40)]
    samples = found.Tensors("rollout/samples/text_summary")
    assert samples[0].tensor_proto.string_val == [b"**2+2**\n\nfour\n\nreward 1.0"]


def test_files_that_cannot_be_written_cost_a_warning(recipe_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = load_recipe(RLRecipe, recipe_path)
    with RunDirectory.open(recipe, recipe_path) as run:
        (run.path / "tensorboard").write_text("no folder")
        logger = MetricsLogger(run, recipe, None, resume=False)
        with caplog.at_level(logging.WARNING, "agapo"):
            for step in (1, 2):
                logger.log(step, {"reward/mean": 1.0})
            logger.close(0)
        assert len(run.metrics.read_text().splitlines()) == 2
    assert len(caplog.records) == 1
    assert caplog.text.count("TensorBoard could not write step 1 (") == 1


def test_nothing_is_written_where_nobody_asked(recipe_path: Path) -> None:
    recipe = load_recipe(RLRecipe, recipe_path, ["tracking.tensorboard=false"])
    with RunDirectory.open(recipe, recipe_path) as run:
        logger = MetricsLogger(run, recipe, None, resume=False)
        logger.log(1, {"reward/mean": 1.0})
        logger.close(0)
        assert not (run.path / "tensorboard").exists()


def test_without_the_package_a_run_says_how_to_get_it_before_its_folder_is_made(
    recipe_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    recipe = load_recipe(RLRecipe, recipe_path)
    with pytest.raises(UserError, match=r"tracking\.tensorboard: .*pip install 'agapo\[tensorboard\]'"):
        RunDirectory.open(recipe, recipe_path)
    assert not recipe.run_directory.exists()
