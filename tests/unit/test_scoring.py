"""From terms to one reward: domains, sums and products, verdicts, groups, errors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agapo.errors import UserError
from agapo.recipe.reward import RewardConfig, require_terms
from agapo.rewarding.pool import Term, VerifierPool
from agapo.rewarding.scorer import Scorer, total
from agapo.schema import Group, Prompt, Response, Segment

FAKES = "tests.fakes.rewards"


def reward(*terms: Mapping[str, Any], **keys: Any) -> RewardConfig:
    return RewardConfig.model_validate({"terms": list(terms), **keys})


def term(name: str, function: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "function": f"{FAKES}:{function}", **keys}


def group(*texts: str, domain: str = "math", **columns: Any) -> Group:
    responses = tuple(Response((Segment((1,), (0.0,)),), text, "stop") for text in texts)
    return Group(
        Prompt(id=domain, messages=({"role": "user", "content": "?"},), domain=domain, columns=columns), (), responses
    )


def judge(config: RewardConfig, *groups: Group, workers: int = 2) -> list[Group]:
    terms = {own.name: Term(own.function, own.args, own.deadline_s) for own in config.terms}
    with VerifierPool(terms, workers=workers, deadline_s=config.deadline_s) as pool:
        scorer = Scorer(pool, config)
        judged = list(scorer.judge(groups))
        scorer.check(judged)
        return judged


@pytest.mark.parametrize(
    ("parts", "weights", "combination", "expected"),
    [
        ({"a": 1.0, "b": 0.5}, {"a": 1.0, "b": 0.2}, "sum", 1.1),
        ({"a": 1.0, "b": 0.5}, {"a": 1.0, "b": 0.0}, "sum", 1.0),
        ({"a": 1.0, "b": 0.5}, {"a": 1.0, "b": -1.0}, "sum", 0.5),
        ({"a": 1.0, "b": 0.5}, {"a": 3.0, "b": 0.2}, "all", 0.5),
        ({"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 1.0}, "all", 0.0),
        ({"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 0.0}, "all", 1.0),
        ({"a": None, "b": 1.0}, {"a": 1.0, "b": 1.0}, "sum", None),
        ({"a": 1.0, "b": None}, {"a": 1.0, "b": 1.0}, "all", None),
        ({"a": 1.0, "b": None}, {"a": 1.0, "b": 0.0}, "sum", 1.0),
    ],
)
def test_terms_make_one_reward(parts: Any, weights: Any, combination: Any, expected: float | None) -> None:
    assert (
        total(parts, weights, "a", combination) == pytest.approx(expected) if expected is not None else expected is None
    )


def test_only_the_terms_of_a_domain_judge_it_each_with_its_verdict_and_combination() -> None:
    config = reward(
        term("length", "length", domains=["math"]),
        term("two", "constant", domains=["code"], args={"value": 2.0}),
        term("half", "constant", args={"value": 0.5}, weight=0.1),
        combine={"code": "all"},
        verdict={"code": "half"},
    )
    math, code = judge(config, group("a", "abc"), group("x", domain="code"))
    assert [dict(r.reward_parts) for r in math.responses] == [
        {"length": 1.0, "half": 0.5},
        {"length": 3.0, "half": 0.5},
    ]
    assert [r.reward for r in math.responses] == [pytest.approx(1.05), pytest.approx(3.05)]
    assert [r.correct for r in math.responses] == [True, True]
    assert dict(code.responses[0].reward_parts) == {"two": 2.0, "half": 0.5}
    assert (code.responses[0].reward, code.responses[0].correct) == (1.0, False)


def test_a_group_is_judged_after_its_responses() -> None:
    config = reward(
        term("short", "is_short"),
        {"name": "concise", "function": "rewards.conciseness:score_group", "weight": 0.5},
    )
    (found,) = judge(config, group("a", "abc", "abcdefghij"))
    assert [r.reward_parts["short"] for r in found.responses] == [1.0, 1.0, 0.0]
    assert [r.reward_parts["concise"] for r in found.responses] == [1.0, 0.0, 0.0]
    assert [r.reward for r in found.responses] == [1.5, 1.0, 0.0]


def cut(found: Group, *which: int) -> Group:
    responses = [replace(r, finish="length") if n in which else r for n, r in enumerate(found.responses)]
    return replace(found, responses=tuple(responses))


def test_a_cut_response_counts_as_wrong_and_never_more_than_a_wrong_one() -> None:
    config = reward(
        term("short", "is_short"), term("length", "constant", args={"value": 1.0}, weight=-0.25), verdict="short"
    )
    (found,) = judge(config, cut(group("a", "abcdefghij", "b"), 2))
    assert [r.reward for r in found.responses] == [0.75, -0.25, -0.25]
    assert [r.correct for r in found.responses] == [True, False, False]
    assert found.responses[2].reward_parts == {"short": 1.0, "length": 1.0}


def test_a_cut_response_counts_as_low_as_a_term_goes_in_its_group() -> None:
    # A shaped reward that leaves 0 to 1: right minus a thousandth a character.
    config = reward(term("short", "is_short", weight=0.9), term("length", "length", weight=-0.001), verdict="short")
    (found,) = judge(config, cut(group("a", "x" * 3000, "b" * 10), 2))
    assert [r.reward for r in found.responses] == pytest.approx([0.899, -3.0, -3.0])
    (alone,) = judge(config, cut(group("b" * 2000), 0))
    assert alone.responses[0].reward == pytest.approx(-2.0)


def test_without_a_negative_term_a_cut_response_counts_nothing() -> None:
    (found,) = judge(reward(term("short", "is_short")), cut(group("a", "b"), 1))
    assert [(r.reward, r.correct) for r in found.responses] == [(1.0, True), (0.0, False)]
    (product,) = judge(
        reward(term("short", "is_short"), term("c", "constant", weight=-1.0), combine="all"), cut(group("a"), 0)
    )
    assert product.responses[0].reward == 0.0


def test_a_cut_response_without_a_verdict_is_wrong_too() -> None:
    (found,) = judge(reward(term("silent", "no_verdict")), cut(group("a", "b"), 1))
    assert [(r.reward, r.correct) for r in found.responses] == [(None, None), (0.0, False)]


def test_cut_responses_can_be_left_out() -> None:
    before = cut(group("a", "b"), 1)
    (found,) = judge(reward(term("short", "is_short"), truncated="masked"), before)
    assert [(r.reward, r.correct) for r in found.responses] == [(1.0, True), (None, None)]
    assert [r.segments for r in found.responses] == [r.segments for r in before.responses]


def test_groups_are_judged_together_at_the_same_time(tmp_path: Path) -> None:
    """A judge of groups that takes its time over one does not hold up the others: each waits for all of them here."""
    config = reward(
        term("short", "is_short"), term("all", "group_that_meets_others", args={"folder": str(tmp_path), "groups": 3})
    )
    found = judge(config, *[group("a", "b", name=str(n)) for n in range(3)], workers=3)
    assert [r.reward_error for item in found for r in item.responses] == [None] * 6


def test_a_group_term_that_hangs_or_fails_gives_no_verdict_to_anyone() -> None:
    config = reward(term("short", "is_short"), term("group", "group_that_raises"), max_error_rate=1)
    (found,) = judge(config, group("a", "b"))
    assert [r.reward for r in found.responses] == [None, None]
    assert all((r.reward_error or "").startswith("exception: group: ValueError") for r in found.responses)
    hanging = reward(
        term("short", "is_short"), term("group", "group_that_hangs", deadline_s=0.5, weight=0), max_error_rate=1
    )
    (found,) = judge(hanging, group("a", "b"))
    assert [r.reward for r in found.responses] == [1.0, 1.0]
    assert all((r.reward_error or "").startswith("timeout: group: no result within 0.5 s") for r in found.responses)


def test_a_term_that_hangs_takes_no_other_term_with_it() -> None:
    config = reward(
        term("before", "length"), term("hang", "hang", deadline_s=0.5), term("after", "length"), max_error_rate=1
    )
    (found,) = judge(config, group("hang", "abc"))
    assert [dict(r.reward_parts) for r in found.responses] == [
        {"before": 4.0, "hang": 0.0, "after": 4.0},
        {"before": 3.0, "hang": 1.0, "after": 3.0},
    ]


def test_too_many_errors_stop_the_run() -> None:
    config = reward(term("raises", "raises"), max_error_rate=0.4)
    with pytest.raises(UserError, match=r"errors in 2 of 2 responses, above 40%; 2× exception: raises: .*agapo score"):
        judge(config, group("a", "b"))


def test_a_reward_that_never_has_a_verdict_stops_the_run() -> None:
    config = reward(term("silent", "no_verdict"))
    assert [found.responses[0].correct for found in judge(config, *[group("a")] * 7)] == [None] * 7
    with pytest.raises(UserError, match=r"no response has a verdict from silent: .*columns"):
        judge(config, *[group("a")] * 8)
    # Responses that were cut are wrong whatever the reward says: they are no verdict of it.
    with pytest.raises(UserError, match="no response has a verdict from silent"):
        judge(config, *[cut(group("a", "b"), 0)] * 8)


def test_an_endpoint_that_is_down_is_asked_again_and_then_there_is_no_verdict(tmp_path) -> None:
    config = reward(term("flaky", "down_twice"), max_error_rate=0)
    (found,) = judge(config, group("a", path=str(tmp_path / "calls")))
    assert [r.reward for r in found.responses] == [1.0]
    down = reward(term("down", "always_down"), max_error_rate=1)
    (found,) = judge(down, group("a"))
    assert [(r.reward, r.correct) for r in found.responses] == [(None, None)]
    assert (found.responses[0].reward_error or "").startswith("infrastructure: down: ConnectionError: no answer")


def test_a_user_error_of_a_reward_stops_the_run() -> None:
    with pytest.raises(UserError, match="mend me"):
        judge(reward(term("user", "user_error")), group("a"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"verdict": "lenght"}, "did you mean 'length'"),
        ({"verdict": {"code": "length"}}, "does not judge the domain 'code'"),
        ({"combine": {"maths": "all"}}, "no term judges the domain 'maths'; did you mean 'math'"),
        ({"combine": "product"}, "sum"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        reward(term("length", "length", domains=["math"]), **keys)


def test_an_argument_that_a_reward_does_not_take_is_named() -> None:
    with pytest.raises(UserError, match=r"'c'.*args\.valeu.*did you mean 'value'"):
        judge(reward(term("c", "constant", args={"valeu": 1})), group("a"))


def test_a_domain_without_terms_is_refused() -> None:
    config = reward(term("length", "length", domains=["math"]), term("none", "no_verdict", domains=["code"], weight=0))
    require_terms(config, ["math", "code"])
    with pytest.raises(UserError, match=r"no term judges the domain 'codes'.*did you mean 'code'"):
        require_terms(config, ["codes"])
    with pytest.raises(UserError, match="'length' does not judge the domain 'code'; give a verdict"):
        require_terms(reward(*config.model_dump()["terms"], verdict="length"), ["code"])
