"""`python -m benchmarks.scaling`, small: it runs what it says it runs, and every part takes some time."""

from pathlib import Path

import pytest

from benchmarks.scaling import PARTS, draw, measure

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_ray")]


def test_it_measures_every_part_and_draws_them(tmp_path: Path) -> None:
    rows = [measure(actors, responses=256, rate=256) for actors in (2, 8)]
    assert [row["actors"] for row in rows] == [2, 8]
    for row in rows:
        assert row["wall_s"] > 0.5
        assert row["total"] == pytest.approx(sum(row[name] for name in PARTS), abs=0.5)
        assert row["loop"] > 0 and row["driver_ray"] > 0
    draw(rows, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    assert "<svg" in text and len(text) < 200_000
