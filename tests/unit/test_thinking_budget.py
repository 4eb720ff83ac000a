"""A bound on thinking: the tag is put behind so many tokens, is not trained, and the answer follows it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import pack_weights, weight_layout
from agapo.recipe.rollout import RolloutConfig
from agapo.rollouts.engine import Piece, PromptRequest, Request, SamplingParams, resumed
from agapo.rollouts.groups import sample_groups
from agapo.rollouts.thinking import CLOSING, ThinkingBudget
from agapo.schema import Group, Prompt, Response, Segment
from tests.builders import token_logprobs
from tests.unit.test_engine_protocol import END_IDS, engine_of, model_of

BUDGET, LONGEST = 6, 20
PROMPTS = ((7, 8, 9), tuple(range(100, 118)), (21,), (30, 31, 32))
MODES = ("reasoning", "reasoning", "non_reasoning", "reasoning")
REQUESTS = [
    PromptRequest(Prompt(id=f"p{n}", messages=(), mode=mode), ids)
    for n, (ids, mode) in enumerate(zip(PROMPTS, MODES, strict=True))
]
PARAMS = SamplingParams(group_size=5, max_new_tokens=LONGEST, seed=3, thinking_budget=BUDGET)
FREE = replace(PARAMS, thinking_budget=None)
TAG = build_tokenizer().encode(CLOSING, add_special_tokens=False)


def budgeted() -> ThinkingBudget:
    return ThinkingBudget(engine_of())


def finish(engine: ThinkingBudget) -> list[Piece]:
    pieces = []
    while engine.busy:
        pieces += engine.step()
    return pieces


def all_requests(params: SamplingParams = PARAMS) -> list[Request]:
    return [item for number, request in enumerate(REQUESTS) for item in request.responses(params, number)]


def forced(response: Response | Piece) -> bool:
    return any(not segment.trained for segment in response.segments)


def test_a_response_that_thinks_too_long_is_made_to_answer() -> None:
    groups, free = sample_groups(budgeted(), REQUESTS, PARAMS), sample_groups(engine_of(), REQUESTS, FREE)
    model, seen = model_of("exaone"), 0
    for group, other in zip(groups, free, strict=True):
        for response, plain in zip(group.responses, other.responses, strict=True):
            tokens = response.token_ids.tolist()
            assert len(tokens) <= LONGEST
            short = len(plain.token_ids) <= BUDGET and plain.finish == "stop"
            if group.prompt.mode == "non_reasoning" or short:
                assert tokens == plain.token_ids.tolist()
                assert response.trained.all()
                continue
            seen += 1
            assert tokens[:BUDGET] == plain.token_ids.tolist()[:BUDGET]
            assert tokens[BUDGET : BUDGET + len(TAG)] == TAG
            assert response.trained.tolist() == [
                not BUDGET <= place < BUDGET + len(TAG) for place in range(len(tokens))
            ]
            assert (response.finish == "stop") == (tokens[-1] in END_IDS)
            assert CLOSING in response.text
            with torch.no_grad():
                expected = token_logprobs(model, group.prompt_ids, tokens).numpy()
            assert response.logprobs[response.trained] == pytest.approx(expected[response.trained], abs=1e-4)
            assert len(response.logprobs) == len(tokens)
    assert seen >= 10


def test_it_is_the_same_whatever_the_pace() -> None:
    """The transformers engine repeats itself to the bit, so what goes on together must not depend on time."""

    def bits(groups: list[Group]) -> list[bytes]:
        return [response.logprobs.tobytes() for group in groups for response in group.responses]

    assert bits(sample_groups(budgeted(), REQUESTS, PARAMS)) == bits(sample_groups(budgeted(), REQUESTS, PARAMS))


def test_thinking_that_has_ended_is_left_alone() -> None:
    engine, tag = budgeted(), Segment(np.array(TAG), np.zeros(len(TAG)), trained=False)
    engine.add([replace(request, prefix=(tag,)) for request in all_requests()], PARAMS)
    for piece in finish(engine):
        assert [part.trained for part in piece.segments] == [False, True]


@pytest.mark.parametrize("steps", [3, BUDGET + 4])
def test_paused_ones_go_on_within_what_is_left_of_the_budget(steps: int) -> None:
    engine, requests = budgeted(), all_requests()
    engine.add(requests, PARAMS)
    pieces = [piece for _ in range(steps) for piece in engine.step()]
    paused = engine.abort([request.id for request in requests])
    assert not engine.busy
    assert {piece.finish for piece in paused} == {"paused"}
    by_id = {request.id: request for request in requests}
    other = budgeted()
    other.add([resumed(by_id[piece.id], piece) for piece in paused], PARAMS)
    pieces += finish(other)
    assert {piece.id for piece in pieces} == set(by_id)
    for piece in pieces:
        tokens = [token for segment in piece.segments for token in segment.token_ids.tolist()]
        assert len(tokens) <= LONGEST
        if MODES[piece.id.number] == "reasoning" and (piece.finish == "length" or len(tokens) > BUDGET + len(TAG)):
            assert tokens[BUDGET : BUDGET + len(TAG)] == TAG


def test_an_abort_of_those_that_think_leaves_those_at_their_budget() -> None:
    engine, requests = budgeted(), all_requests()
    long = replace(requests[1], thinking_budget=LONGEST - len(TAG) - 1)
    engine.add([requests[0], long], PARAMS)
    while not engine._added[0].cut:
        assert not engine.step()
    engine.abort([long.id])
    (piece,) = finish(engine)
    assert piece.id == requests[0].id
    assert forced(piece)


def test_new_weights_fall_between_thinking_and_answer() -> None:
    engine, other = budgeted(), model_of("exaone", seed=1)
    engine.add(all_requests()[:5], PARAMS)
    for _ in range(BUDGET):
        engine.step()
    engine.update_weights(pack_weights(other, weight_layout(other, torch.float32)), 1)
    for piece in filter(forced, finish(engine)):
        assert [part.weights_version for part in piece.segments if part.trained] == [0, 1]


def test_the_recipe_leaves_room_for_an_answer() -> None:
    with pytest.raises(ValueError, match="leaves no room for an answer"):
        RolloutConfig(thinking_budget=64, max_new_tokens=64)
