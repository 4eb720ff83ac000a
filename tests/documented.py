"""What README and docs tell people to type: every line of a marked bash block, and the Makefile's targets."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
MARKS = {"run", "dry-run", "needs-hardware"}
TARGETS = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
GATE = [line.strip() for line in (ROOT / ".ci/run").read_text().splitlines()]
"""What the gate runs as it stands there: `run` commands that take too long for a test."""


class Command(NamedTuple):
    page: str
    mark: str
    line: str


def fences(page: Path) -> list[tuple[str, str]]:
    """Return (info string, content) of each bash block."""
    return re.findall(r"^```bash ?([^\n]*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


COMMANDS = [
    Command(page.name, mark, line.partition(" #")[0].rstrip())
    for page in PAGES
    for mark, content in fences(page)
    for line in content.splitlines()
    if line and not line.startswith("#")
]
