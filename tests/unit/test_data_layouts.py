"""Chats as public sets lay them out: each layout, what is passed on or refused, splits by question, real files."""

import json
from pathlib import Path
from typing import Any

import pytest

from agapo.curation.dialogues import check_dialogue
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

    def load_dataset(name: str, config: str | None, *, split: str) -> list[Any]:
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
