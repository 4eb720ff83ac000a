"""The heat map says what the grid says, and its colours turn at the threshold."""

from pathlib import Path

import pytest
from matplotlib.patches import Rectangle

from agapo.tracking.heatmap import axes_of, colormap, draw_heatmap, needle_heatmap, tokens_label

GRID = {(1024, 0.0): 1.0, (1024, 1.0): 0.5, (4096, 0.0): 0.9, (4096, 1.0): 0.89}


def test_cells_say_their_percentage_and_red_ones_have_a_frame() -> None:
    axes = draw_heatmap({"non_reasoning": GRID}, 0.9).axes[0]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "100%",
        (1, 0): "90%",
        (0, 1): "50%",
        (1, 1): "89%",
    }
    frames = [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert sorted(frames) == [(-0.44, 0.56), (0.56, 0.56)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1k", "4k"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0%", "100%"]


@pytest.mark.parametrize("green", [0.5, 0.9, 0.95, 1.0])
def test_colours_turn_from_red_to_green_at_the_threshold(green: float) -> None:
    colours = colormap(green)
    for share in (0.0, 0.3, green - 0.01):
        red, leaf, _, _ = colours(share)
        assert red > leaf, share
    for share in (green, 1.0):
        red, leaf, _, _ = colours(share)
        assert leaf > red, share


def test_a_panel_for_each_mode_and_holes_stay_empty(tmp_path: Path) -> None:
    holed = {key: value for key, value in GRID.items() if key != (4096, 1.0)}
    figure = draw_heatmap({"reasoning": GRID, "non_reasoning": holed}, 1.0)
    assert [len(axes.texts) for axes in figure.axes[:2]] == [4, 3]
    needle_heatmap({"reasoning": GRID}, 0.9, tmp_path / "needle.png")
    assert (tmp_path / "needle.png").read_bytes().startswith(b"\x89PNG")


def test_labels() -> None:
    assert [tokens_label(length) for length in (500, 512, 1024, 1500, 3000, 131072, 130000)] == [
        "500",
        "512",
        "1k",
        "1,500",
        "3k",
        "128k",
        "130k",
    ]
    assert axes_of(GRID) == ([1024, 4096], [0.0, 1.0])
