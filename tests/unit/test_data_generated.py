"""What holds of all generators: checked rows, splits without a shared question, seeds, right answers, languages."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from agapo.curation.dialogues import check_dialogue
from data import korean_documents, long_context, multilingual, reasoning_sft, software, tool_dialogues, world_knowledge
from data.generating import Item, Response, chosen, dialogue_rows, is_test, items, prompt_rows
from rewards import language, math_answer, needle, science

Rows = Callable[..., Iterator[dict[str, Any]]]
SHORT = {"lengths": [60, 150]}
SOURCES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "world": (world_knowledge, {"size": 600}, {"size": 200}),
    "reasoning": (reasoning_sft, {"size": 600}, {"size": 200}),
    "software": (software, {"size": 600}, {"size": 200}),
    "multilingual": (multilingual, {"size": 600}, {"size": 200}),
    "long_context": (long_context, SHORT, SHORT),
    "korean": (korean_documents, SHORT | {"per_cell": 2}, SHORT),
    "tools": (tool_dialogues, {"size": 300}, {"size": 150}),
}
"""(module, arguments of `dialogues`, of `prompts`)."""
each_source = pytest.mark.parametrize(("source", "many", "few"), SOURCES.values(), ids=SOURCES)


def question(row: dict[str, Any]) -> str:
    turns = [turn for turn in row["messages"] if turn["role"] != "assistant"]
    return turns[-1]["content"] if len(turns) == 1 else json.dumps(turns, ensure_ascii=False)


@each_source
def test_dialogues_pass_the_check_of_the_stage(source: Any, many: dict, few: dict) -> None:
    for row in source.dialogues("train", **many):
        check_dialogue(row, "row")
        assert row["task"]
        assert row["language"] in ("en", "ko", "es")
        thinks = any(turn.get("reasoning_content") for turn in row["messages"])
        assert row["mode"] == ("reasoning" if thinks else "non_reasoning")


@each_source
def test_splits_share_no_question_whatever_the_seed(source: Any, many: dict, few: dict) -> None:
    asked = {
        split: {
            question(row)
            for seed in range(2)
            for rows in (source.prompts(split, seed=seed, **few), source.dialogues(split, seed=seed, **many))
            for row in rows
        }
        for split in ("train", "test")
    }
    assert len(asked["train"]) > 200
    assert len(asked["test"]) > 100
    assert not asked["train"] & asked["test"]


@each_source
def test_the_seed_decides(source: Any, many: dict, few: dict) -> None:
    for function, args in ((source.dialogues, many), (source.prompts, few)):
        assert list(function("train", **args)) == list(function("train", **args))
        assert list(function("train", **args)) != list(function("train", seed=1, **args))


@each_source
def test_prompts_end_with_a_question_and_have_an_id_of_their_own(source: Any, many: dict, few: dict) -> None:
    rows = list(source.prompts("test", **few))
    assert len({row["id"] for row in rows}) == len({question(row) for row in rows})
    assert {row["messages"][-1]["role"] for row in rows} <= {"user", "tool"}


@each_source
def test_unknown_splits_are_refused_at_once(source: Any, many: dict, few: dict) -> None:
    for function in (source.dialogues, source.prompts):
        with pytest.raises(ValueError, match="'train' or 'test'"):
            function("valid")


@pytest.mark.parametrize(
    ("source", "option", "value"),
    [
        (world_knowledge, "kinds", "sport"),
        (world_knowledge, "languages", "fr"),
        (reasoning_sft, "kinds", "art"),
        (software, "kinds", "cobol"),
        (long_context, "kinds", "stack"),
        (korean_documents, "formats", "pdf"),
        (tool_dialogues, "scenes", "flight"),
        (multilingual, "kinds", "song"),
    ],
)
def test_unknown_choices_are_named(source: Any, option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{option}: {value}; known are "):
        source.dialogues("train", **{option: [value]})


@pytest.mark.parametrize("source", [world_knowledge, reasoning_sft, software, multilingual])
def test_thousands_of_different_questions(source: Any) -> None:
    rows = list(source.dialogues("train", size=5000))
    assert len({question(row) for row in rows}) == 5000


def test_thousands_of_different_dialogues_with_tools() -> None:
    rows = list(tool_dialogues.dialogues("train", size=3000))
    assert len({json.dumps(row["messages"]) for row in rows}) > 2950


# --- the answers of dialogues get the full reward, in both modes ---

Judge = Callable[..., list[float | None]]


@pytest.mark.parametrize(
    ("source", "args", "judge"),
    [
        (world_knowledge, {"size": 2000}, science.score),
        (reasoning_sft, {"size": 1000, "kinds": ["math", "logic"], "responses": 3}, math_answer.score),
        (multilingual, {"size": 2000}, science.score),
        (multilingual, {"size": 1000}, language.score),
        (world_knowledge, {"size": 1000}, language.score),
        (long_context, SHORT, science.score),
        (long_context, SHORT, needle.score),
        (korean_documents, SHORT, science.score),
        (korean_documents, SHORT, needle.score),
    ],
)
def test_gold_answers_score_one(source: Any, args: dict[str, Any], judge: Judge) -> None:
    names = ("answer", "tolerance", "candidates", "language")
    for row in source.dialogues("train", **args):
        columns = {name: [row.get(name)] for name in names}
        turns = [row["messages"][-1]]
        assert judge([""], [turns], mode=[row["mode"]], **columns) == [1.0], row


@pytest.mark.parametrize(("source", "judge"), [(world_knowledge, science.score), (multilingual, science.score)])
def test_another_questions_answer_scores_zero(source: Any, judge: Judge) -> None:
    rows = list(source.prompts("test", size=300, languages=["en"]))
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        value = judge([""], [other["answer"]], answer=[row["answer"]], tolerance=[row.get("tolerance")])
        assert value == [float(row["answer"].lower() == other["answer"].lower())], (row["answer"], other["answer"])


# --- the machinery ---


def numbers(draw: Any) -> Item:
    number = draw.randrange(40)
    responses = (Response(f"{number}", f"it is {number}"), Response(f"[{number}]", "other", "direct"))
    return Item(f"n{number}", responses, "math", "count", columns={"answer": number})


def test_a_row() -> None:
    (row,) = prompt_rows("name", {"numbers": numbers}, "train", 0, 1)
    number = row["answer"]
    assert row == {
        "id": row["id"],
        "messages": [{"role": "user", "content": f"n{number}"}],
        "domain": "math",
        "task": "count",
        "language": "en",
        "answer": number,
    }
    assert row["id"].startswith("name/count/")


def test_an_exhausted_maker_ends_and_the_split_is_the_hash() -> None:
    found = {
        split: {item.question for item in items({"n": numbers}, split, Random(0), 100)} for split in ("train", "test")
    }
    assert found["train"] | found["test"] == {f"n{number}" for number in range(40)}
    assert found["test"] == {key for key in found["train"] | found["test"] if is_test(key)}


def test_responses_of_a_question_are_different_ones_and_modes_have_their_texts() -> None:
    rows = list(dialogue_rows("name", {"n": numbers}, "train", 0, 20, 0.5, responses=2))
    counts = Counter(question(row) for row in rows)
    assert set(counts.values()) == {2}
    turns = [(row["mode"], row["messages"][-1]) for row in rows]
    assert "direct" in {turn["content"] for mode, turn in turns if mode == "non_reasoning"}
    assert all(("reasoning_content" in turn) == (mode == "reasoning") for mode, turn in turns)
    assert all(turn["content"] != "direct" for mode, turn in turns if mode == "reasoning")


def test_nothing_chosen_is_an_error() -> None:
    assert chosen("kinds", None, ("a", "b")) == ("a", "b")
    with pytest.raises(ValueError, match="kinds: none; known are a, b"):
        chosen("kinds", [], ("a", "b"))
