"""The recipes of docs/first_day.md, as they stand there, on a tiny model and rows of one's own."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.stages.conftest import ROOT, agapo_here

pytestmark = pytest.mark.usefixtures("shared_ray")

QUICK = ("model.dtype=float32", "tracking.wandb=disabled")


def recipe_of(stage: str, folder: Path) -> Path:
    """The page's recipe of a stage, copied and pasted into a file."""
    text = (ROOT / "docs/first_day.md").read_text()
    found = re.search(rf"^```yaml\n# {stage}\.yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found
    path = folder / f"{stage}.yaml"
    path.write_text(found[1])
    return path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def checked_and_run(stage: str, recipe: Path, *overrides: object) -> tuple[dict[str, Any], str]:
    """Return a run's summary and what it said, after a check without a warning but for the tiny model's context."""
    output = recipe.parent / "outputs"
    given = (recipe, *QUICK, f"run.output={output}", *overrides)
    checked = agapo_here("check", *given)
    assert checked.returncode == 0, checked.stderr
    done = agapo_here(stage, *given)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads((output / stage / stage / "summary.json").read_text()), done.stdout


def test_the_recipe_is_six_lines() -> None:
    text = (ROOT / "docs/first_day.md").read_text()
    found = re.search(r"^# sft\.yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found
    assert len(found[1].splitlines()) <= 6


def test_fine_tuning_on_a_file(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {n}", "output": f"{n} {n} {n}"} for n in range(200)]
    data = write(tmp_path / "mine.jsonl", rows)
    own = (f"model.path={tiny_model}", f"data.path={data}", "training.gpus_per_rank=0", "training.row_tokens=128")
    # A tiny random model moves only by large steps.
    summary, said = checked_and_run("sft", recipe_of("sft", tmp_path), *own, "training.learning_rate=5e-3")
    loss = summary["held_out"]["loss"]
    assert summary["held_out"]["dialogues"] == 10
    assert loss["after"] < 0.8 * loss["before"]
    assert "Held-out loss (10 dialogues)" in said
    assert (summary["before"], summary["after"]) == ({}, {})
    card = (tmp_path / "outputs/sft/sft/hf/README.md").read_text()
    assert f"10 held-out dialogues, in nats a token: {loss['before']:.4f} → {loss['after']:.4f}." in card
