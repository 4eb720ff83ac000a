"""Chats as public sets lay them out: each layout, what is passed on or refused, splits by question, real files."""

import json
from pathlib import Path
from typing import Any

import pytest

from agapo.chat import trained_turns
from agapo.curation.dialogues import check_dialogue, normal_dialogue
from agapo.errors import UserError
from data import (
    files,
    korean_documents,
    long_context,
    multilingual,
    reasoning_sft,
    software,
    tool_dialogues,
    world_knowledge,
)
from data.layouts import chat_of, json_or_text, tools_of

ASKED, SAID = {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}
CALL = {"name": "add", "arguments": {"a": 1}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "1"}
SYSTEM = {"role": "system", "content": "Short."}
TAGGED = {"name": "write", "arguments": {"text": "</tool_call><tool_call>{"}}

LAYOUTS: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    ({"messages": [ASKED, SAID]}, [ASKED, SAID]),
    ({"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]}, [ASKED, SAID]),
    ({"prompt": "1+1?", "completion": "2"}, [ASKED, SAID]),
    ({"prompt": [ASKED], "completion": [SAID]}, [ASKED, SAID]),
    ({"instruction": "Add.", "input": "1+1", "output": "2"}, [{"role": "user", "content": "Add.\n\n1+1"}, SAID]),
    ({"instruction": "1+1?", "input": "", "output": "2"}, [ASKED, SAID]),
    (
        {"system": "Short.", "question": "1+1?", "answer": "2"},
        [{"role": "system", "content": "Short."}, ASKED, SAID],
    ),
    ({"inputs": "1+1?", "targets": "2"}, [ASKED, SAID]),
    # a system turn in a column of its own
    ({"system": "Short.", "messages": [ASKED, SAID]}, [SYSTEM, ASKED, SAID]),
    ({"system_prompt": "Short.", "conversations": [ASKED, SAID]}, [SYSTEM, ASKED, SAID]),
    ({"system_prompt": "Short.", "prompt": "1+1?", "response": "2"}, [SYSTEM, ASKED, SAID]),
    ({"system": "Short.", "messages": [SYSTEM, ASKED, SAID]}, [SYSTEM, ASKED, SAID]),
    ({"system": "Short.", "prompt": [SYSTEM, ASKED], "completion": [SAID]}, [SYSTEM, ASKED, SAID]),
    ({"system": "", "system_prompt": None, "messages": [ASKED, SAID]}, [ASKED, SAID]),
    # earlier turns
    (
        {"instruction": "1+1?", "output": "2", "history": [["0+0?", "0"]], "system": "Short."},
        [SYSTEM, {"role": "user", "content": "0+0?"}, {"role": "assistant", "content": "0"}, ASKED, SAID],
    ),
    ({"query": "1+1?", "response": "2", "history": [ASKED, SAID]}, [ASKED, SAID, ASKED, SAID]),
    ({"instruction": "1+1?", "output": "2", "history": []}, [ASKED, SAID]),
    ({"instruction": "1+1?", "response": "2", "history": json.dumps([["1+1?", "2"]])}, [ASKED, SAID, ASKED, SAID]),
    ({"instruction": "Add.", "context": "1+1", "response": "2"}, [{"role": "user", "content": "Add.\n\n1+1"}, SAID]),
    # what follows the question
    (
        {"question": "Add.", "context": "1+1", "answer": "2"},
        [{"role": "user", "content": "Add.\n\n1+1"}, SAID],
    ),
    ({"prompt": "Add.", "input": "1+1", "completion": "2"}, [{"role": "user", "content": "Add.\n\n1+1"}, SAID]),
    (
        {"instruction": "Add.", "input": "1", "context": "and 1", "output": "2"},
        [{"role": "user", "content": "Add.\n\n1\n\nand 1"}, SAID],
    ),
    # columns that say again what the dialogue says
    ({"prompt": " 1+1?\n", "prompt_id": "a", "messages": [ASKED, SAID]}, [ASKED, SAID]),
    ({"prompt": [ASKED], "messages": [SYSTEM, ASKED, SAID]}, [SYSTEM, ASKED, SAID]),
    ({"instruction": "1+1?", "output": "2", "prompt": "Below is a task: 1+1? Response: 2"}, [ASKED, SAID]),
    (
        {
            "messages": [ASKED, SAID],
            "conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}],
        },
        [ASKED, SAID],
    ),
    # calls whose texts hold the tags, in a field as JSON text, and in OpenAI's former field
    (
        {"messages": [ASKED, {**SAID, "content": f"So\n<tool_call>{json.dumps(TAGGED)}</tool_call>"}, RESULT, SAID]},
        [ASKED, {**CALLING, "content": "So", "tool_calls": [TAGGED]}, RESULT, SAID],
    ),
    (
        {"messages": [ASKED, {**CALLING, "tool_calls": json.dumps([CALL])}, RESULT, SAID]},
        [ASKED, CALLING, RESULT, SAID],
    ),
    (
        {"messages": [ASKED, {"role": "assistant", "content": None, "function_call": CALL}, RESULT, SAID]},
        [ASKED, CALLING, RESULT, SAID],
    ),
    # thinking
    (
        {"prompt": "1+1?", "completion": "<think>\none and one\n</think>\n\n2"},
        [ASKED, {**SAID, "reasoning_content": "one and one"}],
    ),
    ({"prompt": "1+1?", "completion": "<think>\n\n</think>\n\n2"}, [ASKED, SAID]),
    (
        {
            "prompt": "1+1?",
            "completion": "<|begin_of_thought|>one<|end_of_thought|>\n<|begin_of_solution|>2<|end_of_solution|>",
        },
        [ASKED, {**SAID, "reasoning_content": "one"}],
    ),
    # calls in turns of their own, two at once, and behind a text
    (
        {"messages": [ASKED, {"role": "tool_call", "content": json.dumps(CALL)}, RESULT, SAID]},
        [ASKED, CALLING, RESULT, SAID],
    ),
    (
        {"messages": [ASKED, *[{"role": "function_call", "content": json.dumps(CALL)}] * 2, RESULT, RESULT, SAID]},
        [ASKED, {**CALLING, "tool_calls": [CALL, CALL]}, RESULT, RESULT, SAID],
    ),
    (
        {
            "messages": [
                ASKED,
                {**SAID, "content": "Wait."},
                {"role": "tool_call", "content": json.dumps([CALL])},
                RESULT,
                SAID,
            ]
        },
        [ASKED, {**CALLING, "content": "Wait."}, RESULT, SAID],
    ),
    # calls in tags, as Python literals, with arguments as JSON text
    (
        {
            "conversations": [
                {"from": "human", "value": "1+1?"},
                {"from": "gpt", "value": "<tool_call>\n{'arguments': {'a': 1}, 'name': 'add'}\n</tool_call>"},
                {"from": "tool", "value": "<tool_response>\n1\n</tool_response>"},
                {"from": "gpt", "value": "2"},
            ]
        },
        [ASKED, CALLING, RESULT, SAID],
    ),
    (
        {
            "messages": [
                ASKED,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
                },
                RESULT,
                SAID,
            ]
        },
        [ASKED, CALLING, RESULT, SAID],
    ),
    # parquet fills what a turn lacks
    ({"messages": [{**ASKED, "tool_calls": None, "name": None}, SAID]}, [ASKED, SAID]),
]


@pytest.mark.parametrize(("content", "messages"), LAYOUTS)
def test_layouts(content: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    assert chat_of(content) == messages


@pytest.mark.parametrize(("content", "messages"), LAYOUTS)
def test_each_layout_gives_a_row_that_the_stage_takes(content: Any, messages: Any, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(content))
    (row,) = files.dialogues("train", path=tmp_path, domain="math", task="sum")
    thinks = any(turn.get("reasoning_content") for turn in messages)
    assert row["messages"] == messages
    assert (row["mode"], row["domain"], row["task"], row["language"]) == (
        "reasoning" if thinks else "non_reasoning",
        "math",
        "sum",
        "en",
    )
    assert row["place"] == f"{path}:1"
    check_dialogue(row, "?")


def from_file(content: Any, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "rows.jsonl").write_text(json.dumps(content))
    return normal_dialogue(next(files.dialogues("train", path=tmp_path / "rows.jsonl")), "?")


MISTAKEN, ASKED_AGAIN = {"role": "assistant", "content": "3"}, {"role": "user", "content": "Sure?"}
TALK = [ASKED, MISTAKEN, ASKED_AGAIN, SAID]
UNTRAINED = [
    *({name: 0} for name in ("weight", "loss_mask", "loss", "trainable", "training", "train_on_turn", "loss_weight")),
    *({name: False} for name in ("train", "weight", "loss_mask", "loss", "trainable")),
    *({name: 1} for name in ("masked", "ignore_loss", "no_loss")),
    {"weight": 0.0},
    {"weight": 0, "train": False, "masked": True},
]


@pytest.mark.parametrize("mark", UNTRAINED, ids=str)
def test_other_formats_marks_leave_a_turn_out(mark: dict[str, Any], tmp_path: Path) -> None:
    row = from_file({"messages": [ASKED, {**MISTAKEN, **mark}, ASKED_AGAIN, SAID]}, tmp_path)
    assert trained_turns(row["messages"], "non_reasoning") == [3]
    assert row["messages"][1] == {**MISTAKEN, "train": False}
    turns = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "3", **mark}, ASKED_AGAIN, SAID]
    assert from_file({"conversations": turns}, tmp_path)["messages"] == row["messages"]


@pytest.mark.parametrize(
    "mark", [{"weight": 1}, {"loss": True}, {"trainable": 1.0}, {"masked": 0}, {"loss_mask": None}], ids=str
)
def test_marks_of_trained_turns_change_nothing(mark: dict[str, Any], tmp_path: Path) -> None:
    row = from_file({"messages": [ASKED, {**MISTAKEN, **mark}, ASKED_AGAIN, SAID]}, tmp_path)
    assert trained_turns(row["messages"], "non_reasoning") == [1, 3]
    untrained = {name: 0 if name != "masked" else 1 for name in mark}
    assert from_file({"messages": [{**ASKED, **untrained}, MISTAKEN, ASKED_AGAIN, SAID]}, tmp_path)["messages"] == TALK


@pytest.mark.parametrize(
    ("content", "trained"),
    [
        ({"messages": TALK, "loss_mask": [0, 0, 0, 1]}, [3]),
        ({"conversations": TALK, "weights": [1, 0, 1, 1]}, [3]),
        ({"messages": TALK, "train_mask": [False, True, False, True]}, [1, 3]),
        ({"messages": TALK, "mask": "User"}, [1, 3]),
        ({"messages": TALK, "weight": 1, "train_on_inputs": False, "images": []}, [1, 3]),
        ({"messages": TALK, "loss_mask": [0, 0, 0, 1], "trainable": [1, False, 0, True]}, [3]),
        ({"messages": TALK, "train": True, "is_train": 1, "training_set": "a", "label": 0, "split": "train"}, [1, 3]),
        ({"messages": TALK, "url": "http", "score": 0.5, "id": 1, "lang": "en", "metadata": {"a": False}}, [1, 3]),
    ],
)
def test_marks_in_a_column(content: dict[str, Any], trained: list[int], tmp_path: Path) -> None:
    row = from_file(content, tmp_path)
    assert trained_turns(row["messages"], "non_reasoning") == trained


def test_a_call_does_not_join_a_text_that_is_left_out(tmp_path: Path) -> None:
    text, call = {**SAID, "content": "Wait.", "weight": 0}, {"role": "tool_call", "content": json.dumps(CALL)}
    row = from_file({"messages": [ASKED, text, {**call, "weight": 1}, RESULT, SAID]}, tmp_path)
    assert trained_turns(row["messages"], "non_reasoning") == [2, 4]
    row = from_file({"messages": [ASKED, text, {**call, "weight": 0}, RESULT, SAID]}, tmp_path)
    assert trained_turns(row["messages"], "non_reasoning") == [3]


def marked(**mark: Any) -> dict[str, Any]:
    return {"messages": [ASKED, {**MISTAKEN, **mark}, ASKED_AGAIN, SAID]}


UNREAD_MARKS: list[tuple[str, Any]] = [
    *((name, False) for name in ("compute_loss", "should_train", "do_train", "learn", "label", "computeLoss", "good")),
    *((name, 0) for name in ("compute_loss", "doTrain", "label", "supervised")),
    ("no_train", True),
    ("skip_loss", "true"),
    ("loss_factor", 0.5),
]
UNREAD_COLUMNS: list[dict[str, Any]] = [
    *({name: False} for name in ("train", "do_train", "compute_loss", "trainable", "is_trained_on")),
    *({name: True} for name in ("ignore", "masked", "no_train", "train_on_last_turn_only")),
    {"train": 0},
    {"train_turns": [3]},
    {"turn_losses": {"1": 0}},
    *(
        {name: "In French."}
        for name in ("System", "SYSTEM_PROMPT", "systemPrompt", "developer", "instruction", "input")
    ),
    *({name: "In French."} for name in ("context", "prompt", "question", "Instructions", "preamble")),
    {"prompt": [{"role": "user", "content": "2+2?"}]},
    {"prompt": "In French: 1+1?"},
    {"context": {"text": "In French."}},
    {"System": "2"},  # the assistant's word, not the system's
]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"messages": [SYSTEM, ASKED, SAID], "system": "Long."}, "give different system turns"),
        ({"messages": [ASKED, SAID], "system": "Long.", "system_prompt": "Short."}, "system and system_prompt give"),
        ({"messages": [ASKED, SAID], "system": ["Short."]}, "column 'system' is"),
        ({"messages": [ASKED, SAID], "history": [["a", "b"]]}, "column 'history' is not read beside 'messages'"),
        ({"instruction": "1+1?", "output": "2", "history": "0+0?"}, "column 'history' is '0\\+0"),
        ({"instruction": "1+1?", "output": "2", "history": [["0+0?"]]}, "should hold \\[question, answer\\]"),
        ({"messages": TALK, "loss_mask": [0, 1]}, "has 2 values for 4 turns"),
        ({"messages": TALK, "loss_mask": 0}, "column 'loss_mask' is not read"),
        ({"messages": TALK, "masks": [0, 1, 0, 1]}, "column 'masks' is not read"),
        ({"messages": TALK, "mask": "Assistant"}, "column 'mask' is not read"),
        ({"messages": TALK, "mask_history": True}, "column 'mask_history' is not read"),
        ({"messages": TALK, "train_on_inputs": True}, "column 'train_on_inputs' is not read"),
        ({"messages": TALK, "weight": 0.5}, "column 'weight' is not read"),
        ({"messages": TALK, "images": ["a.png"]}, "column 'images' is not read"),
        (marked(weight=0.5), "turn 2: 'weight' is 0.5; should be 0 or 1"),
        (marked(loss="false"), "turn 2: 'loss' is 'false'"),
        (marked(train="no"), "'train' is 'no'; should be true or false"),
        (marked(weight=0, loss=True), "'weight' and 'loss' contradict each other"),
        (marked(train=True, masked=True), "'train' and 'masked' contradict"),
        (marked(mask=1), "turn 2: 'mask' may mean"),
        (marked(training_detail=[{"begin": 0}]), "'training_detail' may mean"),
        *((marked(**{name: no}), f"turn 2: '{name}' is not read") for name, no in UNREAD_MARKS),
        *(({"messages": TALK, **column}, f"column '{next(iter(column))}' is not read") for column in UNREAD_COLUMNS),
        (
            {"messages": TALK, "loss_mask": [0, 0, 0, 1], "trainable": [0, 1, 0, 1]},
            "column 'trainable' says 1 of turn 2",
        ),
        ({"messages": TALK, "loss_mask": [0, 0, 0, 1], "weights": [0, 1, 0, 1]}, "column 'weights' says 1 of turn 2"),
        (
            marked(loss_mask=1) | {"train_mask": [0, 0, 0, 1]},
            "column 'train_mask' says 0 of turn 2, and another mark 1",
        ),
        (marked(train=True) | {"loss_mask": [0, 0, 0, 1]}, "'train' and 'loss_mask' contradict"),
        ({"messages": [ASKED, SAID], "conversations": TALK}, "'messages' and 'conversations' hold different dialogues"),
        (marked() | {"conversation": marked(weight=0)["messages"]}, "'messages' and 'conversation' hold different"),
        ({"question": "Q", "context": {"a": "b"}, "answer": "2"}, "'question' and 'context' are joined"),
        ({"prompt": [ASKED], "input": "1", "completion": [SAID]}, "'prompt' and 'input' are joined"),
        ({"question": "Q", "passage": "P", "answer": "2"}, "column 'passage' is not read beside 'question'"),
        ({"instruction": "I", "question": "Q", "answer": "2"}, "column 'instruction' is not read beside 'question'"),
        ({"messages": [{**ASKED, "weight": 1}, SAID]}, "turn 1: 'weight' has the user's turn trained on"),
    ],
)
def test_what_is_not_read_is_refused(content: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        from_file(content, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/rows.jsonl:1: ")
    assert str(caught.value).count("rows.jsonl") == 1


@pytest.mark.parametrize("column", ["system", "system_prompt", "functions", "loss_mask"])
def test_rows_of_other_sources_are_refused_as_well(column: str) -> None:
    about = {"mode": "non_reasoning", "domain": "world", "task": "chat", "language": "en"}
    with pytest.raises(UserError, match=rf"^here: column '{column}' is not read"):
        check_dialogue({"messages": TALK, **about, column: [0]}, "here")
    check_dialogue({"messages": TALK, **about, column: None}, "here")


@pytest.mark.parametrize(
    "extra",
    [
        {"name": "Ann", "id": 1, "turn": 0, "score": 0.5, "train_id": "x"},
        {"label": "sum"},
        {"toxic": False, "redacted": True},
    ],
)
def test_what_turns_carry_besides_is_let_be(extra: dict[str, Any], tmp_path: Path) -> None:
    assert trained_turns(from_file(marked(**extra), tmp_path)["messages"], "non_reasoning") == [1, 3]
    (tmp_path / "rows.jsonl").unlink()
    result = {**RESULT, "is_error": True}
    from_file({"messages": [ASKED, CALLING, result, SAID]}, tmp_path)


def test_prompts_begin_with_the_text_of_a_system_column(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": [ASKED], "system": "Short.", "level": 3}))
    (row,) = files.prompts("train", path=tmp_path)
    assert (row["messages"], row["level"]) == ([SYSTEM, ASKED], 3)
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": [SYSTEM, ASKED], "system": "Long."}))
    with pytest.raises(UserError, match=r"train\.jsonl:1: .*give different system turns"):
        list(files.prompts("train", path=tmp_path))


def test_tools_come_in_one_form() -> None:
    form = {"type": "function", "function": {"name": "add", "parameters": {}}}
    for tools in ([form], [form["function"]], json.dumps([form["function"]]), [json.dumps(form["function"])], form):
        assert tools_of({"tools": tools}) == [form]
    assert tools_of({"tools": "[]"}) is tools_of({}) is None
    assert tools_of({"tools": "{broken"}) == "{broken"


def test_json_or_text() -> None:
    assert [json_or_text(text) for text in ('{"a": null}', "{'a': None}", "plain", "[", 3)] == [
        {"a": None},
        {"a": None},
        "plain",
        "[",
        3,
    ]


def test_own_columns_win_and_can_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(
        json.dumps(
            {"q": "1+1?", "output": "2", "domain": "math", "language": "ko", "answer": "2", "level": 3, "x": None}
        )
    )
    (row,) = files.dialogues("train", path=tmp_path, columns={"q": "instruction"}, domain="world", language="en")
    assert row == {
        "mode": "non_reasoning",
        "domain": "math",
        "task": "chat",
        "language": "ko",
        "answer": "2",
        "level": 3,
        "messages": [ASKED, SAID],
        "place": f"{tmp_path / 'train.jsonl'}:1",
    }


BAD = [
    ({"messages": [ASKED, {"role": "wizard", "content": "2"}]}, "the role is 'wizard'"),
    ({"messages": [ASKED, {"role": "assistant", "content": ""}]}, "turn is empty"),
    ({"messages": [ASKED, {"role": "tool_call", "content": "{broken"}, RESULT, SAID]}, "tool call 1"),
    (
        {"messages": [ASKED, {"role": "tool_call", "content": '{"name": "f", "arguments": "x"}'}, RESULT, SAID]},
        "'arguments'",
    ),
    ({"messages": [ASKED, "2"]}, "turn 2"),
    ({"messages": [ASKED]}, "ends with the turn of 'user'"),
    ({"messages": [ASKED, SAID], "tools": "{broken"}, "column 'tools'"),
    ({"prompt": "1+1?", "completion": 2}, "the assistant's content is 2"),
]


@pytest.mark.parametrize(("content", "reason"), BAD)
def test_what_cannot_be_read_is_passed_on_and_named_by_the_stage(content: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{json.dumps({'messages': [ASKED, SAID]})}\n{json.dumps(content)}\n")
    good, bad = files.dialogues("train", path=tmp_path)
    check_dialogue(good, "?")
    with pytest.raises(UserError, match=rf"train\.jsonl:2: .*{reason}"):
        check_dialogue(bad, "?")


@pytest.mark.parametrize("content", [{"text": "hello"}, [1], {"messages": "hello"}, {"prompt": "1+1?"}])
def test_rows_in_no_layout_are_named_by_the_stage(content: Any, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(f"{json.dumps({'messages': [ASKED, SAID]})}\n{json.dumps(content)}\n")
    _, bad = files.dialogues("train", path=tmp_path)
    with pytest.raises(UserError, match=r"train\.jsonl:2: column 'messages' is (missing|'hello')"):
        check_dialogue(bad, "?")


def test_a_single_file_is_all_for_training_unless_some_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"{n}?"}, SAID]} for n in range(80)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(list(files.dialogues("train", path=path))) == 80
    assert list(files.dialogues("test", path=path)) == []
    parted = [len(list(files.dialogues(split, path=path, hold_out=True))) for split in ("train", "test")]
    assert sum(parted) == 80
    assert 2 <= parted[1] <= 20


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{broken", "not JSON"),
        ('{"a": "\xe9"}'.encode("latin-1"), "not UTF-8: .* byte 8 of the line"),
        (b'{"a": ' + b"1" * 5000 + b"}", "cannot be read: Exceeds the limit"),
        (b"[" * 100_000, "nested too deeply"),
        (json.dumps({"messages": [ASKED, {**SAID, "tool_calls": 5}]}).encode(), "'tool_calls' is 5"),
    ],
)
def test_a_line_that_cannot_be_read_breaks_one_row(line: bytes, reason: str, tmp_path: Path) -> None:
    good = json.dumps({"messages": [ASKED, SAID]}).encode()
    (tmp_path / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\n" + line + b"\n" + good)
    first, bad, last = files.dialogues("train", path=tmp_path)
    check_dialogue(first, "?")
    check_dialogue(last, "?")
    with pytest.raises(UserError, match=rf"train\.jsonl:3: .*{reason}"):
        check_dialogue(bad, "?")


def test_questions_of_a_broken_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{broken\n")
    with pytest.raises(UserError, match=r"train\.jsonl:1: not JSON"):
        list(files.prompts("train", path=tmp_path))


def test_a_path_that_is_there_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.path"):
        files.dialogues("train")
    with pytest.raises(UserError, match="rows that have a chat"):
        list(files.dialogues("train", path=tmp_path / "gone.jsonl"))


def test_other_responses_to_a_question_stay_in_its_split(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"{n}+1?", "completion": text} for n in range(40) for text in (f"{n + 1}", f"It is {n + 1}.")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {
        split: [row["messages"][0]["content"] for row in files.dialogues(split, path=path)]
        for split in ("train", "test")
    }
    assert len(asked["train"]) + len(asked["test"]) == 80
    assert not set(asked["train"]) & set(asked["test"])
    assert all(asked[split].count(text) == 2 for split in asked for text in asked[split])


def test_reasoning_sets_are_chosen_by_domain(tmp_path: Path) -> None:
    rows = [
        {
            "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "<think>t</think>a"}],
            "domain": name,
        }
        for name in ("math", "code", "science")
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(reasoning_sft.public("train", path=tmp_path))
    assert [(row["domain"], row["task"], row["mode"]) for row in found] == [
        ("math", "math", "reasoning"),
        ("code", "code", "reasoning"),
        ("world", "science", "reasoning"),
    ]
    assert [row["domain"] for row in reasoning_sft.public("train", path=tmp_path, kinds=["code"])] == ["code"]
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": [ASKED, SAID], "source": "open-r1/codeforces-cots"}))
    assert [row["domain"] for row in reasoning_sft.public("train", path=tmp_path)] == ["code"]
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": [ASKED, SAID]}))
    assert [row["domain"] for row in reasoning_sft.public("train", path=tmp_path)] == ["world"]
    with pytest.raises(UserError, match=r"train\.jsonl:1: 'domain' and 'source' name none of math, code, science"):
        list(reasoning_sft.public("train", path=tmp_path, kinds=["code"]))


CHAT = {"messages": [ASKED, SAID]}
THOUGHT = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "<think>t</think>2"}]
ARTICLE = {"LawNameKor": "도로법", "ClauseNumber": "1", "ClauseTitle": "목적", "ClauseContent": "제1조(목적) 정한다."}


@pytest.mark.parametrize(
    ("source", "row", "asked"),
    [
        (world_knowledge.public, CHAT, ("HuggingFaceTB/smoltalk", "all", "train")),
        (reasoning_sft.public, {"conversations": THOUGHT}, ("open-thoughts/OpenThoughts3-1.2M", None, "train")),
        (software.public, {"text": "i", "patch": "p"}, ("princeton-nlp/SWE-bench_oracle", None, "train")),
        (long_context.public, CHAT, ("THUDM/LongAlign-10k", None, "train")),
        (korean_documents.public, ARTICLE, ("ducut91/korean-statutes", None, "train")),
        (tool_dialogues.public, CHAT, ("NousResearch/hermes-function-calling-v1", "func_calling", "train")),
        (
            multilingual.public,
            {"inputs": "q", "targets": "a", "language_code": "eng"},
            ("CohereForAI/aya_dataset", None, "train"),
        ),
    ],
)
def test_public_sets_are_asked_for_by_name(source: Any, row: Any, asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> list[Any]:
        assert not streaming
        calls.append((name, config, split))
        return [row]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    for split in ("train", "test"):
        try:
            rows = list(source(split))
        except UserError as error:
            assert "holds no questions for the split" in str(error)
            continue
        for found in rows:
            check_dialogue(found, "?")
            assert found["place"].startswith(f"{asked[0]}/")
    assert asked in calls


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("en_toolcall_sft", 300),
        ("ko_chatbot_sft", 3000),
        ("en_chatterbot_sft", 800),
        ("es_chatterbot_sft", 684),
        ("ko_chatterbot_sft", 696),
    ],
)
def test_real_files_convert_and_pass(name: str, count: int, real_data: Path) -> None:
    path = real_data / "chat" / f"{name}.jsonl.gz"
    rows = [row for split in ("train", "test") for row in files.dialogues(split, path=path)]
    assert len(rows) == len({row["place"] for row in rows}) == count
    for row in rows:
        check_dialogue(row, "?")
    if name == "en_toolcall_sft":
        calls = [turn for row in rows for turn in row["messages"] if turn.get("tool_calls")]
        assert len(calls) == sum(turn["role"] == "tool" for row in rows for turn in row["messages"]) == 211
        assert {type(call["arguments"]) for turn in calls for call in turn["tool_calls"]} == {dict}
