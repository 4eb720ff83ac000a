"""Shorter is better among the correct responses of a group, and only there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.conciseness import score_group


@pytest.mark.parametrize(
    ("lengths", "scores", "expected"),
    [
        ([10, 20, 30], [1, 1, 1], [1.0, 0.5, 0.0]),
        ([10, 20, 30], [0, 1, 1], [0.0, 1.0, 0.0]),
        ([5, 20, 40, 60], [0, 1, 1, 1], [0.0, 1.0, 0.5, 0.0]),
        ([10, 10], [1, 1], [1.0, 1.0]),
        ([10, 99], [1, 0], [1.0, 0.0]),
        ([10, 20], [0, None], [0.0, 0.0]),
        ([10, 20], [0.9, 1], [0.0, 1.0]),
    ],
)
def test_values(lengths, scores, expected):
    assert score_group("", ["x" * length for length in lengths], scores) == expected


def test_below_the_floor_shorter_is_not_better():
    assert score_group("", ["x" * 10, "x" * 50, "x" * 150], [1, 1, 1], floor=50) == [1.0, 1.0, 0.0]


def test_thinking_counts():
    thinks = [{"role": "assistant", "content": "4", "reasoning_content": "a long thought"}]
    assert score_group("", [thinks, "4"], [1, 1]) == [0.0, 1.0]


@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=1, max_size=8), st.randoms())
def test_the_order_of_the_group_does_not_matter(items, random):
    values = score_group("", ["x" * length for length, _ in items], [float(right) for _, right in items])
    pairs = list(zip(items, values, strict=True))
    random.shuffle(pairs)
    again = score_group("", ["x" * item[0] for item, _ in pairs], [float(item[1]) for item, _ in pairs])
    assert again == [value for _, value in pairs]
    assert all(value is not None and 0 <= value <= 1 for value in values)
    assert not any(value for (_, right), value in zip(items, values, strict=True) if not right)
