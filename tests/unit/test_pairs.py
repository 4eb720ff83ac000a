"""Which response is preferred to which, and what is said of prompts that give no pair."""

import json
import re
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agapo.chat import prompt_ids
from agapo.curation.pairs import (
    concise_pairs,
    pair_row,
    pair_up,
    preferred_pairs,
    reused,
    row_prompt,
    training_order,
)
from agapo.curation.rows import PairRow, read_rows
from agapo.errors import UserError
from agapo.model.tokenizer import build_tokenizer
from agapo.schema import Group, Prompt, Response
from agapo.stages.dpo.pairing import describe_pairs, pairs_report, print_pairs
from agapo.tracking.files import json_line
from tests.builders import response

PROMPT = Prompt(id="p", messages=({"role": "user", "content": "1+1="},))


def answer(length: int, reward: float | None = None, *, first: int = 5, **changes: Any) -> Response:
    """A response of so many tokens, told apart by its first."""
    return response(reward, tokens=(first, *range(100, 99 + length)), **changes)


def group_of(*responses: Response) -> Group:
    return Group(PROMPT, (3, 4), responses)


def concise(group: Group, **changes: Any) -> Any:
    return concise_pairs(group, **{"rejected": ["incorrect", "longer"], "longer_by": 1.5, "seed": 0} | changes)


def preferred(group: Group, **changes: Any) -> Any:
    return preferred_pairs(group, **{"min_margin": 0.1, "correct_only": True} | changes)


def test_the_shortest_correct_response_is_chosen_against_a_wrong_and_a_longer_one() -> None:
    wrong, short, middle, long = answer(4, 0), answer(6, 1), answer(8, 1), answer(9, 1)
    pairs = concise(group_of(long, wrong, short, middle))
    assert [(pair.kind, pair.chosen, pair.rejected) for pair in pairs] == [
        ("incorrect", short, wrong),
        ("longer", short, long),
    ]
    assert [pair.margin for pair in pairs] == [1, 0]


def test_the_recipe_says_what_a_response_is_set_against() -> None:
    group = group_of(answer(4, 0), answer(6, 1), answer(9, 1))
    assert [pair.kind for pair in concise(group, rejected=["longer"])] == ["longer"]
    assert [pair.kind for pair in concise(group, rejected=["incorrect"])] == ["incorrect"]
    assert [pair.kind for pair in concise(group, longer_by=1.6)] == ["incorrect"]
    assert [pair.kind for pair in concise(group, longer_by=1.5)] == ["incorrect", "longer"]


@pytest.mark.parametrize(
    ("responses", "reason"),
    [
        ([answer(3), answer(4)], "no verdict"),
        ([answer(3, 0), answer(4, 0)], "no correct response"),
        ([answer(3, 1, finish="length"), answer(4, 0)], "no correct response came to its end"),
        ([answer(6, 1), answer(7, 1)], "all correct and about as long"),
    ],
)
def test_a_group_without_a_concise_pair_says_why(responses: list[Response], reason: str) -> None:
    assert concise(group_of(*responses)) == reason


def test_the_reason_is_what_the_recipe_looks_for() -> None:
    assert concise(group_of(answer(3, 1), answer(40, 1)), rejected=["incorrect"]) == "none incorrect"
    assert concise(group_of(answer(3, 1), answer(4, 0)), rejected=["longer"]) == "correct ones about as long"


def test_a_margin_met_in_decimals_is_met() -> None:
    assert 1.2 - 1.0 < 0.2
    assert len(preferred(group_of(answer(3, 1.2), answer(4, 1.0)), min_margin=0.2, correct_only=False)) == 1


def test_which_wrong_response_is_drawn_depends_on_seed_and_prompt_alone() -> None:
    group = group_of(answer(6, 1), *(answer(4, 0, first=first) for first in range(20, 40)))
    drawn = {seed: concise(group, seed=seed)[0].rejected.token_ids[0] for seed in range(8)}
    assert drawn == {seed: concise(group, seed=seed)[0].rejected.token_ids[0] for seed in range(8)}
    assert len(set(drawn.values())) > 2
    other = replace(group, prompt=replace(PROMPT, mode="non_reasoning"))
    assert any(concise(other, seed=seed)[0].rejected.token_ids[0] != drawn[seed] for seed in range(8))


def test_the_highest_reward_is_preferred_to_the_lowest() -> None:
    best, worst = answer(5, 0.9, correct=True), answer(5, 0.2, correct=True)
    [pair] = preferred(group_of(answer(5, 0.5, correct=True), worst, best))
    assert (pair.chosen, pair.rejected, pair.kind) == (best, worst, "preferred")
    assert pair.margin == pytest.approx(0.7)


def test_of_equal_rewards_the_shortest_is_chosen_and_the_longest_rejected() -> None:
    responses = [answer(length, reward, correct=True) for length in (7, 4, 9) for reward in (0.0, 1.0)]
    [pair] = preferred(group_of(*responses))
    assert (len(pair.chosen.token_ids), pair.chosen.reward) == (4, 1)
    assert (len(pair.rejected.token_ids), pair.rejected.reward) == (9, 0)


def test_what_the_verdict_calls_wrong_is_never_chosen() -> None:
    liked, right, worst = answer(5, 1.0, correct=False), answer(5, 0.6, correct=True), answer(5, 0.1, correct=False)
    [pair] = preferred(group_of(liked, right, worst))
    assert (pair.chosen, pair.rejected) == (right, worst)
    [pair] = preferred(group_of(liked, right, worst), correct_only=False)
    assert pair.chosen is liked
    # No verdict is no objection: a chat has none.
    [pair] = preferred(group_of(replace(liked, correct=None), right, worst))
    assert pair.chosen.reward == 1


@pytest.mark.parametrize(
    ("responses", "reason"),
    [
        ([answer(3), answer(4)], "no reward"),
        ([answer(3, 0.0), answer(4, 0.5, correct=False)], "no correct response"),
        ([answer(3, 1.0, finish="length"), answer(4, 0.5, finish="length", correct=True)], "no finished response"),
        (
            [answer(3, 1.0, finish="length"), answer(4, 0.5, correct=False)],
            "no correct response came to its end",
        ),
        ([answer(3, 1.0), answer(4, 0.95, correct=True)], "rewards too close"),
    ],
)
def test_a_group_without_a_preferred_pair_says_why(responses: list[Response], reason: str) -> None:
    assert preferred(group_of(*responses)) == reason


def test_reasons_are_counted_and_no_response_is_set_against_itself() -> None:
    same = answer(5, 1)
    found = pair_up(
        [
            concise(group_of(answer(6, 1), answer(4, 0))),
            "no verdict",
            "no verdict",
            # A reward that is not the same for the same tokens.
            preferred(group_of(same, replace(same, reward=0.0))),
        ]
    )
    assert len(found.pairs) == 1
    assert found.without == {"no verdict": 2, "chosen and rejected alike": 1}


def test_a_row_has_texts_and_tokens() -> None:
    [pair] = concise(group_of(answer(3, 1, text="<think>\n2\n</think>\n\n2"), answer(2, 0, text="3")))
    row = pair_row(pair)
    assert row["prompt"] == [{"role": "user", "content": "1+1="}]
    assert (row["chosen"], row["rejected"]) == ("<think>\n2\n</think>\n\n2", "3")
    assert (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) == ([3, 4], [5, 100, 101], [5, 100])
    assert (row["chosen_tokens"], row["rejected_tokens"], row["margin"], row["kind"]) == (3, 2, 1, "incorrect")


def test_the_prompt_of_a_row_is_rendered_as_it_was_with_its_tools() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    prompt = replace(PROMPT, mode="non_reasoning", columns={"tools": [tool], "answer": "2"})
    tokenizer = build_tokenizer()
    ids = tuple(prompt_ids(tokenizer, prompt))
    [pair] = concise(Group(prompt, ids, (answer(3, 1), answer(2, 0))))
    row = json.loads(json.dumps(pair_row(pair)))
    assert prompt_ids(tokenizer, row_prompt(row)) == row["prompt_ids"] == list(ids)
    assert "tools" not in pair_row(concise(group_of(answer(3, 1), answer(2, 0)))[0])


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"p{number}", "mode": "reasoning", "kind": "incorrect"} for number in range(count)]


@given(own=st.integers(1, 400), share=st.floats(0.05, 0.8))
def test_reused_pairs_have_their_share(own: int, share: float) -> None:
    again = reused(rows(5000), own, share, seed=0)
    assert abs(len(again) - share * (own + len(again))) <= 1
    assert len({row["id"] for row in again}) == len(again)


def test_which_pairs_are_reused_does_not_depend_on_their_order() -> None:
    assert reused(rows(50), 10, 0.5, 0) == reused(rows(50)[::-1], 10, 0.5, 0)
    assert reused(rows(50), 10, 0.5, 0) != reused(rows(50), 10, 0.5, 1)
    assert len(reused(rows(3), 100, 0.5, 0)) == 3


def test_each_epoch_has_every_pair_once() -> None:
    order = training_order(10, epochs=2, per_step=4, seed=0)
    assert len(order) == 20
    assert Counter(order[:10]) == Counter(order[10:]) == Counter(range(10))
    assert order[:10] != order[10:]
    assert order == training_order(10, epochs=2, per_step=4, seed=0) != training_order(10, epochs=2, per_step=4, seed=1)


def test_only_whole_steps_are_made_and_at_least_one() -> None:
    assert len(training_order(10, epochs=1, per_step=4, seed=0)) == 8
    assert len(training_order(10, epochs=0.01, per_step=4, seed=0)) == 4
    assert len(training_order(100, epochs=0.29, per_step=1, seed=0)) == 29
    assert len(training_order(3, epochs=5, per_step=4, seed=0)) == 12
    with pytest.raises(ValueError, match="3 pairs do not fill a step of 4"):
        training_order(3, epochs=1, per_step=4, seed=0)


# --- rows read from files ---


GOOD = pair_row(concise(group_of(answer(3, 1), answer(2, 0)))[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": None}, "id: input should be a valid string"),
        ({"kind": "odd"}, "kind: input should be 'incorrect', 'longer', 'preferred' or 'given'"),
        ({"chosen_ids": []}, "chosen_ids: list should have at least 1 item"),
        ({"prompt_ids": "abc"}, "prompt_ids: input should be a valid list"),
        ({"rejected_tokens": "4"}, "rejected_tokens: input should be a valid integer"),
        ({"prompt": "hi"}, "prompt: input should be a valid list"),
    ],
)
def test_a_pair_that_is_none_is_named_by_line_and_field(tmp_path: Path, changes: Any, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json_line(GOOD) + json_line({**GOOD, **changes}))
    with pytest.raises(UserError) as caught:
        read_rows(PairRow, path, "pairs.reuse")
    assert str(caught.value).startswith(f"pairs.reuse: {path}:2: {message}")


def test_torn_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(UserError, match="no such file"):
        read_rows(PairRow, path, "pairs.reuse")
    path.write_text(json_line(GOOD) + json_line(GOOD)[:40])
    with pytest.raises(UserError, match=r"pairs\.jsonl:2: not JSON, so cut off or changed"):
        read_rows(PairRow, path, "pairs.reuse")
    path.write_text(json_line({**GOOD, "mine": 1, "chosen": "a\u2028b\x85c"}))
    [row] = read_rows(PairRow, path, "pairs.reuse")
    assert (row["mine"], row["chosen"]) == (1, "a\u2028b\x85c")


def test_pairs_are_shown_whole_in_a_narrow_terminal() -> None:
    console = Console(width=80, file=StringIO())
    rows = [{**GOOD, "chosen": "right " * 20, "reused": False}]
    report = pairs_report([], pair_up([]), rows)
    print_pairs(report, rows, console, shown=1)
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert shown.count("right") == 20
    assert "incorrect, with reasoning: 1+1=" in shown
    assert re.search(r"chosen +3 ", shown) and re.search(r"rejected +2 ", shown)


def test_no_pair_at_all_is_a_line() -> None:
    report = pairs_report([group_of(answer(3, 0))], pair_up(["no correct response"]), [])
    assert describe_pairs(report) == "0 pairs from 1 prompts × 1 responses; no pair: no correct response 1"
