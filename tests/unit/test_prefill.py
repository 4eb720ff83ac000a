"""A prompt that goes through the model in pieces gives what it gives as a whole."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedModel

from agapo.model.tokenizer import build_tokenizer
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.engines.transformers import engine as transformers_engine
from agapo.rollouts.engines.transformers.engine import TransformersEngine
from agapo.rollouts.groups import sample_groups
from agapo.schema import Prompt
from tests.builders import tiny_exaone, tiny_gpt2, tiny_qwen


@pytest.mark.parametrize("build", [tiny_exaone, tiny_qwen, tiny_gpt2])
@pytest.mark.parametrize("columns", [1, 3, 7, 40])
def test_pieces_are_the_whole(
    build: Callable[[], PreTrainedModel], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Padding of the short rows fills whole pieces; pieces are shorter and longer than the sliding window (5).
    requests = [
        PromptRequest(Prompt(id=str(size), messages=()), tuple(range(20, 20 + size))) for size in (2, 11, 30, 31)
    ]
    params = SamplingParams(group_size=2, max_new_tokens=12, seed=3)
    engine = TransformersEngine(build(), build_tokenizer())
    whole = sample_groups(engine, requests, params)
    monkeypatch.setattr(transformers_engine, "PREFILL_COLUMNS", columns)
    pieces = sample_groups(engine, requests, params)
    for one, other in zip(whole, pieces, strict=True):
        for left, right in zip(one.responses, other.responses, strict=True):
            assert left.token_ids.tolist() == right.token_ids.tolist()
            assert left.logprobs == pytest.approx(right.logprobs, abs=1e-5)
