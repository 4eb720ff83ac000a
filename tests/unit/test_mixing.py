"""Mixtures: exact shares in any stretch, repeatable positions, evaluation sizes shared out."""

from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agapo.curation.mixing import MixedStream, interleave, share_out
from agapo.curation.prompts import PromptStream
from agapo.errors import UserError
from agapo.evaluation.questions import load_questions, without_overlong
from agapo.evaluation.rendering import make_renderer
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.data import DataConfig
from agapo.recipe.evaluation import RLEvaluationConfig
from agapo.schema import Prompt

WEIGHTS = st.dictionaries(st.sampled_from("abcde"), st.floats(0.1, 10), min_size=1)


@given(WEIGHTS, st.integers(1, 300))
def test_after_any_number_each_source_has_its_share_to_within_one_or_so(weights: dict[str, float], count: int) -> None:
    counts = Counter(islice(interleave(weights), count))
    whole = sum(weights.values())
    for name, weight in weights.items():
        assert abs(counts[name] - count * weight / whole) < 1 + 1e-6 * count or len(weights) > 2
        assert abs(counts[name] - count * weight / whole) < len(weights)


@given(WEIGHTS, st.integers(1, 500))
def test_a_total_is_shared_out_and_nobody_goes_without(weights: dict[str, float], total: int) -> None:
    parts = share_out(total, weights)
    assert all(part >= 1 for part in parts.values())
    assert sum(parts.values()) >= total
    assert sum(parts.values()) <= total + len(weights)
    assert share_out(total, {**weights, "none": 0.0})["none"] == 0


def stream(name: str, size: int) -> PromptStream:
    prompts = [Prompt(id=f"{name}{n}", messages=({"role": "user", "content": f"{name}{n}"},)) for n in range(size)]
    return PromptStream(prompts, {"reasoning": 1.0}, seed=3)


def test_a_position_is_the_same_whoever_asks_and_from_where() -> None:
    weights = {"a": 3.0, "b": 1.0}
    mixed = MixedStream({"a": stream("a", 7), "b": stream("b", 5)}, weights)
    whole = mixed.take(0, 60)
    again = MixedStream({"a": stream("a", 7), "b": stream("b", 5)}, weights)
    assert again.take(40, 20) == whole[40:]
    assert again.take(0, 8) == whole[:8]
    counts = Counter(prompt.id[0] for prompt, _ in whole)
    assert counts == {"a": 45, "b": 15}
    assert Counter(visit for prompt, visit in whole if prompt.id[0] == "b") == {0: 5, 1: 5, 2: 5}
    assert sorted(prompt.id for prompt, visit in whole if prompt.id[0] == "b" and visit == 1) == [
        f"b{n}" for n in range(5)
    ]


MIXED: dict[str, Any] = {
    "sources": {
        "math": {"source": "data.arithmetic:prompts", "args": {"size": 200}, "weight": 3},
        "code": {"source": "data.tiny_tasks:prompts", "args": {"kind": "code"}},
        "off": {"source": "data.nowhere:prompts", "weight": 0},
    }
}


def test_questions_of_several_sources() -> None:
    questions = load_questions(DataConfig.model_validate(MIXED), RLEvaluationConfig(test_size=40, validation_size=20))
    assert {name: (len(part.validation), len(part.test)) for name, part in questions.parts.items()} == {
        "math": (15, 30),
        "code": (5, 10),
    }
    assert {prompt.domain for prompt in questions.train} == {"math", "code"}


def test_overlong_prompts_are_left_out_where_the_recipe_says_so() -> None:
    data = DataConfig.model_validate({**MIXED, "max_prompt_tokens": 18, "overlong": "drop"})
    render = make_renderer(build_tokenizer())
    questions = load_questions(data, RLEvaluationConfig(test_size=40, validation_size=20))
    left = without_overlong(questions, render, data)
    assert 0 < len(left.train) < len(questions.train)
    assert max(len(render(prompt)) for prompt in (*left.train, *left.validation, *left.test)) <= 18
    assert sum(part.overlong for part in left.parts.values()) == sum(
        len(getattr(questions, name)) - len(getattr(left, name)) for name in ("train", "validation", "test")
    )
    with pytest.raises(UserError, match=r"max_prompt_tokens: 2 leaves nothing of 'math'"):
        without_overlong(questions, render, data.model_copy(update={"max_prompt_tokens": 2}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "either 'source'"),
        ({"source": "data.gsm8k:prompts", **MIXED}, "either 'source'"),
        ({**MIXED, "path": "/x"}, r"sources\.NAME\.path"),
        ({"sources": {"a": {"source": "x:y", "weight": 0}}}, "at least one weight"),
    ],
)
def test_one_way_to_name_sources(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate(content)
