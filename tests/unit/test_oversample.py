"""Over-sampling in a run that takes turns: a step takes the prompts that it would with refill rounds, and no others."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agapo.algorithm.sampling import prompts_to_keep
from agapo.curation.prompts import PromptStream
from agapo.recipe import RLRecipe
from agapo.rollouts.engine import PromptRequest
from agapo.schema import Group, Prompt
from agapo.stages.rl.collector import Collector
from agapo.stages.rl.metrics import Clock
from agapo.stages.rl.progress import Progress
from tests.builders import group, response

A_STEP, STEPS, PROMPTS = 6, 8, 40


class Pool:
    """Groups come in any order; long ones last."""

    version = 0

    def __init__(self, draw: random.Random):
        self.draw, self.calls, self.ended = draw, list[list[str]](), list[str]()

    def generate(self, requests: Sequence[PromptRequest], *_: Any, **__: Any) -> Iterator[tuple[int, Group]]:
        order = list(range(len(requests)))
        self.draw.shuffle(order)
        self.calls.append([request.prompt.id for request in requests])
        self.ended.append("given up")
        for place in order:
            yield place, group(None, None, name=requests[place].prompt.id)
        self.ended[-1] = "whole"


class Judge:
    """Finds the groups of some prompts and visits all correct."""

    def __init__(self, easy: float, seed: int):
        self.easy, self.seed = easy, seed

    def submit(self, group: Group) -> "Future[Group]":
        right = random.Random(f"{self.seed} {group.prompt.id}").random() < self.easy
        judged: Future[Group] = Future()
        judged.set_result(replace(group, responses=(response(1.0), response(1.0 if right else 0.0))))
        return judged

    def check(self, groups: Sequence[Group]) -> None: ...


def recipe_of(**rollout: Any) -> RLRecipe:
    return RLRecipe.model_validate(
        {
            "steps": STEPS,
            "prompts_per_step": A_STEP,
            "data": {"source": "data.arithmetic:prompts"},
            "reward": {"terms": [{"name": "a", "function": "rewards.math_answer:score"}]},
            "rollout": {"group_size": 2, "max_new_tokens": 8, **rollout},
        }
    )


def collector_of(recipe: RLRecipe, pool: Any, judge: Any, progress: Progress) -> Collector:
    stream = PromptStream([Prompt(f"p{number}", ()) for number in range(PROMPTS)], {"reasoning": 1.0}, seed=0)
    return Collector(
        recipe=recipe,
        run=cast(Any, None),
        stream=stream,
        render=lambda _: (1,),
        pool=pool,
        scorer=judge,
        weight_sync=cast(Any, None),
        logger=cast(Any, None),
        progress=progress,
        reference=cast(Any, SimpleNamespace(add=lambda groups: None)),
    )


def steps_of(oversample: bool, easy: float, seed: int, stop_at: int) -> tuple[list[Any], Pool]:
    """Return what each step took, kept and dropped; at `stop_at` the run is stopped, and goes on from its state."""
    recipe, pool = recipe_of(oversample=oversample), Pool(random.Random(seed))
    progress, found = Progress(), list[Any]()
    for step in range(STEPS):
        if step == stop_at:
            progress = Progress(**asdict(progress))
        before = len(pool.calls)
        collected = collector_of(recipe, pool, Judge(easy, seed), progress).collect(Clock())
        names = [[item.prompt.id for item in part] for part in (collected.groups, collected.kept, collected.dropped)]
        found.append((names, collected.visits))
        assert sum(map(len, pool.calls[before:])) == collected.prompts + collected.surplus
        progress.cursor += collected.prompts
        progress.note_kept(len(collected.kept), collected.prompts)
    return found, pool


@settings(deadline=None, max_examples=60)
@given(easy=st.floats(0, 1), seed=st.integers(0, 1000), stop_at=st.integers(0, STEPS))
def test_steps_take_what_refill_rounds_take_and_in_fewer_rounds(easy: float, seed: int, stop_at: int) -> None:
    plain, waiting = steps_of(False, easy, seed, stop_at)
    found, pool = steps_of(True, easy, seed, stop_at)
    assert found == plain
    assert len(pool.calls) <= len(waiting.calls)
    assert set(waiting.ended) == {"whole"}


def test_what_is_beyond_the_batch_is_given_up_and_sampled_anew() -> None:
    progress, pool = Progress(keep_rate=0.5), Pool(random.Random(0))
    collector = collector_of(recipe_of(oversample=True), pool, Judge(0.0, 0), progress)
    collected = collector.collect(Clock())
    assert (collected.prompts, collected.surplus) == (A_STEP, A_STEP), "12 at most with refill.max_extra 1"
    progress.cursor += collected.prompts
    collector.collect(Clock())
    assert pool.calls[1][:A_STEP] == pool.calls[0][A_STEP:]


@pytest.mark.parametrize(("count", "rate", "prompts"), [(16, 1.0, 16), (16, 0.5, 39), (64, 0.9, 74), (1, 0.0, 261)])
def test_so_many_are_enough_by_a_standard_deviation(count: int, rate: float, prompts: int) -> None:
    p = max(rate, 0.01)
    assert prompts_to_keep(count, rate) == prompts
    assert prompts * p - (prompts * p * (1 - p)) ** 0.5 >= count - 1e-9
    assert (prompts - 1) * p - ((prompts - 1) * p * (1 - p)) ** 0.5 < count


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValidationError, match="under way already"):
        recipe_of(oversample=True, max_staleness=1)
