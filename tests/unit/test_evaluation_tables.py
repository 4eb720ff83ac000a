"""From answers to an evaluation's tables, and to the comparison of two, on numbers that can be counted by hand."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agapo.errors import UserError
from agapo.evaluation.answers import answered_in, keep, read_answered, rows_of, settled, tidy
from agapo.evaluation.tables import accuracy_figures, print_accuracy
from agapo.recipe.reward import RewardConfig
from agapo.reporting import are_evaluations
from agapo.schema import Group, Prompt, Response, Segment
from agapo.stages.eval.compare import compare_evaluations
from agapo.tracking.accuracy import draw_accuracy
from rewards import math_answer

REWARD = RewardConfig.model_validate({"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]})


def rows(name: str, said: Sequence[str], *, suite: str = "own", budget: int | None = None, **about: Any) -> list[Any]:
    """The lines of a question whose answer is 4, with what was said to it."""
    prompt = Prompt(name, ({"role": "user", "content": name},), columns={"answer": "4"}, **about)
    responses = [
        Response((Segment([1, 2], [0, 0]),), f"…</think>\\boxed{{{one}}}" if one else "…", "stop", correct=one == "4")
        for one in said
    ]
    group = Group(prompt, (1,), tuple(responses))
    return rows_of(group, suite, f"{name} {budget} {prompt.mode}", budget, settled(group, REWARD))


ANSWERS = [
    *rows("a", ["4", "4", "5", ""]),
    *rows("b", ["5", "5", "4", "4"], suite="other", language="ko"),
    *rows("a", ["4", "5", "5", "5"], budget=8),
    *rows("b", ["5", "5", "5", "5"], budget=8, suite="other", language="ko"),
]


def test_figures_of_several_answers() -> None:
    found = accuracy_figures(answered_in(ANSWERS))
    (overall,) = found["table"]
    assert (overall["questions"], overall["samples"], overall["all"]) == (2, 4, 0.5)
    # Of each question 2 of 4 are right: 1 − C(2, 2) / C(4, 2).
    assert [overall["pass"][k][0] for k in "124"] == pytest.approx([1 / 2, 5 / 6, 1])
    # a: 4 wins, b: a tie. In blocks of two: (4, 4) and (5), then (5, 5) and (4, 4).
    assert [overall["majority"][k][0] for k in "124"] == pytest.approx([1 / 2, (1 / 2 + 1 / 2) / 2, (1 + 1 / 2) / 2])
    assert overall["majority"]["1"][1:] == overall["interval"]
    assert {row["set"]: row["majority"]["4"][0] for row in found["sets"]} == {"own": 1.0, "other": 0.5}
    assert {row["language"]: row["all"] for row in found["languages"]} == {"en": 0.5, "ko": 0.5}
    assert [(row["budget"], row["all"]) for row in found["budgets"]] == [(8, 1 / 8), (None, 1 / 2)]
    console = Console(file=io.StringIO(), width=100)
    print_accuracy(found, console)
    assert all(text in console.file.getvalue() for text in ("maj@n", "Accuracy by set", "as it likes"))  # pyright: ignore
    assert [axes.get_title().split()[0] for axes in draw_accuracy(found).axes] == ["Accuracy,", "By", "By"]


def test_answers_are_whole_questions_once_each(tmp_path: Path) -> None:
    path, again = tmp_path / "answers.jsonl", rows("a", ["5", "5", "5", "5"])
    keep(path, ANSWERS[:6])
    path.write_bytes(path.read_bytes() + b'{"asked": "b')
    keep(path, again)
    (only,) = read_answered(path)
    assert only.correct == (False,) * 4, "b has but two of its four answers, and a was asked again"
    tidy(path, {"a None reasoning"})
    assert [json.loads(line) for line in path.open()] == json.loads(json.dumps(again))


def finished(folder: Path, lines: Sequence[Any], stage: str = "eval") -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(f"stage: {stage}\n")
    (folder / "summary.json").write_text(json.dumps({"finished": True, "model": folder.name}))
    keep(folder / "answers.jsonl", lines)
    return folder


def test_two_models_question_by_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    better = [*rows("a", ["4", "4", "4", "4"]), *rows("b", ["5", "5", "4", "4"], suite="other", language="ko")]
    alone = rows("c", ["4", "4", "4", "4"])
    first, second = finished(tmp_path / "one", ANSWERS), finished(tmp_path / "two", [*better, *alone])
    assert are_evaluations([first, second])
    compare_evaluations([first, second], tmp_path / "found.json")
    (found,) = json.loads((tmp_path / "found.json").read_text())["comparisons"]
    overall = found["rows"][0]
    assert (overall["questions"], overall["better"], overall["worse"]) == (2, 1, 0)
    assert overall["avg"][0] == pytest.approx(1 / 4)
    assert overall["pass@4"][0] == 0 and overall["maj@4"][0] == 0
    assert {row["name"]: row["avg"][0] for row in found["rows"][1:]} == {"own": 0.5, "other": 0.0, "en": 0.5, "ko": 0.0}
    # c, and both questions with a budget.
    assert found["asked_of_one_alone"] == 3
    assert "+25.0" in capsys.readouterr().out


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    one, trained = finished(tmp_path / "one", ANSWERS), finished(tmp_path / "rl", [], "rl")
    other = finished(tmp_path / "other", rows("c", ["4"]))
    with pytest.raises(UserError, match="rl is no evaluation, and another of the runs is"):
        are_evaluations([one, trained])
    with pytest.raises(UserError, match="other: no question was asked in the same mode as in"):
        compare_evaluations([one, other], None)
    (one / "summary.json").unlink()
    with pytest.raises(UserError, match="one: is not finished"):
        compare_evaluations([one, other], None)


def test_what_a_canonical_does_wrong_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_answer, "canonical", lambda prompts, completions, **_: completions[1:])
    with pytest.raises(UserError, match=r"rewards\.math_answer:canonical: gave 1 answers for 2 responses"):
        rows("a", ["4", "5"])
    monkeypatch.setattr(math_answer, "canonical", lambda prompts: [])
    with pytest.raises(UserError, match=r"rewards\.math_answer:canonical: raised TypeError: .*; see its code"):
        rows("a", ["4", "5"])


def test_a_reward_without_a_form_of_an_answer_has_no_majority() -> None:
    reward = RewardConfig.model_validate({"terms": [{"name": "r", "function": "rewards.instructions:score"}]})
    group = Group(Prompt("a", ({"role": "user", "content": "a"},)), (1,), (Response((), "4", "stop"),))
    (one,) = answered_in(rows_of(group, "own", "a", None, settled(group, reward)))
    assert one.answers is None
    assert accuracy_figures([replace(one, correct=(True,))])["table"][0]["majority"] == {}
