"""`agapo score` on what a run wrote, and on what only meets errors."""

import json
from pathlib import Path
from typing import Any

import pytest

import agapo
from agapo.errors import UserError
from agapo.recipe import RLRecipe, load_recipe
from agapo.schema import Group, Prompt
from agapo.stages.score import as_groups, score_file
from agapo.tracking import MetricsLogger, RunDirectory
from data.arithmetic import prompts
from tests.builders import response

RECIPE = """
stage: rl
model: {path: nowhere}
steps: 1
data: {source: "data.arithmetic:prompts", args: {size: 40}}
evaluation: {test_size: 8, validation_size: 8}
reward:
  workers: 1
  terms: [{name: answer, function: "rewards.math_answer:score"}]
tracking: {wandb: disabled}
"""

OF_AN_EVALUATION = """
stage: eval
model: {path: nowhere}
prompts: {source: "data.arithmetic:prompts"}
reward:
  workers: 1
  terms: [{name: answer, function: "rewards.math_answer:score"}]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


def write_rollouts(recipe: Path, rows: list[dict[str, Any]], output: Path) -> Path:
    """Have a run write right answers to the rows, as the RL loop does: a stop, and one that was cut."""
    loaded = load_recipe(RLRecipe, recipe, [f"run.output={output}"])
    with RunDirectory.open(loaded, recipe) as run:
        logger = MetricsLogger(run, loaded, None, False)
        for step, row in enumerate(rows, start=1):
            columns = {name: row[name] for name in row if name not in ("id", "messages")}
            asked = Prompt(row["id"], tuple(row["messages"]), mode="non_reasoning", columns=columns)
            text = rf"\boxed{{{row['answer']}}}"
            said = (response(1.0, text=text), response(0.0, text=text, finish="length"))
            logger.log_rollouts(step, [Group(asked, (), said)], visits=[0])
        logger.close()
        return run.rollouts


def test_a_runs_rollouts_are_scored_as_in_the_run(recipe: Path, tmp_path: Path) -> None:
    rows = list(prompts("train", size=40))[:4]
    rollouts = write_rollouts(recipe, [*rows, rows[0]], tmp_path)
    assert "answer" not in json.loads(rollouts.read_text().splitlines()[0])
    score_file(recipe, [], rollouts, tmp_path / "out.jsonl")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").open()]
    assert [row["reward"] for row in found] == [1.0, 0.0] * 5
    assert not any(row["reward_error"] for row in found)


def test_rollouts_of_another_data_set_are_refused_by_line(recipe: Path, tmp_path: Path) -> None:
    foreign = {"id": "gsm8k/1", "messages": [{"role": "user", "content": "?"}], "answer": "1"}
    rollouts = write_rollouts(recipe, [foreign], tmp_path)
    with pytest.raises(UserError, match=r"rollouts.jsonl:1: the prompt 'gsm8k/1' is not in the recipe's data"):
        score_file(recipe, [], rollouts)


def test_errors_alone_are_no_success(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bare.jsonl").write_text('{"completion": "1"}\n{"completion": "2"}\n')
    with pytest.raises(UserError, match=r"every response met an error; .*answer"):
        score_file(recipe, [], tmp_path / "bare.jsonl")
    assert "errors: 2" in capsys.readouterr().out


def test_scores_come_in_the_order_of_the_lines(recipe: Path, tmp_path: Path) -> None:
    said = [("a", "1"), ("b", "5"), ("a", "2"), ("b", "6"), ("a", "1")]
    answers = {"a": "1", "b": "6"}
    rows = [{"prompt_id": name, "completion": rf"\boxed{{{text}}}", "answer": answers[name]} for name, text in said]
    (tmp_path / "given.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe.write_text(OF_AN_EVALUATION)
    score_file(recipe, [], tmp_path / "given.jsonl", tmp_path / "out.jsonl")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").open()]
    assert [row["completion"] for row in found] == [row["completion"] for row in rows]
    assert [row["reward"] for row in found] == [1.0, 0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"answer": "2"}, r"rows: row 2: column 'answer' is another than in row 1, which has the same prompt_id; give"),
        ({"prompt": "1+1"}, r"rows: row 2: column 'prompt' is another than in row 1"),
        ({"mode": "thinking"}, r"rows: row 2: column 'mode' is 'thinking'; should be 'reasoning' or 'non_reasoning'"),
    ],
)
def test_rows_that_cannot_be_judged_together_are_refused(recipe: Path, other: dict[str, Any], says: str) -> None:
    row = {"prompt_id": "a", "completion": "1", "answer": "1"}
    with pytest.raises(UserError, match=says):
        agapo.score(recipe, [row, row | other])


def test_answers_to_a_set_are_judged_by_its_rows(recipe: Path, tmp_path: Path) -> None:
    """The set's row has an id of the data's, and another answer."""
    mine = next(iter(prompts("test", size=40)))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/test.jsonl").write_text(json.dumps(mine | {"answer": "7"}))
    sets = f"evaluation.sets={{one: {{source: 'data.files:prompts', path: {tmp_path / 'set'}}}}}"
    asked = {"prompt_id": mine["id"], "step": 0, "mode": "non_reasoning", "text": "7", "weights_versions": [0]}
    rows = [(number, f"row {number}", asked | {"set": name}) for number, name in enumerate(["validation", "one"])]
    groups, numbers = as_groups(rows, load_recipe(RLRecipe, recipe, [sets]))
    assert [group.prompt.columns["answer"] for group in groups] == [mine["answer"], "7"]
    assert numbers == [0, 1]
    with pytest.raises(UserError, match=r"row 1: the prompt '.*' is not in the set 'one' of the recipe"):
        as_groups(rows, load_recipe(RLRecipe, recipe))


def test_a_shaped_reward_is_seen_to_be_correct_or_not(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.jsonl").write_text('{"completion": "1", "answer": "1"}\n{"completion": "2", "answer": "1"}\n')
    score_file(recipe, ["reward.correct_at=2"], tmp_path / "two.jsonl")
    assert "correct: 0 of 2 (reward.correct_at 2)" in capsys.readouterr().out
    score_file(recipe, [], tmp_path / "two.jsonl")
    assert "correct: 1 of 2 (reward.correct_at 1)" in capsys.readouterr().out
