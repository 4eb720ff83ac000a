"""README and docs stay true: commands are marked, recipes and files that they name exist, and overrides fit."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agapo.recipe import DPORecipe, EvalRecipe, RLRecipe, SFTRecipe, load_recipe
from tests.documented import COMMANDS, MARKS, PAGES, ROOT, TARGETS, fences


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_marked(page: Path) -> None:
    for mark, _ in fences(page):
        assert mark in MARKS


PROGRAMS = ("make", ".venv/bin/agapo", ".venv/bin/python", ".ci/run")
ELSEWHERE = ("python", "python3", "bash", "benchmarks/gpu_wheels.sh", ".venv/bin/ray", "sbatch", "kubectl")
"""What commands on other machines may begin with besides."""


@pytest.mark.parametrize(("page", "mark", "line"), COMMANDS)
def test_commands_name_what_exists(page: str, mark: str, line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word) or "make" in line]
    assert words[0] in (PROGRAMS + ELSEWHERE if mark == "needs-hardware" else PROGRAMS), line
    if words[0] == "make":
        assert words[1] in TARGETS
        check_make(dict(word.split("=", 1) for word in words[2:]), words[1])
    for word in words:
        if word.startswith("recipes/"):
            assert (ROOT / word).is_file()


def check_make(variables: dict[str, str], target: str) -> None:
    """The recipe loads with the overrides of ARGS."""
    kinds = {"sft": SFTRecipe, "rl": RLRecipe, "dpo": DPORecipe, "eval": EvalRecipe}
    if target in kinds:
        path = ROOT / variables.get("RECIPE", f"recipes/{target}/tiny.yaml")
        load_recipe(kinds[target], path, shlex.split(variables.get("ARGS", "")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_that_is_named_for_a_key_has_it(page: Path) -> None:
    text = page.read_text()
    for key, target in re.findall(r"`([a-z_]+\.[a-z_.]+)` \(\[[^]]*\]\(([\w/]+\.md)\)", text):
        assert key.rsplit(".", 1)[-1] in (page.parent / target).read_text(), f"{page.name}: {target} does not say {key}"


def test_the_annotated_tree_is_the_tree() -> None:
    tree = re.search(r"agapo/            the engine.*?```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree
    for name in re.findall(r"^  ([a-z_]+(?:/|\.py)) ", tree[0], re.MULTILINE):
        assert (ROOT / "agapo" / name).exists(), name


def test_the_example_of_a_reward_is_one() -> None:
    source = re.search(r"^```python\n(.*?)^```", (ROOT / "docs/rewards.md").read_text(), re.MULTILINE | re.DOTALL)
    assert source
    names: dict[str, Any] = {}
    exec(source[1], names)
    score = names["score"]
    texts = ["Yes, please.", "Please, please.</think>No.", "please"]
    assert score(["?"] * 3, texts, times=[1, 1, None], mode=["non_reasoning", "reasoning", "non_reasoning"]) == [
        1.0,
        0.0,
        None,
    ]
    assert score(["?"], texts[:1]) == [None]
    assert score(["?"], ["thanks"], times=[1], word="thanks", domain=["math"]) == [1.0]


def test_the_tour_leads_through_six_files_that_define_what_it_names() -> None:
    links = re.findall(r"\[`?([\w/.]+)`?\]\(\.\./([\w/.]+)\)", (ROOT / "docs/tour.md").read_text())
    files = {path for _, path in links}
    assert len(files) == 6
    assert len(links) > 12
    for name, path in links:
        text = (ROOT / path).read_text()
        assert name == path or re.search(rf"^ *(def|class) {name}\b", text, re.MULTILINE), f"{name} in {path}"


def test_the_site_is_built_without_a_warning_and_has_every_page(tmp_path: Path) -> None:
    for name in ("docs", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    built = subprocess.run([sys.executable, tmp_path / "docs/site.py"], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    site = tmp_path / "build/site"
    assert {path.parent.name for path in site.glob("*/index.html")} == {
        path.stem for path in (ROOT / "docs").glob("*.md")
    }
    listed = set(re.findall(r'"(\w+\.md)"', (ROOT / "docs/zensical.toml").read_text()))
    assert listed == {"index.md", *(path.name for path in (ROOT / "docs").glob("*.md"))}
    assert "dry-run" not in (site / "scaling/index.html").read_text()
