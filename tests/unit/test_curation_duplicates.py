"""Exact and near duplicates, and several distinct responses a question."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agapo.curation.curate import curate_rows
from agapo.curation.distinct import ALIKE, ENOUGH
from agapo.curation.minhash import PLACES, ngrams, signature, similarity
from agapo.curation.report import CurationReport
from agapo.recipe.curation import CurationConfig

EN = "The train leaves the station at nine in the morning and arrives at the coast before noon, {}, as people say."
KO = "기차는 아침 아홉 시에 역을 떠나 정오 전에 바닷가에 도착하고, 사람들은 그것을 {} 좋아한다고 말합니다."
ES = "El tren sale de la estación a las nueve de la mañana y llega a la costa antes del mediodía, {}, según dicen."
OTHERS = [
    "Water boils at a lower temperature on a mountain, since the air above it weighs less there.",
    "A prime number has exactly two divisors, and there is no largest one, as Euclid has shown.",
    "Bread needs flour, water, salt and time; most of the taste comes from the time it is given.",
    "물은 산 위에서 더 낮은 온도에서 끓습니다. 공기의 무게가 더 가볍기 때문입니다.",
    "El pan necesita harina, agua, sal y tiempo; casi todo el sabor viene del tiempo que se le da.",
]


def row(question: str, answer: str, thinking: str = "", **columns: Any) -> dict[str, Any]:
    turn = {"role": "assistant", "content": answer, **({"reasoning_content": thinking} if thinking else {})}
    mode = "reasoning" if thinking else "non_reasoning"
    return {"messages": [{"role": "user", "content": question}, turn], "mode": mode, "language": "en", **columns}


def curated(rows: list[dict[str, Any]], seed: int = 0, **filters: Any) -> tuple[list[dict[str, Any]], CurationReport]:
    config = CurationConfig.model_validate({"degeneration": None, "language": None, **filters})
    report = CurationReport()
    return list(curate_rows(rows, config, seed=seed, report=report)), report


def test_a_row_that_comes_again_is_dropped_and_names_the_first() -> None:
    rows = [row("What is it?", "A train."), row("WHAT  is it?", "a train.\n"), row("What is it?", "A bus.")]
    kept, report = curated(rows, duplicates={})
    assert kept == [rows[0], rows[2]]
    assert [(sample.place, sample.reason, sample.detail) for sample in report.samples] == [
        ("row 2", "same row again", "row 1")
    ]


def test_the_very_same_object_twice_is_a_duplicate() -> None:
    one = row("a", "b", place="rows.jsonl:1")
    assert curated([one, one], duplicates={})[0] == [one]


@pytest.mark.parametrize(
    "other",
    [
        row("What is it?", "A train.", thinking="Hm."),
        row("What is it?", "A train.") | {"mode": "reasoning"},
        row("What is it?", "A train.", tools=[{"name": "f"}]),
        row("What is it", "A train."),
    ],
)
def test_rows_that_differ_in_anything_trained_on_are_not_the_same(other: dict[str, Any]) -> None:
    rows = [row("What is it?", "A train."), other]
    assert curated(rows, duplicates={})[0] == rows


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=12))
def test_exact_duplicates_leave_a_set(pairs: list[tuple[str, str]]) -> None:
    rows = [row(question, answer) for question, answer in pairs]
    kept, report = curated(rows, duplicates={})
    assert [(item["messages"][0]["content"], item["messages"][1]["content"]) for item in kept] == list(
        dict.fromkeys(pairs)
    )
    assert curated(kept, duplicates={})[0] == kept
    assert report.seen.total() == report.kept.total() + report.dropped.total() == len(rows)


@pytest.mark.parametrize("text", [EN, KO, ES])
def test_nearly_the_same_row_is_dropped(text: str) -> None:
    rows = [row(text.format("often"), text.format("rarely")), row(text.format("sometimes"), text.format("always"))]
    kept, report = curated(rows, near_duplicates={"similarity": 0.7})
    assert kept == rows[:1]
    assert report.samples[0].detail.startswith("row 1 (0.")


@pytest.mark.parametrize(
    "pair",
    [
        (row(EN.format("often"), "It leaves at nine."), row(EN.format("often"), "No, it is always rather late.")),
        (row(EN.format("12"), EN.format("x")), row(EN.format("13"), EN.format("x"))),
        (row(OTHERS[0], EN), row(OTHERS[1], EN)),
        (row(EN, EN), row(EN, EN) | {"mode": "reasoning"}),
    ],
)
def test_near_means_question_numbers_and_response(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert len(curated(list(pair), near_duplicates={})[0]) == 2


def test_numbers_may_be_let_go() -> None:
    rows = [row(EN.format("12"), EN.format("x")), row(EN.format("13"), EN.format("x"))]
    assert len(curated(rows, near_duplicates={"same_numbers": False})[0]) == 1


def test_the_systems_turn_does_not_make_questions_alike() -> None:
    system = {"role": "system", "content": EN * 20}
    rows = [row("Which bus?", "The red bus, I think."), row("What food?", "Bread with butter.")]
    rows = [item | {"messages": [system, *item["messages"]]} for item in rows]
    assert curated(rows, near_duplicates={"similarity": 0.6})[0] == rows


def test_signatures_estimate_the_jaccard_similarity() -> None:
    words = [f"word{n}" for n in range(400)]
    for dropped in (5, 20, 60, 200):
        one, other = " ".join(words), " ".join(words[dropped:])
        a, b = set(ngrams(one).tolist()), set(ngrams(other).tolist())
        exact = len(a & b) / len(a | b)
        assert similarity(signature(one), signature(other)) == pytest.approx(exact, abs=0.12)
    assert similarity(signature(EN), signature(EN, salt=1)) < 0.1
    assert signature("").shape == (PLACES,)


def test_every_similarity_at_or_above_the_bound_is_looked_at() -> None:
    """60 rows, each nearly the same as one of 20 that differ: the bands miss none of them."""
    rng = np.random.default_rng(0)
    base = [" ".join(f"w{n}" for n in rng.integers(0, 5000, 80)) for _ in range(20)]
    rows = [row(text, text.upper()) for text in base]
    rows += [row(f"{text} and more", f"{text} so") for text in base for _ in range(3)]
    assert curated(rows, near_duplicates={"same_numbers": False})[0] == rows[:20]


def test_up_to_so_many_different_responses_stay() -> None:
    rows = [row("Tell me.", text) for text in [*OTHERS, OTHERS[0] + "!"]]
    kept, report = curated(rows, distinct={"most": 3, "choose": "first"})
    assert kept == rows[:3]
    assert {reason: count for (_, _, reason), count in report.dropped.items()} == {ENOUGH: 2, ALIKE: 1}


def test_responses_count_by_question_and_mode() -> None:
    rows = [row("a", OTHERS[0]), row("a", OTHERS[1], thinking="Hm."), row("b", OTHERS[0]), row("a", OTHERS[2])]
    assert curated(rows, distinct={"most": 1, "choose": "first"})[0] == rows[:3]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(10)), st.integers(0, 5))
def test_the_seed_chooses_whatever_the_order(order: list[int], seed: int) -> None:
    rows = [row(question, text) for question in ("a", "b") for text in OTHERS]
    chosen = curated(rows, seed, distinct={"most": 2})[0]
    assert len(chosen) == 4
    shuffled = curated([rows[index] for index in order], seed, distinct={"most": 2})[0]
    assert shuffled == [rows[index] for index in order if rows[index] in chosen]
    assert curated(chosen, seed, distinct={"most": 2})[0] == chosen


def test_another_seed_chooses_others() -> None:
    rows = [row("a", text) for text in OTHERS]
    chosen = {
        tuple(item["messages"][1]["content"] for item in curated(rows, s, distinct={"most": 2})[0]) for s in range(8)
    }
    assert len(chosen) > 1
