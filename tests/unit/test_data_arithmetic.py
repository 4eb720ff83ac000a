"""The tiny tasks: right answers, right steps, no question in both splits."""

import re
from collections import Counter
from itertools import islice

import pytest

from agapo.errors import UserError
from data.arithmetic import dialogues, prompts

TRAIN = list(prompts("train", size=2000))
TEST = list(prompts("test", size=512))
PHASES = [{"size": 300, "reasoning": 0.5, "worked": 1.0}, {"size": 300, "reasoning": 1.0, "worked": 0.0}]


def question(row: dict) -> str:
    return row["messages"][0]["content"]


def solve(text: str) -> str:
    """Another way to the answer than the source's own."""
    if text.startswith("sort "):
        return "[" + ",".join(sorted(text.split()[1:])) + "]"
    assert re.fullmatch(r"[\d+*-]+", text)
    return str(eval(text))


@pytest.mark.parametrize("row", TEST[:200], ids=question)
def test_answers_are_right(row):
    assert row["answer"] == solve(question(row))


def test_splits_share_no_question_whatever_the_seed():
    test = {question(row) for seed in range(3) for row in prompts("test", seed=seed, size=512)}
    train = {question(row) for seed in range(3) for row in prompts("train", seed=seed, size=2000)}
    assert not test & train


def test_swapped_factors_are_in_the_same_split():
    def factors(rows):
        return {frozenset(question(row).split("*")) for row in rows if row["kind"] == "product"}

    assert not factors(TRAIN) & factors(TEST)


def test_questions_are_unique_and_shares_hold():
    assert len({question(row) for row in TRAIN}) == len({row["id"] for row in TRAIN}) == 2000
    shares = Counter(row["kind"] for row in TRAIN)
    assert shares["sum"] / 2000 == pytest.approx(0.5, abs=0.03)
    assert shares["product"] / 2000 == pytest.approx(0.25, abs=0.03)


def test_kinds_of_prompts():
    assert {row["kind"] for row in prompts("train", size=50, kinds={"sum": 2, "product": 1})} == {"sum", "product"}
    with pytest.raises(UserError, match=r"data\.args\.kinds: sums; known are sum, product, sort"):
        prompts("train", size=50, kinds={"sums": 1})


def test_exhausted_kinds_leave_their_place_to_the_others():
    rows = list(prompts("test", size=1500))
    assert len(rows) == len({question(row) for row in rows}) == 1500


def test_seed_and_size_decide():
    assert list(prompts("train", size=50)) == TRAIN[:50]
    assert list(prompts("train", seed=1, size=50)) != TRAIN[:50]
    assert list(dialogues("train", phases=PHASES)) == list(dialogues("train", phases=PHASES))


def test_every_step_of_a_worked_solution_is_right():
    for row in islice(dialogues("train", phases=PHASES), 300):
        text = " ".join(str(part) for part in row["messages"][-1].values())
        for step in re.findall(r"[\d+*-]+=-?\d+", text):
            left, right = step.split("=")
            assert eval(left) == int(right)


@pytest.mark.parametrize(("worked", "steps"), [(1.0, True), (0.0, False)])
def test_steps_are_written_out_in_both_modes_or_in_none(worked, steps):
    sums = {"size": 50, "worked": worked, "kinds": {"sum": 1}}
    for row in dialogues("train", phases=[sums]):
        text, turn = question(row), row["messages"][-1]
        boxed = f"\\boxed{{{solve(text)}}}"
        where = "reasoning_content" if row["mode"] == "reasoning" else "content"
        assert turn["content"].endswith(boxed) and (row["mode"] == "reasoning") == ("reasoning_content" in turn)
        assert bool(re.search(r"\d=", turn[where])) == steps
        if row["mode"] == "reasoning":
            assert turn["content"] == boxed and turn["reasoning_content"].endswith(f"={solve(text)}")


def test_kinds_of_a_phase():
    rows = dialogues("train", phases=[{"size": 50, "kinds": {"sort": 1}}])
    assert all(question(row).startswith("sort") for row in rows)


def test_misspelt_phase_is_an_error_before_the_first_row():
    with pytest.raises(TypeError, match="workd"):
        dialogues("train", phases=[{"size": 1, "workd": 1}])


def test_phases_come_in_order_with_their_shares():
    rows = list(dialogues("train", phases=PHASES))
    first, second = rows[:300], rows[300:]
    assert len(rows) == 600
    assert sum(row["mode"] == "reasoning" for row in first) == pytest.approx(150, abs=30)
    assert all(row["messages"][-1]["reasoning_content"].startswith("=") for row in second)


def test_dialogues_keep_to_their_split():
    held_out = {question(row) for row in prompts("test", size=1500)}
    assert not held_out & {question(row) for row in dialogues("train", phases=PHASES)}


@pytest.mark.parametrize("source", [prompts, dialogues])
def test_unknown_split(source):
    with pytest.raises(ValueError, match="'train' or 'test'"):
        next(source("valid"))
