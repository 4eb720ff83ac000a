"""The engine protocol with the transformers engine: pauses, new weights in mid-response, aborts, groups."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from agapo.errors import UserError
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import PackedWeights, pack_weights, weight_layout
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import Piece, PromptRequest, Request, ResponseId, SamplingParams, resumed, uniforms
from agapo.rollouts.engines.transformers.engine import TransformersEngine
from agapo.rollouts.groups import GroupAssembly, sample_groups
from agapo.schema import Prompt, Segment
from tests.builders import tiny_exaone, tiny_gpt2, tiny_qwen, token_logprobs

END_IDS = [2, *range(10, 270, 20)]
PROMPTS = ((7, 8, 9), tuple(range(100, 118)), (21,), (30, 31, 32, 33, 34, 35, 36))
REQUESTS = [PromptRequest(Prompt(id=f"p{n}", messages=()), ids) for n, ids in enumerate(PROMPTS)]
PARAMS = SamplingParams(group_size=5, max_new_tokens=20, seed=3)
BUILDERS = {"exaone": tiny_exaone, "qwen": tiny_qwen, "gpt2": tiny_gpt2}


def model_of(kind: str, seed: int = 0) -> Any:
    model = BUILDERS[kind](seed).eval()
    model.generation_config.eos_token_id = END_IDS
    return model


def engine_of(kind: str = "exaone") -> TransformersEngine:
    return TransformersEngine(model_of(kind), build_tokenizer())


def all_requests(params: SamplingParams = PARAMS) -> list[Request]:
    assembly = GroupAssembly(REQUESTS, params)
    return [item for number in range(len(REQUESTS)) for item in assembly.missing(number)]


def finish(engine: TransformersEngine) -> list[Piece]:
    pieces = []
    while engine.busy:
        pieces += engine.step()
    return pieces


def tokens_of(pieces: Iterable[Piece]) -> dict[ResponseId, list[int]]:
    return {p.id: [token for part in p.segments for token in part.token_ids.tolist()] for p in pieces}


@cache
def undisturbed(kind: str = "exaone") -> dict[ResponseId, list[int]]:
    engine = engine_of(kind)
    engine.add(all_requests(), PARAMS)
    return tokens_of(finish(engine))


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("steps", [1, 6])
def test_new_weights_in_the_middle_of_responses(kind: str, steps: int) -> None:
    """Two segments with two versions; each one's log-probabilities are those of a model with its version's weights."""
    engine, models = engine_of(kind), {4: model_of(kind, seed=0), 5: model_of(kind, seed=1)}
    engine.version = 4
    layout = weight_layout(models[5], torch.float32)
    engine.add(all_requests(), PARAMS)
    pieces = [piece for _ in range(steps) for piece in engine.step()]
    engine.update_weights(pack_weights(models[5], layout), 5)
    assert engine.version == 5
    pieces += finish(engine)
    assert {piece.id for piece in pieces} == set(undisturbed(kind))
    two = [piece for piece in pieces if [part.weights_version for part in piece.segments] == [4, 5]]
    assert len(two) >= 10
    gaps = []
    for piece in pieces:
        tokens = tokens_of([piece])[piece.id]
        assert tokens[:steps] == undisturbed(kind)[piece.id][:steps]
        assert (piece.finish == "stop") == (tokens[-1] in END_IDS)
        assert piece.finish == "stop" or len(tokens) == PARAMS.max_new_tokens
        assert piece.text == build_tokenizer().decode(tokens[:-1] if piece.finish == "stop" else tokens)
        expected = {}
        for version, model in models.items():
            with torch.no_grad():
                expected[version] = token_logprobs(model, PROMPTS[piece.id.number], tokens).numpy()
        place = 0
        for part in piece.segments:
            own = slice(place, place + len(part.token_ids))
            assert part.logprobs == pytest.approx(expected[part.weights_version][own], abs=1e-4)
            place = own.stop
            with_the_others = expected[9 - part.weights_version][own]
            gaps.append(np.abs(part.logprobs - with_the_others).max())
    assert max(gaps) > 1e-2, "the bound can tell the other weights"


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_same_weights_in_the_middle_change_no_token(kind: str) -> None:
    """A response that goes on draws the random numbers that follow, and its prefix is computed as its prompt is."""
    engine = engine_of(kind)
    layout = weight_layout(engine.model, torch.float32)
    engine.add(all_requests(), PARAMS)
    pieces = [piece for _ in range(7) for piece in engine.step()]
    engine.update_weights(pack_weights(engine.model, layout), 0)
    assert tokens_of([*pieces, *finish(engine)]) == undisturbed(kind)


def test_weights_that_did_not_all_arrive_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, other = engine_of(), model_of("exaone", seed=1)
    named = PackedWeights.named
    monkeypatch.setattr(PackedWeights, "named", lambda self: list(named(self))[1:])
    weights = pack_weights(other, weight_layout(other, torch.float32))
    with pytest.raises(UserError, match=f"hand-over of weights 7 .*: {weights.layout.names[0]}"):
        engine.update_weights(weights, 7)


def test_weights_between_adding_and_the_first_step() -> None:
    engine, other = engine_of(), model_of("exaone", seed=1)
    layout = weight_layout(other, torch.float32)
    engine.add(all_requests(), PARAMS)
    engine.update_weights(pack_weights(other, layout), 1)
    pieces = finish(engine)
    assert {tuple(part.weights_version for part in piece.segments) for piece in pieces} == {(1,)}
    assert tokens_of(pieces) != undisturbed()


@pytest.mark.parametrize("steps", [0, 1, 6])
def test_aborted_responses_go_on_later_and_the_others_do_not_notice(steps: int) -> None:
    engine = engine_of()
    requests = {request.id: request for request in all_requests()}
    engine.add(list(requests.values()), PARAMS)
    pieces = [piece for _ in range(steps) for piece in engine.step()]
    gone = [item for item in requests if item.index in (0, 3)]
    paused = engine.abort(gone)
    assert {piece.finish for piece in paused} == {"paused"}
    assert {piece.id for piece in paused} == set(gone) - {piece.id for piece in pieces}
    assert all(len(tokens) == steps for tokens in tokens_of(paused).values())
    pieces += finish(engine)
    assert not {piece.id for piece in pieces} & {piece.id for piece in paused}
    engine.add([resumed(requests[piece.id], piece) for piece in paused], PARAMS)
    assert tokens_of([*pieces, *finish(engine)]) == undisturbed()


def test_aborting_everything_leaves_nothing() -> None:
    engine = engine_of()
    engine.add(all_requests()[:5], PARAMS)
    engine.step()
    engine.add(all_requests()[5:], PARAMS)
    engine.abort([request.id for request in all_requests()])
    assert not engine.busy


def test_what_is_added_later_is_sampled_by_itself() -> None:
    engine = engine_of()
    engine.add(all_requests()[:10], PARAMS)
    first = engine.step()
    engine.add(all_requests()[10:], PARAMS)
    assert tokens_of([*first, *finish(engine)]) == undisturbed()


def test_sleep_and_wake_keep_the_weights() -> None:
    engine = engine_of()
    engine.sleep()
    engine.wake()
    engine.add(all_requests(), PARAMS)
    assert tokens_of(finish(engine)) == undisturbed()


def test_a_stop_text_over_the_seam_of_two_segments_stops() -> None:
    """`ab` with the `a` in the prefix."""
    tokenizer, engine = build_tokenizer(), engine_of()
    a, b = (tokenizer(letter, add_special_tokens=False).input_ids for letter in "ab")
    request = Request(
        ResponseId("p", 0, 0), PROMPTS[0], 5, (Segment(np.array([50, *a]), np.array([-1.0] * (1 + len(a)))),)
    )
    bias = torch.zeros(len(tokenizer))
    bias[b] = 1e4
    hook = engine.model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + bias)
    engine.add([request], replace(PARAMS, stop=("ab",)))
    (piece,) = finish(engine)
    hook.remove()
    assert piece.finish == "stop"
    assert piece.text.endswith("ab")
    assert [len(part.token_ids) for part in piece.segments] == [1 + len(a), len(b)]


def test_random_numbers_of_a_prefix_are_used_up() -> None:
    request = all_requests()[0]
    prefix = (Segment(np.arange(7), np.zeros(7)),)
    going_on = replace(request, prefix=prefix, max_new_tokens=13)
    assert uniforms(going_on, 3).tolist() == uniforms(request, 3)[7:].tolist()


class TestGroupAssembly:
    def test_gives_a_group_out_once_in_the_order_of_its_responses(self) -> None:
        assembly = GroupAssembly(REQUESTS, PARAMS)
        pieces = [Piece(item.id, (), str(item.id.index), "stop") for item in assembly.missing(1)]
        assert [assembly.add(piece) for piece in reversed(pieces[1:])] == [None] * 4
        assert [item.id.index for item in assembly.missing(1)] == [0]
        assert len(assembly.missing(1, whole_group=True)) == PARAMS.group_size
        group = assembly.add(pieces[0])
        assert group is not None
        assert [response.text for response in group.responses] == list("01234")
        assert (group.prompt, group.prompt_ids) == (REQUESTS[1].prompt, PROMPTS[1])
        assert assembly.is_whole(1)
        assert not assembly.is_whole(0)
        assert assembly.missing(1) == []
        assert assembly.add(pieces[2]) is None, "a chunk that is done again"

    def test_a_prompt_may_be_asked_twice_in_a_call(self) -> None:
        twice = sample_groups(engine_of(), [REQUESTS[0], REQUESTS[0]], PARAMS)
        assert twice[0] == twice[1]


def test_the_settings_know_which_engine_is_repeatable() -> None:
    assert EngineSettings("m").repeatable is TransformersEngine.repeatable is True
    from agapo.rollouts.engines.vllm.engine import VLLMEngine

    assert EngineSettings("m", engine="vllm").repeatable is VLLMEngine.repeatable is False
