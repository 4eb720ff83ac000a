"""docs/metrics.md says what every metric is that the code logs, and no other."""

import re
from pathlib import Path

import pytest

from agapo.tracking.metrics import PARTS, metric_of, page

ROOT = Path(__file__).parents[2]
KNOWN = [metric for part in PARTS.values() for metric in part]
GROUPS = sorted({metric.name.partition("/")[0] for metric in KNOWN})


def logged() -> set[str]:
    """Names in the sources, with `{…}` where an f-string has a part of the run's own."""
    sources = [path for path in (ROOT / "agapo").rglob("*.py") if path.name != "metrics.py" or path.parent.name == "rl"]
    name = re.compile(rf'"((?:{"|".join(GROUPS)})/[\w{{}}/]*[\w}}])"')
    return {re.sub(r"{\w+}", "{}", found) for path in sources for found in name.findall(path.read_text())}


def test_the_page_is_what_the_code_says() -> None:
    mend = "python -m agapo.tracking.metrics > docs/metrics.md"
    assert (ROOT / "docs/metrics.md").read_text() == page(), f"the page is an old one: {mend}"


@pytest.mark.parametrize("name", sorted(logged()))
def test_what_is_logged_has_a_meaning(name: str) -> None:
    metric = metric_of(name.replace("{}", "x"))
    assert metric
    assert re.sub(r"<\w+>", "{}", metric.name) == name


@pytest.mark.parametrize("metric", KNOWN, ids=lambda metric: metric.name)
def test_what_has_a_meaning_is_logged(metric) -> None:
    assert re.sub(r"<\w+>", "{}", metric.name) in logged()


def test_the_pattern_with_most_written_out_counts() -> None:
    names = {
        name: metric_of(name)
        for name in ("reward/accuracy_math", "reward/errors", "eval/reward", "eval/hard/reasoning")
    }
    assert {name: metric and metric.name for name, metric in names.items()} == {
        "reward/accuracy_math": "reward/accuracy_<domain>",
        "reward/errors": "reward/errors",
        "eval/reward": "eval/reward",
        "eval/hard/reasoning": "eval/<set>/<mode>",
    }
    assert metric_of("made/up") is None
