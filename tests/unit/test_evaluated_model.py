"""Which model an evaluation is of: the last finished run's, and never an earlier one's figures."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from agapo.errors import UserError
from agapo.recipe import EvalRecipe, load_recipe
from agapo.stages.eval import run as stage
from agapo.stages.eval.run import run_eval
from tests.conftest import finished_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    prompts = {"source": "data.arithmetic:prompts"}
    reward = {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]}
    content = {"stage": "eval", "model": {}, "prompts": prompts, "reward": reward}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were measured; a model's figure is how many were before it."""
    models: list[str] = []

    def measure(recipe: EvalRecipe, run: Any, model: str) -> dict[str, Any]:
        models.append(model)
        return {"number": len(models)}

    monkeypatch.setattr(stage, "_measure", measure)
    return models


def evaluate(path: Path) -> dict[str, Any]:
    recipe = load_recipe(EvalRecipe, path, [f"run.output={path.parent}"])
    run_eval(recipe, path)
    return json.loads((recipe.run_directory / "summary.json").read_text())


def write_weights(run: Path, content: bytes) -> None:
    (run / "hf" / "model.safetensors").write_bytes(content)


def test_it_is_the_last_finished_run_of_any_stage(
    path: Path, measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"no finished SFT or RL or DPO run in .*; run 'agapo sft' first"):
        evaluate(path)
    runs = [finished_run(path.parent, stage, "tiny", age) for stage, age in (("sft", 30), ("rl", 20))]
    assert evaluate(path)["model"] == str(runs[1] / "hf")
    shown = capsys.readouterr().out
    assert f"eval: measures {runs[1] / 'hf'} (the last finished SFT or RL or DPO run" in shown
    assert f"Evaluated {runs[1] / 'hf'} in" in shown

    evaluate(path)
    assert len(measured) == 1, "the same model is not measured again"

    runs.append(finished_run(path.parent, "dpo", "tiny", 10))
    assert evaluate(path)["number"] == 2
    assert measured == [str(run / "hf") for run in runs[1:]]
    kept = (path.parent / "eval" / "mine" / "earlier.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in kept] == [1]
    assert str(runs[1] / "hf") in capsys.readouterr().out, "says whose figures are kept"


def test_a_model_made_anew_in_the_same_place_is_measured_anew(path: Path, measured: list[str]) -> None:
    run = finished_run(path.parent, "rl", "tiny", 20)
    for number, weights in enumerate((b"one", b"two", b"two"), start=1):
        write_weights(run, weights)
        assert evaluate(path)["number"] == min(number, 2)
    os.utime(run / "summary.json")
    assert evaluate(path)["number"] == 2, "the same weights give the same figures"


def test_the_same_weights_with_another_chat_template_are_measured_anew(path: Path, measured: list[str]) -> None:
    run = finished_run(path.parent, "rl", "tiny", 20)
    write_weights(run, b"one")
    for number, template in enumerate(("a", "b", "b"), start=1):
        (run / "hf" / "chat_template.jinja").write_text(template)
        assert evaluate(path)["number"] == min(number, 2)
