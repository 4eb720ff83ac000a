"""Software tasks: patches apply, gold programs pass and the buggy ones do not, files parse, public layouts."""

import json
import re
import sqlite3
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from agapo.errors import UserError
from data import software
from data.generated.software_files import unified_diff
from data.generated.software_projects import BUGS, draw_project
from rewards.unit_tests import extract_code
from rewards.unit_tests import score as passes
from tests.sandboxed import needs_sandbox


def question(row: dict[str, Any]) -> str:
    return row["messages"][0]["content"]


def answer(row: dict[str, Any]) -> str:
    return row["messages"][-1]["content"]


def block(text: str, language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert len(found) == 1
    return found[0]


@needs_sandbox
@pytest.mark.parametrize("kind", software.CHECKED)
def test_gold_programs_pass_in_the_sandbox(kind: str) -> None:
    for row in software.dialogues("train", size=12, kinds=[kind]):
        columns = {name: [row[name]] for name in ("test_list", "test_setup_code")}
        assert passes([""], [[row["messages"][-1]]], mode=[row["mode"]], **columns) == [1.0], question(row)


@needs_sandbox
@pytest.mark.parametrize("kind", software.CHECKED)
def test_the_gold_program_of_another_task_fails(kind: str) -> None:
    one, other = list(software.dialogues("train", size=2, kinds=[kind], reasoning=0, seed=3))
    columns = {name: [one[name]] for name in ("test_list", "test_setup_code")}
    assert passes([""], [answer(other)], **columns) == [0.0]


def run(program: str, tests: tuple[str, ...]) -> list[bool]:
    scope: dict[str, Any] = {}
    exec(program, scope)
    results = []
    for test in tests:
        try:
            results.append(bool(eval(test, scope)))
        except ZeroDivisionError:
            results.append(False)
    return results


def test_each_bug_breaks_a_test_and_its_mend_none() -> None:
    seen = set()
    for seed in range(150):
        project = draw_project(Random(seed))
        seen.add(project.bug.name)
        assert all(run(project.right, project.tests)), project
        assert not all(run(project.wrong, project.tests)), project
    assert seen == {bug.name for bug in BUGS}


def test_patches_apply(tmp_path: Path) -> None:
    for row in software.dialogues("train", size=25, kinds=["bug_patch"]):
        shown = dict(re.findall(r"`(\w+\.py)`\n```python\n(.*?)```", question(row), re.DOTALL))
        for name, text in shown.items():
            (tmp_path / name).write_text(text)
        diff = block(answer(row), "diff")
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=tmp_path, check=True)
        (changed,) = [name for name, text in shown.items() if (tmp_path / name).read_text() != text]
        assert f"b/{changed}" in diff


def test_a_patch_of_a_file_without_a_last_newline() -> None:
    assert unified_diff("f.py", "a\nb", "a\nc") == (
        "--- a/f.py\n+++ b/f.py\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n"
        "+c\n\\ No newline at end of file\n"
    )


def test_a_mended_project_is_in_one_split_in_all_its_forms() -> None:
    kinds = ["bug_fix", "bug_patch", "review"]
    issues = {split: set() for split in ("train", "test")}
    for split, rows in issues.items():
        for row in software.dialogues(split, size=400, kinds=["bug_fix", "bug_patch"]):
            rows.add(question(row).partition("\n\nGive ")[0])
    assert not issues["train"] & issues["test"]
    assert {row["task"] for row in software.dialogues("train", size=60, kinds=kinds)} == set(kinds)


def test_reviews_name_a_line_that_the_mend_changes() -> None:
    for seed in range(40):
        (row,) = software.dialogues("train", size=1, kinds=["review"], seed=seed)
        line = int(re.findall(r"Line (\d+), in `(\w+)`", answer(row))[0][0])
        lines = question(row).partition("```\n")[2].splitlines()
        assert lines[line - 1].startswith(f"{line:3} ")


def test_queries_by_sqlite_itself() -> None:
    for row in software.dialogues("train", size=60, kinds=["sql"], reasoning=0):
        scope: dict[str, Any] = {}
        exec(extract_code(answer(row)), scope)
        rows, expected = re.fullmatch(r"assert \[.*report\((\[.*?\])\)\] == (\[.*\])", row["test_list"][0]).groups()  # type: ignore[union-attr]
        table = re.findall(r"A table is (\w+)\((.*?)\)\. ", question(row))[0]
        query = re.findall(r'execute\("(select .*?)"\)', answer(row))[0]
        with sqlite3.connect(":memory:") as connection:
            connection.execute(f"create table {table[0]}({table[1]})")
            connection.executemany(f"insert into {table[0]} values (?, ?, ?)", eval(rows))
            assert connection.execute(query).fetchall() == eval(expected)


class Tags(HTMLParser):
    """Collects ids, labels and open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: set[str] = set()
        self.labels: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        self.fields |= {about["id"] or ""} if tag in ("input", "select") else set()
        self.labels |= {about["for"] or ""} if tag == "label" else set()
        self.open += [tag] if tag != "input" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_pages_workflows_and_styles_parse() -> None:
    for row in software.dialogues("train", size=120, kinds=["html", "workflow", "css"]):
        if row["task"] == "html":
            tags = Tags()
            tags.feed(block(answer(row), "html"))
            assert tags.open == [] and tags.fields == tags.labels and len(tags.fields) == 3
        elif row["task"] == "workflow":
            flow = yaml.safe_load(block(answer(row), "yaml"))
            versions = flow["jobs"]["test"]["strategy"]["matrix"]["python"]
            assert all(f'"{version}"' in question(row) and isinstance(version, str) for version in versions)
        else:
            css = block(answer(row), "css")
            assert css.count("{") == css.count("}") == 4


def in_folder(folder: Path, *rows: Any) -> Path:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


PATCH = "--- a/f.py\n+++ b/f.py\n@@ -1 +1 @@\n-a\n+b\n"


@pytest.mark.parametrize(
    ("content", "asked", "answered"),
    [
        ({"text": "The issue and files", "patch": PATCH}, "The issue and files", PATCH),
        ({"problem_statement": "It fails.", "repo": "o/r", "patch": PATCH}, "in the repository o/r. Answer", PATCH),
        (
            {"old_file": "f.py", "old_contents": "a\n", "new_contents": "b\n", "subject": "Use b"},
            "Use b\n\nChange",
            PATCH,
        ),
        ({"instruction": "Use b", "input": "a", "output": "b"}, "Use b\n\na", "b"),
    ],
)
def test_public_layouts(content: dict[str, Any], asked: str, answered: str, tmp_path: Path) -> None:
    (row,) = software.public("train", path=in_folder(tmp_path, content))
    assert asked in question(row)
    assert answer(row) in (answered, f"```diff\n{answered}```")
    assert (row["domain"], row["task"], row["mode"]) == ("code", "patch", "non_reasoning")
    assert row["place"].endswith("train.jsonl:1")


def test_rows_in_no_layout_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl:1: no chat"):
        list(software.public("train", path=in_folder(tmp_path, {"problem_statement": "It fails."})))
