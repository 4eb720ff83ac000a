"""Rewards of every category in a run, the judge behind a local server, the difficulty filter, and scores of files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agapo.errors import UserError
from agapo.recipe import RLRecipe, load_recipe
from agapo.stages.filter import run_filter
from tests.fakes.openai_server import serving
from tests.sandboxed import needs_sandbox
from tests.stages.conftest import ROOT, agapo, agapo_here
from tests.stages.test_rl import steps_of

pytestmark = pytest.mark.usefixtures("shared_ray")

SMALL = (
    "steps=2",
    "prompts_per_step=4",
    "rollout.group_size=2",
    "rollout.max_new_tokens=24",
    "learner.ranks=1",
    "evaluation.every=0",
    "evaluation.test_size=8",
    "evaluation.validation_size=4",
    "evaluation.pass_at=0",
    "tracking.wandb=disabled",
)


@needs_sandbox
def test_tiny_mixed_goes_through_every_reward_and_reports_each_category(tiny_model: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "recipes/rl/tiny_mixed.yaml").read_text())
    with serving() as server:
        judge = {"base_url": server.url, "model": "judge", "cache_dir": str(tmp_path / "cache")}
        terms = content["reward"]["terms"]
        next(term for term in terms if term["name"] == "science")["args"] = {"judge": judge}
        terms.append({"name": "liked", "function": "rewards.preference:score", "args": {"judge": judge}, "weight": 0.0})
        content["model"] = {"path": str(tiny_model)}
        recipe = tmp_path / "mixed.yaml"
        recipe.write_text(yaml.safe_dump(content))
        done = agapo_here("rl", recipe, f"run.output={tmp_path}", "rollout.stop=[e]", *SMALL)
        assert done.returncode == 0, done.stderr
        assert server.prompts
    run = tmp_path / "rl" / "mixed"
    steps = steps_of(run)
    for name in ("math", "tests", "science", "constraints", "format", "language", "liked", "concise"):
        assert f"reward/{name}" in steps[1], name
    assert {f"reward/accuracy_{name}" for name in ("math", "code", "science", "instructions")} <= steps[1].keys()
    assert steps[1]["reward/errors"] == 0
    after = json.loads((run / "summary.json").read_text())["after"]
    assert {f"reasoning/{name}" for name in ("math", "code", "science", "instructions")} <= after.keys()
    assert "reasoning/code" in done.stdout


def test_the_filter_goes_on_where_it_was_stopped_and_rl_takes_what_it_writes(recipe_file: Path, tmp_path: Path) -> None:
    overrides = (
        f"run.output={tmp_path}",
        "reward.terms.0.function=tests.fakes.rewards:is_short",
        "rollout.max_new_tokens=8",
    )
    command = ("filter", recipe_file, "--samples", "4", *overrides)
    done = agapo_here(*command)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "filter" / "small"
    summary = json.loads((folder / "summary.json").read_text())
    kept = [json.loads(line) for line in (folder / "train.jsonl").open()]
    assert 0 < summary["kept"] == len(kept) < summary["prompts"]
    assert summary["solved"] == summary["prompts"] - summary["kept"] == summary["solve_rates"]["4 of 4"]
    assert all(0 <= row["solve_rate"] < 1 for row in kept)
    assert (folder / "solve_rates.png").read_bytes().startswith(b"\x89PNG")
    assert "kept" in done.stdout and "4 of 4" in done.stdout

    rates = (folder / "solve_rates.jsonl").read_text().splitlines(keepends=True)
    (folder / "solve_rates.jsonl").write_text("".join(rates[: len(rates) // 2 + 1]))  # in the middle of a chunk
    (folder / "summary.json").unlink()
    before = (folder / "train.jsonl").read_text()
    again = agapo_here(*command)
    assert again.returncode == 0, again.stderr
    assert "prompts are done" in again.stdout
    assert (folder / "train.jsonl").read_text() == before

    checked = agapo_here("check", recipe_file, "data.source=data.files:prompts", f"data.path={folder}", "data.args={}")
    assert checked.returncode == 0, checked.stderr
    assert "another recipe" in agapo_here("filter", recipe_file, "--samples", "2", *overrides).stderr


@pytest.mark.parametrize(
    ("drop_from", "drop_below", "message"),
    [(0.5, 0.5, "--drop-below 0.5 should be smaller"), (1.5, 0.0, "--drop-from: .*less than or equal to 1")],
)
def test_a_filter_that_could_keep_nothing_is_refused(
    recipe_file: Path, drop_from: float, drop_below: float, message: str
) -> None:
    recipe = load_recipe(RLRecipe, recipe_file)
    with pytest.raises(UserError, match=message):
        run_filter(recipe, recipe_file, samples=4, drop_from=drop_from, drop_below=drop_below)


RECIPE = """
stage: rl
model: {path: nowhere}
steps: 1
data: {source: "data.gsm8k:prompts"}
reward:
  terms:
    - {name: answer, function: "rewards.math_answer:score"}
    - {name: concise, function: "rewards.conciseness:score_group", weight: 0.5}
"""


def test_scores_of_a_file_with_groups(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    rows = [
        {"prompt_id": "a", "completion": r"\boxed{4}", "answer": "4"},
        {"prompt_id": "a", "completion": r"So it is \boxed{4}", "answer": "4"},
        {"prompt_id": "b", "text": r"I think so.</think>\boxed{5}", "columns": {"answer": "4"}, "reward": 1.0},
        {"completion": "No idea", "answer": None},
    ]
    (tmp_path / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = agapo_here(
        "score", tmp_path / "r.yaml", "--responses", tmp_path / "responses.jsonl", "--out", tmp_path / "out.jsonl"
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").open()]
    assert [row["reward"] for row in found] == [1.5, 1.0, 0.0, None]
    assert [row["correct"] for row in found] == [True, True, False, None]
    assert "4 responses" in done.stdout and "errors: 0" in done.stdout
    (tmp_path / "bad.jsonl").write_text('{"completion": "x"}\n[1]\n')
    bad = agapo_here("score", tmp_path / "r.yaml", "--responses", tmp_path / "bad.jsonl")
    assert bad.returncode == 1 and "bad.jsonl:2: should be an object" in bad.stderr


@needs_sandbox
def test_the_executor_serves_programs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agapo", "executor", "--port", "0", "--slots", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = server.stdout.readline().split(" ")[3]
        content = yaml.safe_load(RECIPE)
        content["reward"] = {
            "terms": [{"name": "tests", "function": "rewards.unit_tests:score", "args": {"executor": url}}]
        }
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
        row = {"completion": "```python\ndef f(): return 1\n```", "test_list": ["assert f() == 1"]}
        (tmp_path / "responses.jsonl").write_text(json.dumps(row))
        # Without bubblewrap on this side.
        done = agapo("score", tmp_path / "r.yaml", "--responses", tmp_path / "responses.jsonl", PATH="/nowhere")
        server.terminate()
    assert done.returncode == 0, done.stderr
    assert "1.000" in done.stdout
    refused = agapo_here("score", tmp_path / "r.yaml", "--responses", tmp_path / "responses.jsonl")
    assert refused.returncode == 1 and "does not answer" in refused.stderr
    assert os.linesep not in refused.stderr.strip()
