"""The table of the way: runs with the same test alone, standard errors, and what makes two tests the same."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agapo.evaluation.questions import mark_of_test
from agapo.recipe.reward import RewardConfig
from agapo.recipe.rollout import RolloutConfig
from agapo.schema import Prompt
from agapo.tracking import before_after_table, lineage_of, lineage_table
from agapo.tracking.progress import percent
from tests.conftest import finished_run

REWARD: dict[str, Any] = {
    "terms": [{"name": "right", "function": "rewards.math_answer:score"}, {"name": "short", "function": "a:b"}]
}
QUESTIONS = [Prompt("a", ({"role": "user", "content": "1+1"},), columns={"answer": "2"})]


def entry(stage: str, mark: str | None, accuracy: float, **rewards: float) -> Mapping[str, Any]:
    found = {"questions": 400, "accuracy": accuracy, "tokens": 50.0, "tokens_correct": None, "thinks": 1.0}
    measures = {"reasoning": {**found, "rewards": rewards}}
    return {"run": "tiny", "stage": stage, "measures": measures, "test": mark and {"mark": mark}}


def printed(*entries: Mapping[str, Any], terminal: int | None = None) -> str:
    out = io.StringIO()
    lineage_table(entries, Console(file=out, width=terminal or 80, force_terminal=terminal is not None))
    return out.getvalue()


def mark(questions: Any = QUESTIONS, rollout: Mapping[str, Any] | None = None, **reward: Any) -> str:
    return mark_of_test(questions, RewardConfig(**{**REWARD, **reward}), RolloutConfig(**(rollout or {})))


@pytest.mark.parametrize(
    ("share", "of", "text"),
    [(0.5, 100, "50.0% ±5.0"), (0.9, None, "90.0%"), (1.0, 8, "100.0%"), (0.0, 8, "0.0%"), (None, 8, "–")],
)
def test_a_share_has_its_standard_error(share: float | None, of: int | None, text: str) -> None:
    assert percent(share, of) == text


def test_the_table_shows_runs_with_the_last_ones_test_and_names_the_others() -> None:
    text = printed({"model": "org/m"}, entry("sft", "x", 0.2), entry("rl", "y", 0.5), entry("dpo", "y", 0.8))
    rows = [line.split() for line in text.splitlines() if "reasoning" in line]
    assert rows == [
        ["rl", "tiny", "reasoning", "50.0%", "±2.5", "50.0", "–", "100.0%"],
        ["dpo", "tiny", "reasoning", "80.0%", "±2.0", "50.0", "–", "100.0%"],
    ]
    assert "Not shown: sft tiny, measured on other questions" in text
    assert "if correct: of the correct responses alone" in text


def test_runs_of_before_are_still_compared_with_each_other() -> None:
    text = printed(entry("sft", None, 0.2), entry("rl", None, 0.5))
    assert "sft tiny" in text and "rl tiny" in text and "Not shown" not in text


def test_what_is_not_noted_is_not_claimed() -> None:
    text = printed(entry("sft", None, 0.2), entry("rl", "x", 0.5), entry("dpo", "y", 0.8))
    other = "measured on other questions, by another verdict or with other limits"
    assert f"Not shown: rl tiny, {other}; sft tiny, whose test is not noted." in text
    assert "Not shown: rl tiny, since the last run's test is not noted." in printed(
        entry("rl", "x", 0.5), entry("dpo", None, 0.8)
    )


def test_a_narrow_terminal_has_the_table_without_terms() -> None:
    run = entry("rl", "x", 0.5, length=-3.25)
    assert "-3.25" in printed(run, terminal=100)
    narrow = printed(run, terminal=80)
    assert "-3.25" not in narrow
    assert next(line for line in narrow.splitlines() if "reasoning" in line).split()[:2] == ["rl", "tiny"]


def test_rewards_are_no_percentages() -> None:
    row = next(line for line in printed(entry("rl", "x", 0.5, length=-3.25)).splitlines() if "rl tiny" in line)
    assert row.split()[-1] == "-3.25"


def test_the_mark_follows_what_an_accuracy_depends_on() -> None:
    assert mark() == mark([replace(QUESTIONS[0], id="b")]), "an id is a name"
    assert mark() == mark(workers=7), "how many verifiers there are changes no verdict"
    others = [
        mark([replace(QUESTIONS[0], columns={"answer": "3"})]),
        mark([*QUESTIONS, *QUESTIONS]),
        mark(correct_at=0.5),
        mark(verdict="short"),
        mark(truncated="masked"),
        mark(rollout={"max_new_tokens": 7}),
    ]
    assert len({mark(), *others}) == 7


def test_the_test_goes_with_the_run_into_the_lineage(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "sft", "a", 1, test={"mark": "x"}, measures={"after": {"reasoning": {}}})
    assert lineage_of(run / "hf")[-1]["test"] == {"mark": "x"}


def test_the_table_before_and_after_has_standard_errors() -> None:
    console = Console(file=io.StringIO(), width=80)
    rows = before_after_table({"reasoning": 0.5}, {"reasoning": 0.9}, {"reasoning": 100}, console=console)
    assert rows == [("reasoning", "50.0% ±5.0", "90.0% ±3.0", "+40.0 points")]
