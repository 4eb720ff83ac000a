"""The one way from prompts to judged groups: order, overlap, and the stop on errors."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agapo.errors import UserError
from agapo.recipe.reward import ENOUGH_GROUPS
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.sampling import WINDOW, ErrorWatch, JudgingError, sample_and_score
from agapo.schema import Group, Prompt
from tests.builders import group, response

PARAMS = SamplingParams(group_size=2, max_new_tokens=1)


class Pool:
    """Samples chunks in the order that it is told, and notes what happens in between."""

    def __init__(self, order: Sequence[int] | None = None):
        self.order = order
        self.log: list[str] = []

    def generate(
        self, requests: Sequence[PromptRequest], params: SamplingParams, *, chunk_prompts: int
    ) -> Iterator[tuple[int, Group]]:
        chunks = [requests[start : start + chunk_prompts] for start in range(0, len(requests), chunk_prompts)]
        for number in self.order or range(len(chunks)):
            self.log.append(f"sampled {number}")
            for place, request in enumerate(chunks[number], number * chunk_prompts):
                yield place, group(None, None, name=request.prompt.id)


class Judge:
    """Says 1 to everything: at once, or, for the prompts named, when `release` is called."""

    def __init__(self, pool: Pool, late: Sequence[str] = (), errors: Sequence[str] = ()):
        self.pool, self.late, self.errors = pool, late, errors
        self.held: list[tuple[Future[Group], Group]] = []
        self.looked_at: list[list[str]] = []

    def submit(self, group: Group) -> "Future[Group]":
        self.pool.log.append(f"judging {group.prompt.id}")
        error = "exception: no" if group.prompt.id in self.errors else None
        judged = replace(group, responses=tuple(replace(response(1.0), reward_error=error) for _ in group.responses))
        future: Future[Group] = Future()
        if group.prompt.id in self.late:
            self.held.append((future, judged))
        else:
            future.set_result(judged)
        return future

    def check(self, groups: Sequence[Group]) -> None:
        self.looked_at.append([group.prompt.id for group in groups])
        if sum(r.reward_error is not None for g in groups for r in g.responses) > len(groups):
            raise UserError("too many errors")


def requests(count: int) -> list[PromptRequest]:
    return [PromptRequest(Prompt(id=str(n), messages=()), (1,)) for n in range(count)]


def ids(chunks: Iterator[list[Group]]) -> list[list[str]]:
    return [[group.prompt.id for group in chunk] for chunk in chunks]


@given(st.integers(1, 12), st.integers(1, 5), st.randoms())
def test_chunks_come_in_order_whatever_order_they_were_sampled_in(count: int, size: int, random) -> None:
    order = list(range(-(-count // size)))
    random.shuffle(order)
    pool = Pool(order)
    found = ids(sample_and_score(pool, Judge(pool), requests(count), PARAMS, chunk_prompts=size))
    assert list(chain(*found)) == [str(n) for n in range(count)]
    assert [len(chunk) for chunk in found[:-1]] == [size] * (len(order) - 1)


def test_a_group_is_judged_before_the_next_chunk_is_sampled_and_given_out_as_early_as_can_be() -> None:
    pool = Pool()
    stream = sample_and_score(pool, Judge(pool), requests(3), PARAMS, chunk_prompts=1)
    for number in range(3):
        next(stream)
        pool.log.append(f"given {number}")
    expected = [f"{verb} {number}" for number in range(3) for verb in ("sampled", "judging", "given")]
    assert pool.log == expected


def test_sampling_does_not_wait_for_a_judge_that_takes_its_time() -> None:
    pool = Pool()
    judge = Judge(pool, late=["0"])
    events: list[str] = []

    def on_sampled() -> None:
        events.extend(pool.log)
        for future, judged in judge.held:
            future.set_result(judged)

    found = ids(sample_and_score(pool, judge, requests(3), PARAMS, chunk_prompts=1, on_sampled=on_sampled))
    assert found == [["0"], ["1"], ["2"]]
    assert [event for event in events if event.startswith("sampled")] == ["sampled 0", "sampled 1", "sampled 2"]


def test_errors_are_counted_over_the_last_groups_and_at_the_end() -> None:
    pool = Pool()
    judge = Judge(pool)
    count = WINDOW + 3
    list(sample_and_score(pool, judge, requests(count), PARAMS, chunk_prompts=1))
    assert judge.looked_at[0] == [str(n) for n in range(ENOUGH_GROUPS)]
    assert judge.looked_at[-1] == [str(n) for n in range(3, count)]
    few = Judge(pool)
    list(sample_and_score(Pool(), few, requests(3), PARAMS, chunk_prompts=2))
    assert few.looked_at == [["0", "1", "2"]]


def test_a_few_errors_at_the_start_are_no_rate() -> None:
    pool = Pool()
    list(sample_and_score(pool, Judge(pool, errors=["0", "1"]), requests(ENOUGH_GROUPS), PARAMS, chunk_prompts=1))


def test_a_watch_looks_at_several_steps() -> None:
    """Three prompts of four met errors in the first step: above the bound there, and not over two steps."""
    judge = Judge(Pool(), errors=["0", "1", "2"])
    watch = ErrorWatch(judge)

    def step(names: Sequence[str]) -> None:
        asked = [PromptRequest(Prompt(id=name, messages=()), (1,)) for name in names]
        list(sample_and_score(Pool(), judge, asked, PARAMS, chunk_prompts=2, watch=watch))

    step(["0", "1", "2", "a"])
    assert judge.looked_at == [], "four prompts are too few to be looked at"
    step(["b", "c", "d", "e"])
    assert judge.looked_at == [["0", "1", "2", "a", "b", "c", "d", "e"]]
    with pytest.raises(JudgingError):
        step(["0", "1", "2", "0"])
    watch.end()
    assert len(judge.looked_at) == 3, "all has been looked at"


def test_too_many_errors_stop_and_the_groups_are_there_to_be_written_down() -> None:
    pool = Pool()
    judge = Judge(pool, errors=[str(n) for n in range(20)])
    with pytest.raises(JudgingError, match="too many errors") as caught:
        list(sample_and_score(pool, judge, requests(20), PARAMS, chunk_prompts=1))
    assert [group.prompt.id for group in caught.value.groups] == [str(n) for n in range(ENOUGH_GROUPS)]
    assert pool.log[-1] == f"judging {ENOUGH_GROUPS - 1}"
