"""`agapo eval` from end to end: tables, files, a grid that is not green, and a finished evaluation once more."""

import json
from pathlib import Path

import pytest
import yaml

from agapo.errors import UserError
from agapo.preflight.check import check_recipe
from agapo.recipe import EvalRecipe, load_recipe
from agapo.stages.eval.run import run_eval
from tests.stages.conftest import agapo_here

pytestmark = pytest.mark.usefixtures("shared_ray")

QUESTIONS = {
    "model": {"path": "m"},
    "prompts": {"source": "a.b:c"},
    "reward": {"terms": [{"name": "answer", "function": "a.b:c"}]},
}
STOP = list("abcdefghijklmnopqrstuvwxyz")


@pytest.fixture
def recipe(tiny_model: Path, tmp_path: Path) -> Path:
    """Accuracy and needle test in seconds."""
    content = {
        "stage": "eval",
        "model": {"path": str(tiny_model)},
        "run": {"output": str(tmp_path)},
        "prompts": {
            "sources": {
                "sums": {"source": "data.arithmetic:prompts", "args": {"size": 64}, "weight": 3},
                "needles": {
                    "source": "tests.fakes.needles:needles",
                    "args": {"lengths": [8], "positions": [0.5], "per_cell": 6, "seed": 1},
                },
            }
        },
        "reward": {"terms": [{"name": "even", "function": "tests.fakes.length_reward:score"}], "workers": 1},
        "evaluation": {"test_size": 16, "samples": 2, "thinking_budgets": [4, 8], "chunk_prompts": 8},
        "needle": {
            "source": "tests.fakes.needles:needles",
            "lengths": [96, 160],
            "positions": [0, 1],
            "per_cell": 3,
            "max_new_tokens": 64,
            "reward": {
                "terms": [{"name": "never", "function": "tests.fakes.rewards:constant", "args": {"value": 0.0}}],
                "workers": 1,
            },
        },
        "rollout": {"max_new_tokens": 32, "stop": STOP, "threads": 1},
    }
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_both_suites_and_a_second_time(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = agapo_here("eval", recipe, "needle.reward.terms.0.args.value=1.0")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "eval" / "both"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["needle"] == {
        "green": True,
        "stop": True,
        "threshold": 0.9,
        "cells": 4,
        "red": [],
        "lowest": 1.0,
        "found": {"non_reasoning": 1.0},
    }
    table = {(row["mode"], row["domain"]): row for row in summary["accuracy"]["table"]}
    assert [name for _, name in table] == ["all", "long_context", "math"] * 2
    assert [row["questions"] for row in table.values()] == [16, 4, 12] * 2
    assert table["reasoning", "math"]["languages"].keys() == {"en"}
    assert table["reasoning", "long_context"]["languages"].keys() == {"en", "ko"}
    for mode, figures in summary["accuracy"]["modes"].items():
        mine = table[mode, "all"]
        parts = [table[mode, name] for name in ("math", "long_context")]
        assert mine["all"] == pytest.approx(sum(part["all"] * part["questions"] for part in parts) / 16)
        assert figures["accuracy"] == mine["all"]
        assert 1 <= figures["tokens"] <= 32
        assert mine["interval"][0] <= mine["all"] <= mine["interval"][1]
        assert mine["samples"] == (2 if mode == "reasoning" else 1), "greedy answers are all alike"
        assert mine["pass"]["1"][0] == pytest.approx(mine["all"])
        assert mine["pass"].get("2", [1])[0] >= mine["all"]
        assert mine["majority"] == {}, "the reward has no form of an answer"
    assert [row["budget"] for row in summary["accuracy"]["budgets"]] == [4, 8, None]
    assert (run / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    answers = [json.loads(line) for line in (run / "answers.jsonl").open()]
    assert len(answers) == 16 * (2 * 3 + 1)
    assert {row["set"] for row in answers} == {"sums", "needles"}
    assert (run / "needle.png").read_bytes().startswith(b"\x89PNG")
    assert "long_context" in done.stdout and "160 tokens" in done.stdout and "needle.png" in done.stdout

    (run / "needle.png").unlink()
    run_eval(load_recipe(EvalRecipe, recipe, ["needle.reward.terms.0.args.value=1.0"]), recipe)
    again = capsys.readouterr().out
    assert "long_context" in again and "160 tokens" in again
    assert not (run / "needle.png").exists()
    with pytest.raises(UserError, match="another recipe"):
        run_eval(load_recipe(EvalRecipe, recipe, ["needle.per_cell=2"]), recipe)


def test_a_stopped_evaluation_goes_on_behind_its_answers(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_recipe(EvalRecipe, recipe, ["needle=null"])
    run_eval(loaded, recipe)
    run = tmp_path / "eval" / "both"
    whole, summary = (run / "answers.jsonl").read_text(), json.loads((run / "summary.json").read_text())
    lines = whole.splitlines(keepends=True)

    # As a crash leaves it: a question has one of its two answers, and the next line is torn. What
    # another model said is no answer.
    other = {**json.loads(lines[0]), "asked": "another"}
    (run / "answers.jsonl").write_text("".join([json.dumps(other) + "\n", *lines[:33], lines[33][:40]]))
    (run / "summary.json").unlink()
    capsys.readouterr()
    # The first chunks are not asked anew, though another key has changed.
    run_eval(load_recipe(EvalRecipe, recipe, ["needle=null", "reward.workers=2"]), recipe)
    assert "measuring on 64 questions, 16 of which are answered" in capsys.readouterr().out
    assert (run / "answers.jsonl").read_text() == whole, "the same answers, and no others"
    assert json.loads((run / "summary.json").read_text())["accuracy"] == summary["accuracy"]


def test_a_grid_that_is_not_green_ends_with_an_error_each_time_after_its_files(recipe: Path, tmp_path: Path) -> None:
    overrides = ("prompts=null", "reward=null", "needle.green=1.0")
    done = agapo_here("eval", recipe, *overrides)
    assert done.returncode == 1
    named = "needle: 4 of 4 cells below 1: length 96 at 0 %: 0.00, length 96 at 100 %: 0.00, length 160 at"
    assert done.stderr.startswith(f"error: {named}") and done.stderr.count("\n") == 1
    with pytest.raises(UserError, match=named):
        run_eval(load_recipe(EvalRecipe, recipe, list(overrides)), recipe)
    stored = json.loads((tmp_path / "eval" / "both" / "needle.json").read_text())
    assert [cell["share"] for cell in stored["grid"]] == [0.0] * 4


def test_check_looks_at_names_and_context(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    check_recipe(recipe, [], schema_only=False)
    found = capsys.readouterr().out
    assert "4 cells × 3 prompts of up to 160 tokens" in found and "context of 256" in " ".join(found.split())
    with pytest.raises(UserError, match="exceed the model's context of 256"):
        check_recipe(recipe, ["needle.lengths=[1024]"], schema_only=False)
    check_recipe(recipe, ["needle.lengths=[1000]", "model.rope.factor=4"], schema_only=False)
    with pytest.raises(UserError, match="did you mean 'needles'"):
        check_recipe(recipe, ["needle.source=tests.fakes.needles:neddles"], schema_only=False)


def test_a_stretched_context_takes_longer_needles_and_a_red_grid_can_be_accepted(recipe: Path, tmp_path: Path) -> None:
    overrides = ("prompts=null", "reward=null", "needle.lengths=[600]", "needle.stop=false", "model.rope.factor=4")
    done = agapo_here("eval", recipe, *overrides)
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "eval" / "both" / "needle.json").read_text())
    assert stored["green"] is False and "✗" in done.stdout
    assert all(570 <= cell["tokens"][0] <= cell["tokens"][1] <= 600 for cell in stored["grid"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"model": {"path": "m"}, "prompts": {"source": "a.b:c"}},
            "'prompts' and 'reward' go together",
        ),
        ({"model": {"path": "m"}}, r"give questions \('prompts', with a 'reward'\), the 'needle' test, or both"),
        (
            {"model": {"path": "m", "start": "a.yaml"}, "needle": {"lengths": [8]}},
            "give 'path' .* or 'start'.*, not both",
        ),
        ({"model": {"rope": {"factor": 2}}, "needle": {"lengths": [8]}}, r"model\.rope: "),
        (
            {"model": {"path": "m"}, "needle": {"lengths": [8]}, "data": {"source": "a.b:c"}},
            r"data: an evaluation trains on nothing: give its questions as 'prompts'",
        ),
        ({"model": {"path": "m"}, "needle": {"lengths": [8], "postions": [0]}}, "did you mean 'positions'"),
        (
            QUESTIONS | {"evaluation": {"samples": 4, "modes": ["non_reasoning"]}},
            "greedy answers are all alike, and no mode that is asked .non_reasoning. samples; name one in 'sampling'",
        ),
        (QUESTIONS | {"evaluation": {"thinking_budgets": [64, 32]}}, "thinking_budgets: should be ascending"),
        (
            QUESTIONS | {"evaluation": {"thinking_budgets": [32], "modes": ["non_reasoning"]}},
            "thinking_budgets: nothing thinks without the mode 'reasoning'",
        ),
        (
            QUESTIONS | {"evaluation": {"thinking_budgets": [64]}, "rollout": {"max_new_tokens": 64}},
            r"evaluation\.thinking_budgets: 64 leaves no room for an answer in rollout\.max_new_tokens \(64\); lower",
        ),
        ({"model": {"start": "a.yaml", "rope": {"factor": 2}}, "needle": {"lengths": [8]}}, r"model\.rope: "),
    ],
)
def test_recipes_that_make_no_sense(content: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({"stage": "eval", **content}))
    with pytest.raises(UserError, match=message):
        load_recipe(EvalRecipe, path)
