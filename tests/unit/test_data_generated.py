"""What holds of all generators: checked rows, splits without a shared question, seeds, right answers, languages."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from agapo.curation.dialogues import check_dialogue
from agapo.errors import UserError
from data import (
    arithmetic,
    constraints,
    korean_documents,
    long_context,
    multilingual,
    reasoning_sft,
    software,
    tiny_domains,
    tiny_tasks,
    tool_dialogues,
    world_knowledge,
)
from data.generating import Item, Response, UpTo, chosen, dialogue_rows, is_test, items, prompt_rows
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
    with pytest.raises(UserError, match=rf"data\.args\.{option}: {value}; known are "):
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
        split: {item.question for item in items({"n": numbers}, split, Random(0), UpTo(100))}
        for split in ("train", "test")
    }
    assert found["train"] | found["test"] == {f"n{number}" for number in range(40)}
    assert found["test"] == {key for key in found["train"] | found["test"] if is_test(key)}


def test_a_size_that_was_asked_for_is_made_or_refused() -> None:
    train = {item.question for item in items({"n": numbers}, "train", Random(0), UpTo(100))}
    assert len(list(items({"n": numbers}, "train", Random(0), len(train)))) == len(train)
    with pytest.raises(UserError, match=rf"^data\.args\.size: is 100; only {len(train)} different ones can be made"):
        list(items({"n": numbers}, "train", Random(0), 100))
    assert len(list(items({"n": numbers}, "test", Random(0), 100))) == 40 - len(train)


GENERATORS = (multilingual, reasoning_sft, software, tool_dialogues, world_knowledge)
TINY = ("code", "science", "instructions")
SIZED: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
    *((f"{m.__name__}.{name}", getattr(m, name), {}) for m in GENERATORS for name in ("prompts", "dialogues")),
    ("data.arithmetic.prompts", arithmetic.prompts, {}),
    ("data.constraints.prompts", constraints.prompts, {}),
    *((f"data.tiny_tasks.prompts {kind}", tiny_tasks.prompts, {"kind": kind}) for kind in TINY),
    *((f"data.tiny_domains.prompts {kind}", tiny_domains.prompts, {"kind": kind}) for kind in tiny_domains.KINDS),
    *((f"data.tiny_tasks.dialogues {kind}", tiny_tasks.dialogues, {"kind": kind}) for kind in TINY),
]
CELLS = [
    long_context.needles,
    tiny_domains.needles,
    *(getattr(m, name) for m in (long_context, korean_documents) for name in ("prompts", "dialogues")),
]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("name", "source", "args"), SIZED, ids=[name for name, *_ in SIZED])
def test_an_absurd_size_is_refused_at_once(name: str, source: Any, args: dict[str, Any], split: str) -> None:
    for size in (10**9, -1, True, 1.5):
        with pytest.raises(UserError, match=r"^data\.args\.size: is "):
            next(source(split, size=size, **args))
    assert next(source(split, size=1, **args))["messages"]
    assert list(source(split, size=0, **args)) == []


@pytest.mark.parametrize("source", CELLS, ids=lambda source: f"{source.__module__}.{source.__name__}")
def test_absurd_cells_are_refused_at_once(source: Any) -> None:
    with pytest.raises(UserError, match=r"^data\.args\.per_cell: is 1000000000; at most \d+ can be made"):
        next(source("train", per_cell=10**9))
    assert next(source("train", per_cell=1, lengths=[200]))["messages"]
    with pytest.raises(UserError, match=r"^data\.args\.lengths: is 1000000000"):
        next(source("train", per_cell=1, lengths=[10**9]))


NO_CELLS: list[tuple[str, Any]] = [
    *(("lengths", wrong) for wrong in ([], "300", [0], [200, -1], [0.5], [True], [None], ["1"], [float("inf")])),
    *(("positions", wrong) for wrong in ([], "0", [2], [0.5, -0.1], [True], [None], ["1"], [float("nan")])),
]


@pytest.mark.parametrize("source", CELLS, ids=lambda source: f"{source.__module__}.{source.__name__}")
@pytest.mark.parametrize(("option", "wrong"), NO_CELLS)
def test_cells_that_are_none_are_refused_at_once(source: Any, option: str, wrong: Any) -> None:
    with pytest.raises(UserError, match=rf"^data\.args\.{option}: is "):
        source("train", per_cell=1, **{option: wrong})


@pytest.mark.parametrize("source", CELLS, ids=lambda source: f"{source.__module__}.{source.__name__}")
def test_the_first_and_last_position_are_cells(source: Any) -> None:
    assert {row["position"] for row in source("train", per_cell=1, lengths=[200], positions=(0, 1.0))} == {0, 1}


SHARES: list[tuple[Callable[..., Any], str, dict[str, Any]]] = [
    *((module.dialogues, "reasoning", {}) for module in (*GENERATORS, long_context, korean_documents)),
    (tiny_tasks.dialogues, "reasoning", {"kind": "code"}),
    (tiny_tasks.dialogues, "careful", {"kind": "code"}),
    (korean_documents.public, "reasoning", {"path": "."}),
    *((arithmetic.dialogues, f"phases.{name}", {}) for name in ("reasoning", "worked")),
    *((tiny_domains.dialogues, f"phases.{name}", {"kind": "math"}) for name in ("reasoning", "worked", "foreign")),
]


@pytest.mark.parametrize(("source", "option", "args"), SHARES, ids=lambda one: getattr(one, "__module__", str(one)))
def test_shares_are_from_0_to_1(source: Any, option: str, args: dict[str, Any]) -> None:
    phases, _, name = option.rpartition(".")
    for wrong in (2, -0.1, True, "0.5", None, float("nan")):
        given = {"phases": [{"size": 1, name: wrong}]} if phases else {name: wrong}
        with pytest.raises(UserError, match=rf"^data\.args\.{option}: is .*; should be a share"):
            source("train", **args, **given)


def test_phases_are_of_a_size() -> None:
    with pytest.raises(UserError, match=r"^data\.args\.phases\.size: is 1000000000"):
        next(arithmetic.dialogues("train", phases=[{"size": 10**9}]))
    with pytest.raises(UserError, match=r"^data\.args\.phases\.size: is -1"):
        next(tiny_domains.dialogues("train", kind="math", phases=[{"size": -1}]))


@pytest.mark.parametrize(
    ("source", "args"),
    [
        (constraints.prompts, {"languages": ["en"], "most": 1}),
        (tiny_tasks.prompts, {"kind": "code"}),
        (tiny_domains.prompts, {"kind": "world", "languages": ["en"]}),
        (tiny_tasks.prompts, {"kind": "instructions"}),
        (world_knowledge.prompts, {"kinds": ["capital"], "languages": ["en"]}),
        (world_knowledge.dialogues, {"kinds": ["symbol"], "languages": ["en"]}),
    ],
)
def test_more_than_there_is_is_refused_with_the_number_there_is(source: Any, args: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^data\.args\.size: is 90000; only \d+ different ones can be made") as caught:
        list(source("train", size=90_000, **args))
    most = int(str(caught.value).split("only ")[1].split(" ")[0])
    assert len(list(source("test", size=90_000, **args))) < most
    assert len(list(source("train", size=most, **args))) == most


def test_all_constraints_that_there_are_are_made_whatever_the_seed() -> None:
    # 9 subjects, 3 tasks; 3 plain kinds and an ending, 5 lengths, 3 and 3 numbers, 2 × 4 words
    for seed, languages in ((0, ["en"]), (1, ["en"]), (0, ["en", "ko"])):
        rows = list(constraints.prompts("train", size=621 * len(languages), languages=languages, most=1, seed=seed))
        assert len({row["messages"][0]["content"] for row in rows}) == 9 * 3 * 23 * len(languages)
    with pytest.raises(UserError, match=r"only 621 different ones can be made; ask for 621, or raise data\.args\.most"):
        list(constraints.prompts("train", size=622, languages=["en"], most=1))
    options: list[dict[str, Any]] = [{"most": 0}, {"most": 9}, {"languages": []}]
    for option in options:
        with pytest.raises(UserError, match=rf"^data\.args\.{next(iter(option))}: "):
            next(constraints.prompts("train", **option))


def test_scenes_that_cannot_be_played_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise tool_dialogues.NoScene

    monkeypatch.setitem(tool_dialogues.SCENES, "chat", never)
    with pytest.raises(UserError, match=r"^data\.args\.scenes: chat cannot be played in the split 'train'"):
        next(tool_dialogues.dialogues("train", scenes=["chat"]))
    with pytest.raises(UserError, match=r"^data\.args\.most_scenes: is 0"):
        next(tool_dialogues.dialogues("train", most_scenes=0))


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
    with pytest.raises(UserError, match="kinds: none; known are a, b"):
        chosen("kinds", [], ("a", "b"))


def test_a_regular_expression() -> None:
    (row,) = software.dialogues("test", size=1, kinds=["regex"], reasoning=0.0)
    asked = (
        "Write a Python function `is_code(text)` that says whether a text is exactly 3 capital letters from A to "
        "Z, then "
        "`/`, then 2 digits, and optionally `/` and 1 to 4 more digits. Use a regular expression. Give it in one "
        "```python "
        "block."
    )
    program = (
        "```python\nimport re\n\n\ndef is_code(text):\n"
        '    return re.fullmatch(r"[A-Z]{3}[/][0-9]{2}(?:[/][0-9]{1,4})?", text) is not None\n```'
    )
    assert row == {
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": program}],
        "mode": "non_reasoning",
        "domain": "code",
        "task": "regex",
        "language": "en",
        "test_list": [
            "assert is_code('QQQ/77')",
            "assert is_code('QQQ/00/1111')",
            "assert not is_code('QQQ77')",
            "assert not is_code('QQQ/77/')",
            "assert not is_code('QQQxQQQ/77')",
            "assert not is_code('QQQ/77/11111')",
            "assert not is_code('QQ/77')",
        ],
        "test_setup_code": "",
    }


def test_two_derivations_of_a_puzzle() -> None:
    two, one = reasoning_sft.dialogues("test", size=1, kinds=["logic"], responses=2, reasoning=1.0)
    asked = (
        "Knights always tell the truth, knaves always lie. Ann says: Dan and I are of the same kind. Ida says: "
        "Ann is a "
        "knave. Hal says: Dan is a knight. Dan says: Ida is a knight. How many knights are there? Put the answer "
        "within "
        "\\boxed{}."
    )
    thought = (
        "Ann's claim is false and Ann is a knave. Ida's claim is true and Ida is a knight. Hal's claim is true "
        "and Hal is a "
        "knight. Dan's claim is true and Dan is a knight. So Ann a knave, Ida a knight, Hal a knight, Dan a "
        "knight; no other "
        "assignment fits. Knights: 3."
    )
    turn = {"role": "assistant", "content": "The answer is \\boxed{3}.", "reasoning_content": thought}
    about = {"mode": "reasoning", "domain": "logic", "task": "knights", "language": "en", "answer": "3"}
    assert one == {"messages": [{"role": "user", "content": asked}, turn], **about}
    assert question(two) == asked and two["messages"][-1]["content"] == turn["content"]
    other = two["messages"][-1]["reasoning_content"]
    assert (
        other.startswith("Cases for Ann/Ida/Hal/Dan (T is a knight): T/T/T/T: Ida contradicts.")
        and "F/T/T/T: fits." in other
    )


def test_a_korean_notice() -> None:
    args = {"lengths": [50], "positions": [0.5], "kinds": ["notice"], "formats": ["clauses"]}
    (row,) = korean_documents.dialogues("test", per_cell=1, reasoning=1.0, **args)
    assert question(row) == (
        "다음 문서를 읽고 질문에 답하세요.\n\n【지역 창업 시행 공고】\n\n1번 어르신 전통시장 장학\n  ① 모집 "
        "인원: 114명\n"
        "  ② 지원 금액: 2680만원\n  ③ 접수 마감: 1월 25일\n  ④ 접수 부서: 산업지원과\n\n2번 소상공인 건강 인증\n"
        "  ① 모집 인원: 101명\n  ② 지원 금액: 180만원\n  ③ 접수 마감: 6월 19일\n  ④ 접수 부서: 농업기술과\n\n"
        "질문: 1번(어르신 전통시장 장학)에서 접수 부서는 무엇입니까? 값만 쓰세요."
    )
    assert row["messages"][-1]["content"] == row["answer"] == "산업지원과"
    assert (row["format"], row["context_length"], row["position"], row["task"]) == ("clauses", 50, 0.5, "notice")
