"""The reward for programs: which code is taken from an answer, and the public sets' rows as they are."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from agapo.errors import UserError
from rewards import unit_tests
from rewards.unit_tests import check, extract_code, score, share
from tests.sandboxed import needs_sandbox


def fenced(program: str, language: str = "python") -> str:
    return f"Here it is:\n```{language}\n{program}\n```\nIt runs in linear time."


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (fenced("x = 1"), "x = 1\n"),
        (fenced("x = 1", ""), "x = 1\n"),
        (fenced("x = 1", "py"), "x = 1\n"),
        (fenced("x = 1", "Python title=a"), "x = 1\n"),
        (fenced("x = 1") + fenced("x = 2"), "x = 2\n"),
        (fenced("x = 1") + fenced("$ python x.py", "bash"), "x = 1\n"),
        (fenced("ls", "bash"), ""),
        ("~~~python\nx = 1\n~~~", "x = 1\n"),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
        ("```python\n    return 1\n```", "    return 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("x = 1", "x = 1"),
        ("1. So:\n   ```python\n   x = 1\n   ```", "   x = 1\n"),
        ("", ""),
    ],
)
def test_the_last_fenced_block_is_the_program(answer: str, code: str) -> None:
    assert extract_code(answer) == code


MBPP: dict[str, Any] = {
    "test_list": [["assert add(1, 2) == 3", "assert add(5, 5) == 10", "assert add(-1, 1) == 0"]],
    "test_setup_code": [""],
}
HUMANEVAL: dict[str, Any] = {
    "test": ["def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 5) == 10\n"],
    "entry_point": ["add"],
    "prompt": ['from typing import Any\n\ndef add(a: Any, b: Any) -> Any:\n    """Add."""\n'],
}
STDIO: dict[str, Any] = {"input_output": [json.dumps({"inputs": ["1 2\n", ["5 5", ""]], "outputs": ["3\n", ["10"]]})]}
CALLS: dict[str, Any] = {
    "input_output": [{"fn_name": "add", "inputs": [[1, 2], [5, 5]], "outputs": [3, [10]]}]  # APPS wraps some
}
RIGHT, HALF, WRONG = "def add(a, b): return a + b", "def add(a, b): return 3", "def add(a, b): return a * a + b * b * b"
MAIN = "print(sum(map(int, input().split())))"


def one(function: Any, program: str, columns: dict[str, Any], **options: Any) -> float | None:
    return function([""], [fenced(program)], **columns, **options)[0]


@needs_sandbox
@pytest.mark.parametrize(
    ("columns", "program", "verdict", "passed"),
    [
        (MBPP, RIGHT, 1.0, 1.0),
        (MBPP, HALF, 0.0, 1 / 3),
        (MBPP, WRONG, 0.0, 0.0),
        (MBPP, "def plus(a, b): return a + b", 0.0, 0.0),
        (HUMANEVAL, RIGHT, 1.0, 1.0),
        (HUMANEVAL, "    return a + b", 1.0, 1.0),
        (HUMANEVAL, HALF, 0.0, 0.5),
        (STDIO, MAIN, 1.0, 1.0),
        (STDIO, "print(3)", 0.0, 0.5),
        (CALLS, RIGHT, 1.0, 1.0),
        (CALLS, "class Solution:\n    def add(self, a, b): return a + b", 1.0, 1.0),
        (CALLS, HALF, 0.0, 0.5),
    ],
)
def test_rows_of_the_public_sets(columns: dict[str, Any], program: str, verdict: float, passed: float) -> None:
    assert one(score, program, columns) == verdict
    assert one(share, program, columns) == pytest.approx(passed)


@needs_sandbox
def test_an_endless_loop_is_wrong_and_its_share_counts_what_was_not_reached() -> None:
    endless = "def add(a, b):\n    while a == 5: pass\n    return a + b"
    limits = {"cpu_s": 1, "wall_s": 3.0}
    assert one(score, endless, MBPP, **limits) == 0.0
    assert one(share, endless, MBPP, **limits) == pytest.approx(1 / 3)


@needs_sandbox
def test_the_tests_run_once_for_both_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Any] = []
    executor = unit_tests._executor(None, unit_tests.Limits(cpu_s=6, wall_s=8.0))
    monkeypatch.setattr(type(executor), "run", lambda self, job: runs.append(job) or unit_tests.Outcome())
    program = "def add(a, b): return a - b"
    one(score, program, MBPP)
    one(share, program, MBPP)
    assert len(runs) == 1


@needs_sandbox
def test_the_thinking_is_not_the_answer() -> None:
    wrong_then_right = f"{fenced(WRONG)}</think>{fenced(RIGHT)}"
    assert score([""], [wrong_then_right], **MBPP, mode=["reasoning"]) == [1.0]
    assert score([""], [fenced(RIGHT)], **MBPP, mode=["reasoning"]) == [0.0]
    assert score([""], [[{"role": "assistant", "content": fenced(RIGHT)}]], **MBPP) == [1.0]


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"test_list": [None]},
        {"test_list": [[]]},
        {"test": ["def check(c): pass"]},
        {"input_output": ["no json"]},
        {"input_output": ["[]"]},
        {"input_output": [{"inputs": ["1"], "outputs": []}]},
        {"input_output": [{"inputs": [], "outputs": []}]},
    ],
)
def test_a_row_without_usable_tests_has_no_verdict(columns: dict[str, Any]) -> None:
    assert one(score, RIGHT, columns) is None
    assert one(share, RIGHT, columns) is None


@needs_sandbox
def test_tests_that_cannot_run_have_no_verdict() -> None:
    assert one(score, RIGHT, {"test_list": [["assert add(1, 2) =="]]}) is None


def test_without_a_sandbox_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_tests, "problem", lambda: "bubblewrap is not installed")
    monkeypatch.setattr(unit_tests._own, "executors", {}, raising=False)
    with pytest.raises(UserError, match=r"bubblewrap is not installed.*executor"):
        check()
    with pytest.raises(UserError, match="bubblewrap"):
        one(score, RIGHT, MBPP, cpu_s=5)


def test_an_executor_that_is_not_there_is_said_before_the_run() -> None:
    with pytest.raises(UserError, match="does not answer"):
        check(executor="http://127.0.0.1:9")


@needs_sandbox
def test_humaneval_solutions_are_right_and_empty_bodies_wrong(real_data: Path) -> None:
    with gzip.open(real_data / "humaneval/HumanEval.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    columns = {name: [row[name] for row in rows] for name in ("test", "entry_point", "prompt")}
    right = [fenced(row["prompt"] + row["canonical_solution"]) for row in rows]
    empty = [fenced(row["prompt"] + "    pass\n") for row in rows]
    assert score([""] * 164, right, **columns) == [1.0] * 164
    assert score([""] * 164, empty, **columns) == [0.0] * 164
