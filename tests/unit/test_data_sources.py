"""Sources of the four categories: their rows, broken rows by file and line, and the real files."""

import base64
import json
import pickle
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agapo.errors import UserError
from data import bfcl, coding, constraints, files, humaneval, ifeval, math, mbpp, science, tiny_tasks
from rewards.code_tests import job_tests
from rewards.instructions import score as keeps
from rewards.instructions import unsupported
from rewards.science import score as is_right

Source = Callable[..., Iterator[dict[str, Any]]]
CHOICES = {"text": ["iron", "wood"], "label": ["A", "B"]}
CALLS = {"question": [[{"role": "user", "content": "Hi"}]], "function": [{"name": "f", "parameters": {"type": "dict"}}]}

PRIVATE = json.dumps([{"input": "3\n4", "output": "7", "testtype": "functional"}])


def packed(content: Any) -> str:
    """As LiveCodeBench publishes its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(content))).decode()


PACKED = packed(PRIVATE)

ROWS: list[tuple[Source, dict[str, Any], dict[str, Any]]] = [
    (math.prompts, {"problem": "1+1?", "answer": "2", "level": "Level 3"}, {"answer": "2", "level": "3"}),
    (math.prompts, {"problem": "1+1?", "solution": r"\boxed{2}"}, {"answer": r"\boxed{2}"}),
    (mbpp.prompts, {"text": "Add.", "test_list": ["assert add(1, 2) == 3"], "code": "def add"}, {"code": "def add"}),
    (
        mbpp.prompts,
        {"prompt": "Add.", "test_list": ["assert f(1)"], "test_imports": ["import math"], "test_setup_code": "x = 1"},
        {"test_setup_code": "import math\nx = 1"},
    ),
    (
        humaneval.prompts,
        {"task_id": "H/0", "prompt": "def f(x):\n", "entry_point": "f", "test": "def check(c): pass"},
        {"entry_point": "f", "prompt": "def f(x):\n"},
    ),
    (coding.prompts, {"question": "Add.", "input_output": '{"inputs": ["1"], "outputs": ["2"]}'}, {"domain": "code"}),
    (
        coding.prompts,
        {"problem": "Add.", "verification_info": {"test_cases": [{"input": "1", "output": "2", "fn_name": None}]}},
        {"input_output": '{"inputs": ["1"], "outputs": ["2"]}'},
    ),
    (
        coding.prompts,
        {"problem": "Add.", "input_output": {"inputs": "1 2", "outputs": "3"}},
        {"input_output": '{"inputs": ["1 2"], "outputs": ["3"]}'},
    ),
    (
        coding.prompts,
        {
            "question_content": "Add.",
            "question_id": "7",
            "metadata": '{"func_name": "add"}',
            "public_test_cases": '[{"input": "1\\n2", "output": "3", "testtype": "functional"}]',
            "private_test_cases": PACKED,
        },
        {"input_output": '{"inputs": ["1\\n2", "3\\n4"], "outputs": ["3", "7"], "fn_name": "add"}'},
    ),
    (science.prompts, {"question": "Metal?", "choices": CHOICES, "answerKey": "A"}, {"domain": "science"}),
    (
        science.prompts,
        {"question": "Metal?", "correct_answer": "iron", **{f"distractor{n}": f"wood{n}" for n in (1, 2, 3)}},
        {"language": "en"},
    ),
    (
        ifeval.prompts,
        {"prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {"instruction_id_list": ["punctuation:no_comma"]},
    ),
    (bfcl.prompts, {**CALLS, "ground_truth": []}, {"domain": "tool_use", "ground_truth": []}),
    (files.prompts, {"messages": [{"role": "user", "content": "Hi"}], "solve_rate": 0.5}, {"solve_rate": 0.5}),
]
IDS = [f"{source.__module__}-{number}" for number, (source, *_) in enumerate(ROWS)]


def in_folder(folder: Path, *rows: Any) -> Path:
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(("source", "row", "expected"), ROWS, ids=IDS)
def test_a_row(source: Source, row: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    (found,) = source("train", path=in_folder(tmp_path, row))
    assert found["messages"][-1]["role"] == "user"
    assert expected.items() <= found.items()


@pytest.mark.parametrize("broken", [{}, [1], {"question": 3}, {"problem": None, "messages": "x"}])
@pytest.mark.parametrize(("source", "row", "expected"), ROWS, ids=IDS)
def test_a_broken_row_is_named(source: Source, row: Any, expected: Any, broken: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl:2: "):
        list(source("train", path=in_folder(tmp_path, row, broken)))


def test_the_right_choice_keeps_its_letter() -> None:
    rows = [
        science._row(files.Row({"question": f"Q{n}?", "choices": CHOICES, "answerKey": "A"}, "train", n, "x"))
        for n in range(40)
    ]
    assert all(row["choices"][row["answer"]] == "iron" for row in rows)
    assert set(Counter(row["answer"] for row in rows)) == {"A", "B"}


def test_problems_without_tests_are_left_out_and_tests_are_bounded(tmp_path: Path) -> None:
    many = json.dumps({"inputs": list("123"), "outputs": list("246")})
    none = json.dumps({"inputs": [], "outputs": []})
    folder = in_folder(tmp_path, {"problem": "a", "input_output": many}, {"problem": "b", "input_output": none})
    (row,) = coding.prompts("train", path=folder, most_tests=2)
    assert json.loads(row["input_output"]) == {"inputs": ["1", "2"], "outputs": ["2", "4"]}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"input_output": {"fn_name": "add", "inputs": ["1\nb"], "outputs": ["3"]}}, r"'add' have 'b' .* not JSON"),
        ({"input_output": {"inputs": ["1", "2"], "outputs": ["3"]}}, "2 inputs and 1 outputs"),
        ({"public_test_cases": PRIVATE}, "no tests"),  # a function without its name
        ({"public_test_cases": PRIVATE, "private_test_cases": packed(PRIVATE)[:-8]}, "no tests"),
        ({"private_test_cases": packed(Path("x"))}, "no tests"),  # a class: it would be called
        ({"input_output": {"inputs": 3, "outputs": 4}}, "no tests"),
    ],
)
def test_tests_that_cannot_be_read_are_named_before_the_run(columns: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"train\.jsonl:1: .*{reason}"):
        list(coding.prompts("train", path=in_folder(tmp_path, {"problem": "Add.", **columns})))


@pytest.mark.parametrize(
    ("test", "handed"),
    [
        ("assert apply(lambda x: x + 1, 2) == 3", "lambda x: x + 1"),
        ("assert apply(function=lambda: 3) == 3", "lambda: 3"),
        ("def twice(x): return 2 * x\nassert apply(twice, 2) == 4", "twice"),
        ("assert sorted(parts(3), key=lambda x: -x) == [2, 1]", None),
        ("assert apply(double, 2) == 4 and apply(len, []) == 0", None),
        ("def twice(x): return 2 * x\nassert apply(double, 2) == twice(2)", None),
    ],
)
def test_functions_that_cannot_be_handed_over_are_named(test: str, handed: str | None, tmp_path: Path) -> None:
    row = {"text": "Apply.", "test_list": [test], "test_setup_code": "def double(x): return 2 * x"}
    source = mbpp.prompts("train", path=in_folder(tmp_path, row))
    if handed:
        with pytest.raises(UserError, match=rf"train\.jsonl:1: .*{re.escape(repr(handed))}.*test_setup_code"):
            list(source)
    else:
        assert len(list(source)) == 1


def test_a_class_whose_objects_are_handed_over_is_shown(tmp_path: Path) -> None:
    code = "class Leaf:\n    def __init__(self, n): self.n = n\n\ndef depth(leaf): return 'the solution'"
    row = {
        "text": "Depth?",
        "test_list": ["assert depth(leaf) == 1"],
        "test_setup_code": "leaf = Leaf(3)",
        "code": code,
    }
    (found,) = mbpp.prompts("train", path=in_folder(tmp_path, row))
    (question,) = found["messages"]
    assert "class Leaf:" in question["content"]
    assert "assert depth(leaf) == 1" in question["content"]
    assert "the solution" not in question["content"]
    assert found["test_setup_code"].startswith("class Leaf:")
    assert found["test_setup_code"].endswith("leaf = Leaf(3)")


def test_a_function_in_livecodebench_is_asked_for_with_its_beginning(tmp_path: Path) -> None:
    starter = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        "
    row = {"question_content": "Add.", "starter_code": starter, "metadata": '{"func_name": "add"}'}
    (found,) = coding.prompts("train", path=in_folder(tmp_path, {**row, "public_test_cases": PRIVATE}))
    assert "    def add(self, a: int, b: int) -> int:\n```" in found["messages"][0]["content"]
    assert "function `add`" in found["messages"][0]["content"]


def test_a_chat_file_needs_a_place() -> None:
    with pytest.raises(UserError, match=r"data\.path"):
        files.prompts("train")


@pytest.mark.parametrize("language", ["en", "ko", "es"])
def test_generated_constraints_can_all_be_judged_and_splits_differ(language: str) -> None:
    train, test = (list(constraints.prompts(split, size=150, languages=[language])) for split in ("train", "test"))
    assert all(unsupported(row["instruction_id_list"], row["kwargs"]) is None for row in train + test)
    assert len({row["messages"][0]["content"] for row in train + test}) == 300
    assert list(constraints.prompts("train", size=150, languages=[language])) == train
    assert {len(row["kwargs"]) for row in train} == {1, 2, 3}


def test_unknown_splits_languages_and_kinds() -> None:
    for source in (constraints.prompts, lambda split: tiny_tasks.prompts(split, kind="code")):
        with pytest.raises(ValueError, match="'train' or 'test'"):
            source("valid")
    with pytest.raises(UserError, match="languages: fr"):
        constraints.prompts("train", languages=["fr"])
    with pytest.raises(ValueError, match="kind should be"):
        tiny_tasks.prompts("train", kind="sport")


@pytest.mark.parametrize("kind", ["code", "science", "instructions"])
def test_tiny_tasks_are_solved_by_their_answers_and_not_by_careless_ones(kind: str) -> None:
    train, test = (list(tiny_tasks.prompts(split, kind=kind, size=200)) for split in ("train", "test"))
    questions = [{row["messages"][0]["content"] for row in rows} for rows in (train, test)]
    assert len(questions[0]) >= 150
    assert len(questions[1]) >= 20
    assert not questions[0] & questions[1]
    tasks = list(tiny_tasks._tasks("train", kind, 1, 60))
    for task, answer, values in ((t, a, v) for t in tasks for a, v in ((t.answer, (1.0,)), (t.careless, (0.0, 1.0)))):
        columns = {name: [value] for name, value in task.columns.items()}
        if kind == "science":
            assert is_right([""], [answer], **columns)[0] in values
        elif kind == "instructions":
            assert keeps([""], [answer], **columns) == [float(answer == task.answer)]
        else:
            assert job_tests(task.columns) is not None
    (dialogue,) = tiny_tasks.dialogues("train", kind=kind, size=1)
    assert dialogue["messages"][-1]["role"] == "assistant"


def everything(source: Source, path: Path, **args: Any) -> list[dict[str, Any]]:
    return [row for split in ("train", "test") for row in source(split, path=path, **args)]


@pytest.mark.parametrize(
    ("source", "file", "args", "count"),
    [
        (math.prompts, "math/math_train.jsonl.gz", {}, 7466),
        (math.prompts, "math/math500_test.jsonl", {}, 500),
        (humaneval.prompts, "humaneval/HumanEval.jsonl.gz", {}, 164),
        (ifeval.prompts, "ifeval/input_data.jsonl", {}, 541),
        (ifeval.prompts, "ifeval/es_input_data.jsonl", {"language": "es"}, 115),
        (ifeval.prompts, "ifeval/ko_kite_general.jsonl", {"language": "ko"}, 386),
        (ifeval.prompts, "ifeval/ko_kite_korean.jsonl", {"language": "ko"}, 50),
        (bfcl.prompts, "bfcl_simple/simple_python_100.jsonl", {}, 100),
    ],
)
def test_real_files(real_data: Path, source: Source, file: str, args: dict[str, Any], count: int) -> None:
    rows = everything(source, real_data / file, **args)
    assert len(rows) == count
    assert len({row["id"] for row in rows}) == count
