"""Segments hold arrays: what they convert, when they are equal, and what crosses to another process."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from agapo.learner.rl.batching import examples_of
from agapo.schema import Batch, Group, Prompt, Response, Segment
from agapo.stages.dpo import pairing
from tests.builders import group

TURNS = (Segment((5, 6), (-0.1, -0.2)), Segment((7,), (0.0,), trained=False), Segment((8,), (-0.3,)))


def talk(*segments: Segment) -> Response:
    return Response(segments, text="", finish="stop")


def test_numbers_become_arrays_of_one_type():
    for segment in (TURNS[0], Segment(np.array([5, 6]), np.array([-0.1, -0.2])), Segment([5, 6], [-0.1, -0.2])):
        assert (segment.token_ids.dtype, segment.logprobs.dtype) == (np.int32, np.float32)
        assert segment == TURNS[0]
    nothing = Segment((), ())
    assert (nothing.token_ids.dtype, nothing.logprobs.dtype) == (np.int32, np.float32)


def test_joined():
    found = talk(*TURNS)
    assert found.token_ids.tolist() == [5, 6, 7, 8]
    assert found.logprobs.tolist() == np.float32([-0.1, -0.2, 0, -0.3]).tolist()
    assert found.trained.tolist() == [True, True, False, True]


@pytest.mark.parametrize("name", ["token_ids", "logprobs", "trained"])
def test_joined_of_none_has_the_type_of_some(name):
    some, none = getattr(talk(*TURNS), name), getattr(talk(), name)
    assert (len(none), none.dtype) == (0, some.dtype)


def test_records_are_equal_when_their_numbers_are():
    same = talk(*(Segment(item.token_ids.copy(), item.logprobs.copy(), item.trained) for item in TURNS))
    assert same == talk(*TURNS)
    first, *others = TURNS
    for change in ({"token_ids": [5, 9]}, {"token_ids": [5]}, {"logprobs": [-0.1, -0.3]}, {"trained": False}):
        assert talk(replace(first, **change), *others) != talk(*TURNS)
    assert first != "a segment"


def test_groups_survive_pickling():
    whole = replace(group(1, 0), responses=(talk(*TURNS), talk()))
    assert pickle.loads(pickle.dumps(whole)) == whole


def test_a_token_is_a_few_bytes_between_processes():
    """What keeps a rank from unpickling for half a second a million tokens: arrays, and one copy of a prompt."""
    prompt, tokens, size = 3000, 2000, 8
    response = talk(Segment(np.arange(tokens), -np.arange(tokens) / 7))
    asked = Group(Prompt("p", ()), tuple(range(prompt)), (response,) * size)
    (zeros,) = (((0.0,) * size,),)
    examples = examples_of(Batch((asked,), zeros, zeros, size))
    # int32, float32 and bool a response token; int32 a prompt token of the group.
    numbers = size * tokens * 9 + prompt * 4
    assert len(pickle.dumps(examples)) < numbers + 1000 * size


def test_responses_file_has_plain_numbers():
    """JSON as before arrays: integers, and the sum in double precision of what float32 holds."""
    row = pairing._row(Prompt("p", ({"role": "user", "content": "?"},)), 0, talk(*TURNS))
    written = json.loads(json.dumps(row))
    assert written["token_ids"] == [5, 6, 7, 8]
    assert written["tokens"] == 4
    assert written["logprob"] == sum(float(np.float32(value)) for value in (-0.1, -0.2, 0.0, -0.3))
