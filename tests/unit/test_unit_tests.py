"""The reward for programs: the public sets' rows as they are."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from agapo.errors import UserError
from rewards import unit_tests
from rewards.code_tests import job_tests, names_of
from rewards.unit_tests import check, score, share
from tests.sandboxed import needs_sandbox


def fenced(program: str, language: str = "python") -> str:
    return f"Here it is:\n```{language}\n{program}\n```\nIt runs in linear time."


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


def functional(name: str, inputs: list[Any], outputs: list[Any]) -> dict[str, Any]:
    return {"input_output": [json.dumps({"fn_name": name, "inputs": inputs, "outputs": outputs})]}


CASES = [
    {"input": "1 2\n", "output": "3\n", "testtype": "stdin"},
    {"input": "5 5", "output": "10", "testtype": "stdin"},
]
CALLED = [{"input": "1\n2", "output": "3", "testtype": "functional"}, {"input": "5\n5", "output": "10"}]


@needs_sandbox
@pytest.mark.parametrize(
    ("columns", "program", "passed"),
    [
        (functional("add", ["1\n2", "5\n5"], ["3", "10"]), RIGHT, 1.0),
        (functional("add", ["1\n2\n", "5\n\n5"], ["3", 10]), RIGHT, 1.0),
        (functional("add", ["1\n2", "5\n5"], ["3", "10"]), HALF, 0.5),
        (functional("add", ["1\n2"], ["[3]"]), RIGHT, 0.0),  # only APPS wraps values
        (functional("add", ['"a"\n"\\n"'], ['"a\\n"']), RIGHT, 1.0),
        (functional("add", ["'a'\n'b'", "True\nNone"], ["'ab'", "1"]), RIGHT, 0.5),
        (
            functional("f", ['{"a": [1.5, null]}\ntrue'], ['[true, {"a": [1.5, null]}]']),
            "def f(a, b): return b, a",
            1.0,
        ),
        (functional("Solution().add", [[1, 2]], [3]), "class Solution:\n    def add(self, a, b): return a + b", 1.0),
        ({"public_test_cases": [json.dumps(CASES[:1])], "private_test_cases": [CASES[1:]]}, MAIN, 1.0),
        ({"public_test_cases": [json.dumps(CASES)]}, "print(3)", 0.5),
        ({"public_test_cases": [CALLED], "metadata": ['{"func_name": "add"}']}, RIGHT, 1.0),
        ({"public_test_cases": [CALLED], "metadata": [{"func_name": "add"}]}, HALF, 0.5),
        ({"input_output": [{"inputs": "1 2", "outputs": "3"}]}, MAIN, 1.0),
    ],
)
def test_rows_of_livecodebench(columns: dict[str, Any], program: str, passed: float) -> None:
    assert one(share, program, columns) == passed
    assert one(score, program, columns) == float(passed == 1)


@needs_sandbox
def test_rows_of_leetcode_with_lists_of_nodes() -> None:
    """LeetCodeDataset's: the prompt is a prelude with helpers, which run where the tests are."""
    prelude = (
        "from typing import *\n\nclass ListNode:\n    def __init__(self, val=0, next=None):\n"
        "        self.val, self.next = val, next\n\n"
        "def chain(values) -> Optional[ListNode]:\n    head = now = ListNode(0)\n    for value in values:\n"
        "        now.next = ListNode(value)\n        now = now.next\n    return head.next\n\n"
        "def same(a, b):\n    while a is not None and b is not None:\n        if a.val != b.val: return False\n"
        "        a, b = a.next, b.next\n    return a is None and b is None\n"
    )
    test = "def check(candidate):\n    assert same(candidate(head=chain([1, 2, 3])), chain([3, 2, 1]))\n"
    columns: dict[str, Any] = {"prompt": [prelude], "test": [test], "entry_point": ["Solution().reversed"]}
    right = (
        "class Solution:\n    def reversed(self, head: Optional[ListNode]) -> Optional[ListNode]:\n"
        "        before = None\n        while head:\n            head.next, before, head = before, head, head.next\n"
        "        return before"
    )
    assert one(score, right, columns) == 1.0
    assert one(score, right.replace("return before", "return head"), columns) == 0.0
    assert one(score, right.replace("return before", "return ListNode(3)"), columns) == 0.0


TREE: dict[str, Any] = {
    "test_list": [["assert (height(root)) == 2", "assert (height(root.left)) == 1 "]],
    "test_setup_code": ["root = Node(1) \r\nroot.left = Node(2);  \r\nroot.right = Node(3)"],
    "code": [
        "class Node:\r\n\tdef __init__(self, data):\r\n\t\tself.data = data\r\n\t\tself.left = None\r\n"
        "\t\tself.right = None\r\ndef height(node):\r\n\treturn 1 + max(height(node.left), height(node.right)) if node"
        " else 0"
    ],
}
HEIGHT = "def height(n): return 1 + max(height(n.left), height(n.right)) if n else 0"
OWN_NODE = (
    "class Node:\n    def __init__(self, v, left=None, right=None): self.v, self.left, self.right = v, left, right\n"
)
TYPES: dict[str, Any] = {"test_list": [["assert drop((4, 5, 7.7), int) == [7.7]", "assert drop(('a', 1), str) == [1]"]]}
DROP = "def drop(items, kind): return [item for item in items if not isinstance(item, kind)]"
SUM: dict[str, Any] = {"test_list": [["assert sum(10, 15) == 6", "assert sum(100, 150) == 93"]]}
DIVISORS = (
    "def sum(a, b):\n    n = 0\n    for i in range(1, min(a, b)):\n        n += i * (a % i == b % i == 0)\n    return n"
)


@needs_sandbox
@pytest.mark.parametrize(
    ("columns", "program", "verdict"),
    [
        (TREE, HEIGHT, 1.0),
        (TREE, OWN_NODE + HEIGHT, 1.0),
        (TREE, "def height(n): return 2", 0.0),
        (TREE, "x = 1", 0.0),
        ({**TREE, "code": [""]}, OWN_NODE + HEIGHT, 1.0),
        ({**TREE, "code": [""], "test_setup_code": [OWN_NODE + TREE["test_setup_code"][0]]}, HEIGHT, 1.0),
        (TYPES, DROP, 1.0),
        (TYPES, "def drop(items, kind): return [i for i in items if kind is str or i == 7.7][-1:]", 1.0),
        (TYPES, "def drop(items, kind): return list(items)", 0.0),
        (SUM, DIVISORS, 1.0),
        (SUM, "def total(a, b): return 6", 0.0),
        ({**SUM, "code": ["def sum(a, b): pass"]}, DIVISORS, 1.0),
        (
            {"test_list": [["assert apply(len, 'abc') == 3", "assert apply(math.floor, 1.5) == 1"]]}
            | {"test_setup_code": ["import math"]},
            "def apply(f, x): return f(x)",
            1.0,
        ),
        (
            {"test_list": [["assert later(date(2024, 2, 28)) == date(2024, 2, 29)", "assert kind_of(3) is int"]]}
            | {"test_setup_code": ["from datetime import date"]},
            "from datetime import timedelta\ndef later(day): return day + timedelta(1)\ndef kind_of(x): return type(x)",
            1.0,
        ),
    ],
)
def test_tests_that_hand_over_types_and_objects(columns: dict[str, Any], program: str, verdict: float) -> None:
    assert one(score, program, columns) == verdict


def test_a_class_that_is_the_exercise_is_not_given_away() -> None:
    stack = "class Stack:\n    def __init__(self): self.a = []\n    def push(self, x): self.a.append(x)"
    row = {"test_list": ["assert s.a == []"], "test_setup_code": "s = Stack()", "code": stack}
    assert "class" not in (job_tests(row) or {})["setup"]
    assert "class" not in (job_tests({**row, "test_setup_code": "", "test_list": ["assert Stack()"]}) or {})["setup"]


@pytest.mark.parametrize(
    ("tests", "setup", "names"),
    [
        (["assert add(1, 2) == 3"], "", {"add"}),
        (["assert set(parts(3)) == {1}", "assert sorted(others(3)) == []"], "", {"parts", "others"}),
        (["assert close(area(3), math.sqrt(2))"], "import math\ndef close(a, b): pass", {"area"}),
        (["assert sum(10, 15) == 6"], "", {"sum"}),
        (["from math import gcd\nassert lcm(2, 3) == gcd(6, 6)"], "", {"lcm"}),
        (["assert add(1, 2) =="], "", set()),
    ],
)
def test_what_a_program_has_to_define(tests: list[str], setup: str, names: set[str]) -> None:
    assert names_of(job_tests({"test_list": tests, "test_setup_code": setup}) or {}) == names


@needs_sandbox
def test_the_program_may_begin_with_imports_from_the_future() -> None:
    program = f"from __future__ import annotations\n{RIGHT}"
    assert one(score, program, HUMANEVAL) == 1.0
    assert one(score, program, {**MBPP, "test_setup_code": ["import math"]}) == 1.0


@needs_sandbox
@pytest.mark.parametrize("prompt", ["def add(a, b):\n", "Write a function that adds!", None])
def test_a_prompt_need_not_be_a_program(prompt: str | None) -> None:
    assert one(score, RIGHT, {**HUMANEVAL, "prompt": [prompt]}) == 1.0
    assert one(score, HALF, {**HUMANEVAL, "prompt": [prompt]}) == 0.0


@needs_sandbox
@pytest.mark.parametrize(
    ("mode", "before"), [(None, ""), (None, "\n"), ("non_reasoning", "\n\n"), ("reasoning", "So.</think>\n\n")]
)
@pytest.mark.parametrize("as_messages", [False, True])
@pytest.mark.parametrize(
    ("rest", "right"),
    [
        ("    c = a + b\n    return c", True),
        ("    return a + b\n", True),
        ("    if a:\n        return a + b\n    return b\n\n", True),
        ("    c = a - b\n    return c", False),
        (" def add(a, b):\n    c = a + b\n    return c", True),  # a space before a whole program says nothing
    ],
)
def test_the_rest_of_a_program_needs_no_fence(
    rest: str, right: bool, before: str, mode: Any, as_messages: bool
) -> None:
    completion = [{"role": "assistant", "content": before + rest}] if as_messages else before + rest
    assert score([""], [completion], **HUMANEVAL, mode=[mode]) == [float(right)]


@needs_sandbox
def test_code_that_is_indented_as_a_whole_is_a_program() -> None:
    assert one(score, "    def add(a, b):\n        return a + b", MBPP) == 1.0
    assert one(score, "    return a + b", MBPP) == 0.0


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
        {"public_test_cases": [CALLED]},
        {"public_test_cases": [json.dumps(CASES)], "private_test_cases": ["eJxr"]},
    ],
)
def test_a_row_without_usable_tests_has_no_verdict(columns: dict[str, Any]) -> None:
    assert one(score, RIGHT, columns) is None
    assert one(share, RIGHT, columns) is None


@needs_sandbox
def test_tests_that_cannot_run_have_no_verdict() -> None:
    assert one(score, RIGHT, {"test_list": [["assert add(1, 2) =="]]}) is None
    assert one(score, RIGHT, functional("add", ["1\nb"], ["3"])) is None


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
