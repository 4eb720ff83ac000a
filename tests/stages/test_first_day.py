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


def test_preference_learning_on_rows(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}", "chosen": f"{n}", "rejected": f"no {n}, no"} for n in range(64)]
    data = write(tmp_path / "pairs.jsonl", rows)
    own = (f"model.path={tiny_model}", f"pairs.rows.path={data}", "training.gpus_per_rank=0")
    moving = ("training.learning_rate=1e-3", "training.warmup_steps=0", "training.epochs=3")
    summary, said = checked_and_run("dpo", recipe_of("dpo", tmp_path), *own, *moving)
    assert (summary["pairs"]["pairs"], summary["pairs"]["by_kind"]) == (64, {"given": 64})
    assert [item["guard"] for item in summary["guards"]] == ["chosen less likely, nats a token"]
    assert "64 pairs (64 given) from rows" in said
    assert "Accuracy, lengths and modes were not guarded" in said
    lines = [json.loads(line) for line in (tmp_path / "outputs/dpo/dpo/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["pairs/margin"] > lines[0]["pairs/margin"]


@pytest.mark.slow
def test_rows_have_the_guards_of_sampled_pairs_where_there_are_questions(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}", "chosen": f"{n}", "rejected": f"no {n}, no"} for n in range(32)]
    data = write(tmp_path / "pairs.jsonl", rows)
    questions = (
        "data={source: data.arithmetic:prompts, args: {size: 32}}",
        "reward={terms: [{name: even, function: tests.fakes.length_reward:mostly}], workers: 1}",
        "rollout={max_new_tokens: 8, threads: 1}",
        "evaluation={test_size: 8}",
    )
    own = (f"model.path={tiny_model}", f"pairs.rows.path={data}", "training.gpus_per_rank=0", *questions)
    summary, _ = checked_and_run("dpo", recipe_of("dpo", tmp_path), *own)
    guards = {item["guard"].partition(",")[0] for item in summary["guards"]}
    assert guards == {"accuracy lost", "length grown", "mode not obeyed", "chosen less likely"}
    assert set(summary["before"]) == {"reasoning", "non_reasoning"}


def test_reinforcement_learning_on_a_set_by_name(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for split, size in (("train", 64), ("test", 16)):
        write(folder / f"{split}.jsonl", [{"question": f"{split} {n}+1", "answer": f"#### {n}"} for n in range(size)])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - {split: train, path: train.jsonl}\n  - {split: test, path: test.jsonl}\n---\n"
    )
    small = (
        f"model.path={tiny_model}",
        f"data.args.name={folder}",
        "data.args.streaming=true",
        "steps=1",
        "prompts_per_step=2",
        "rollout={group_size: 2, max_new_tokens: 8, threads: 1}",
        "learner={threads: 1}",
        "evaluation={every: 0, test_size: 4, validation_size: 4}",
    )
    summary, _ = checked_and_run("rl", recipe_of("rl", tmp_path), *small)
    assert summary["steps"] == 1
