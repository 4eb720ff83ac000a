"""Imports run one way, and what should be light stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEVELS = [
    {"errors", "signals", "hub", "schema", "resolve", "forking", "built_in"},
    {"recipe", "chat", "sandbox", "algorithm", "model", "cluster", "placement", "starter"},
    {"curation", "tracking"},
    {"rewarding", "rollouts", "learner", "reporting"},
    {"evaluation"},
    {"stages"},
    {"preflight"},
    {"cli", "library"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
APART = [("rollouts", "learner"), ("rewarding", "rollouts"), ("rewarding", "learner")]


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, at the top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def part_of(module: str) -> str | None:
    """`agapo.rollouts.engine` → `rollouts`."""
    pieces = module.split(".")
    return pieces[1] if pieces[0] == "agapo" and len(pieces) > 1 else None


def own_part(path: Path) -> str:
    return path.relative_to(ROOT / "agapo").parts[0].removesuffix(".py")


FILES = [path for path in sorted((ROOT / "agapo").rglob("*.py")) if own_part(path) not in ("__init__", "__main__")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_its_own_level_and_below(path: Path) -> None:
    own = own_part(path)
    for part in filter(None, map(part_of, imported_modules(path))):
        assert LEVEL[part] <= LEVEL[own], f"{path.name} imports agapo.{part}"
        assert (own, part) not in APART
        assert (part, own) not in APART


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_knows_no_task(path: Path) -> None:
    assert not {module.split(".")[0] for module in imported_modules(path)} & {"rewards", "data"}


@pytest.mark.parametrize("folder", ["rewards", "data"])
def test_tasks_import_little_of_the_engine(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        parts = {part_of(module) for module in imported_modules(path)} - {None}
        assert parts <= {"schema", "chat", "sandbox", "errors", "hub"}, path


@pytest.mark.parametrize(
    ("package", "holders"),
    [
        (
            "ray",
            {
                "cluster.py",
                "placement.py",
                "rollouts/dispatch.py",
                "rollouts/pool.py",
                "rewarding/cluster.py",
                "learner/rl/group.py",
                "learner/trl/ranks.py",
            },
        ),
        (
            "deepspeed",
            {
                "learner/rl/rank.py",
                "learner/deepspeed_config.py",
                "learner/checkpoint.py",
                "learner/background.py",
                "learner/on_disk.py",
            },
        ),
    ],
)
def test_ray_and_deepspeed_appear_only_where_they_belong(package: str, holders: set[str]) -> None:
    users = {
        str(path.relative_to(ROOT / "agapo"))
        for path in FILES
        if package in {module.split(".")[0] for module in imported_modules(path)}
    }
    assert users <= holders


def test_recipes_and_help_load_without_torch_and_ray() -> None:
    heavy = "('torch', 'ray', 'transformers')"
    code = f"import sys, agapo.cli, agapo.recipe; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
