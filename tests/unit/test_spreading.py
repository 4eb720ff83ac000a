"""Actors move to hosts that have come back, and no further."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agapo.rollouts.spreading import moves

HOSTS = st.sampled_from("abcd")


@pytest.mark.parametrize(
    ("where", "room", "expected"),
    [
        (["a", "a"], {"a": 8, "b": 9}, [(1, "b")]),
        (["a", "b"], {"a": 9, "b": 9}, []),
        (["a", "a", "b"], {"a": 9, "b": 9, "c": 9}, [(1, "c")]),
        (["a", "a", "a", "a"], {"b": 9}, [(3, "b"), (2, "b")]),
        # A host without room, as one whose GPUs the learner has, takes nobody.
        (["a", "a", "a"], {"a": 0, "b": 0}, []),
        (["a", "a", "a", "a"], {"b": 1}, [(3, "b")]),
        # One more on the one than on the other is as even as it gets.
        (["a", "a", "b"], {"a": 1, "b": 1}, []),
        ([], {"a": 1}, []),
    ],
)
def test_moves(where: list[str], room: dict[str, int], expected: list[tuple[int, str]]) -> None:
    assert moves(where, room) == expected


@given(where=st.lists(HOSTS, max_size=20), room=st.dictionaries(HOSTS, st.integers(0, 6)))
def test_after_the_moves_no_host_with_room_has_two_fewer_than_another(where: list[str], room: dict[str, int]) -> None:
    after, left = list(where), dict(room)
    found = moves(where, room)
    for number, host in found:
        left[after[number]] = left.get(after[number], 0) + 1
        left[host] -= 1
        after[number] = host
    counts = Counter(after)
    assert all(amount >= 0 for amount in left.values())
    assert all(max(counts.values(), default=0) - counts[host] < 2 for host, amount in left.items() if amount)
    assert len({number for number, _ in found}) == len(found), "nobody moves twice"
