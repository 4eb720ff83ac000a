"""Bad rows are named: place, column, what is wrong, mend; good rows come out in one normal form."""

import json
import re
import sys
from pathlib import Path
from subprocess import run

import pytest
from trl.chat_template_utils import qwen3_chat_template

from agapo.chat import dialogue_examples
from agapo.curation.dialogues import check_dialogue, normal_dialogue, row_examples
from agapo.errors import UserError
from agapo.model.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer()
USER = {"role": "user", "content": "1+1"}
ANSWER = {"role": "assistant", "content": "2"}
THOUGHT = {**ANSWER, "reasoning_content": "hm"}
CALL = {"name": "add", "arguments": {"a": 1}}
NORMAL_CALL = {"type": "function", "function": CALL}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "2"}
SYSTEM = {"role": "system", "content": "S"}
TOOL = {"name": "add", "parameters": {}}
ENDS = "should be a chat that ends with the assistant's turn"


def row(*messages, **columns) -> dict:
    return {"messages": list(messages), "mode": "non_reasoning", **columns}


def without(column: str, **columns) -> dict:
    return {name: value for name, value in row(USER, ANSWER, **columns).items() if name != column}


def calls(call) -> dict:
    return row(USER, {**ANSWER, "tool_calls": [call]})


MESSAGES = {
    "missing": (without("messages"), f" is missing; {ENDS}"),
    "null": (row() | {"messages": None}, f" is missing; {ENDS}"),
    "under another name": (without("messages", conversations=[USER, ANSWER]), " is missing; rename 'conversations'"),
    "empty": (row(), f" is empty; {ENDS}"),
    "a text": (row() | {"messages": "1+1"}, f" is '1+1'; {ENDS}"),
    "a mapping": (row() | {"messages": {"a": 1}}, f" is {{'a': 1}}; {ENDS}"),
    "ends with the user's turn": (row(USER, ANSWER, USER), f" ends with the turn of 'user'; {ENDS}"),
    "ends with a result": (row(USER, CALLS, RESULT), f" ends with the turn of 'tool'; {ENDS}"),
    "no thinking": (
        row(USER, {**ANSWER, "reasoning_content": " "}, mode="reasoning"),
        " has no 'reasoning_content' in any turn, though 'mode' is reasoning; "
        "add the thinking, or set the mode to non_reasoning",
    ),
    "thinking": (
        row(USER, THOUGHT),
        " has 'reasoning_content', which is not trained as 'mode' is non_reasoning; "
        "leave it out, or set the mode to reasoning",
    ),
    "all left out": (
        row(USER, {**ANSWER, "train": False}),
        ": a dialogue to train on should have an assistant's turn without 'train: false'",
    ),
}
TURNS = {
    "no mapping": (row(USER, "2"), 2, ": is '2'; should be {'role': …, 'content': …}"),
    "no role": (row({"content": "a"}, ANSWER), 1, ": has no role; give one of system, user, assistant or tool"),
    "sharegpt's columns": (
        row({"from": "human", "value": "a"}, ANSWER),
        1,
        ": has no role; rename 'from' to 'role' and 'value' to 'content'",
    ),
    "sharegpt's content": (
        row({"role": "user", "value": "a"}, ANSWER),
        1,
        ": has no content; rename 'value' to 'content'",
    ),
    "sharegpt's user": (
        row({"role": "human", "content": "a"}, ANSWER),
        1,
        ": the role is 'human'; should be system, user, assistant or tool; rename it to 'user'",
    ),
    "sharegpt's assistant": (
        row(USER, {"role": "gpt", "content": "a"}),
        2,
        ": the role is 'gpt'; should be system, user, assistant or tool; rename it to 'assistant'",
    ),
    "a slip": (
        row(USER, {"role": "asistant", "content": "a"}),
        2,
        ": the role is 'asistant'; should be system, user, assistant or tool; did you mean 'assistant'?",
    ),
    "a number as role": (
        row({"role": 1, "content": "a"}),
        1,
        ": the role is 1; should be system, user, assistant or tool",
    ),
    "a call as turn": (
        row(USER, {"role": "tool_call", "content": "{}"}, ANSWER),
        2,
        ": the role is 'tool_call'; should be system, user, assistant or tool; "
        "put the call into 'tool_calls' of an assistant's turn",
    ),
    "empty user": (
        row({"role": "user", "content": " \n"}, ANSWER),
        1,
        ": the user's content is empty; give it some, or leave the row out",
    ),
    "no user content": (row({"role": "user"}, ANSWER), 1, ": the user's content is None; should be a text"),
    "no result": (
        row(USER, CALLS, {"role": "tool"}, ANSWER),
        3,
        ": the tool's content is empty; give it some, or leave the row out",
    ),
    "empty assistant": (
        row(USER, {"role": "assistant", "content": None, "tool_calls": []}),
        2,
        ": the assistant's turn is empty; give it content, or leave the row out",
    ),
    "user's parts": (
        row({"role": "user", "content": [{"text": "a"}]}, ANSWER),
        1,
        ": the user's content is [{'text': 'a'}]; should be a text",
    ),
    "system's number": (
        row({"role": "system", "content": 1}, USER, ANSWER),
        1,
        ": the system's content is 1; should be a text",
    ),
    "assistant's number": (row(USER, {**ANSWER, "content": 2}), 2, ": the assistant's content is 2; should be a text"),
    "thinking no text": (
        row(USER, {**ANSWER, "reasoning_content": ["hm"]}),
        2,
        ": the assistant's reasoning_content is ['hm']; should be a text",
    ),
    "thinking in the content": (
        row(USER, {**ANSWER, "content": "<think>hm</think>2"}),
        2,
        ": the assistant's content holds <think>; put the thinking into 'reasoning_content'",
    ),
    "half a block": (
        row(USER, {**ANSWER, "content": "hm</think>2"}),
        2,
        ": the assistant's content holds </think>; put the thinking into 'reasoning_content'",
    ),
    "tags in the thinking": (
        row(USER, {**ANSWER, "reasoning_content": "<think>hm"}),
        2,
        ": the assistant's reasoning_content holds <think>; leave the tags out",
    ),
    "thinking under another name": (
        row(USER, {**ANSWER, "thinking": "hm"}, mode="reasoning"),
        2,
        ": 'thinking' is not read; rename it to 'reasoning_content', or leave it out",
    ),
    "late system": (row(USER, SYSTEM, ANSWER), 2, ": the system's turn should be the first; move it or join them"),
    "two systems": (
        row(SYSTEM, SYSTEM, USER, ANSWER),
        2,
        ": the system's turn should be the first; move it or join them",
    ),
    "result without a call": (
        row(USER, ANSWER, RESULT, ANSWER),
        3,
        ": a tool's result without a call before it; put it into 'tool_calls' there",
    ),
    "more results than calls": (
        row(USER, CALLS, RESULT, RESULT, ANSWER),
        4,
        ": a tool's result without a call before it; put it into 'tool_calls' there",
    ),
    "a user's call": (
        row({**USER, "tool_calls": [CALL]}, ANSWER),
        1,
        ": the user has 'tool_calls', which belongs to an assistant's turn; move it there",
    ),
    "a user's turn to train on": (
        row({**USER, "train": True}, ANSWER),
        1,
        ": 'train' is set on the user's turn; only the assistant's turns are trained on",
    ),
    "train a text": (row(USER, {**ANSWER, "train": "no"}), 2, ": 'train' is 'no'; should be true or false"),
    "calls no list": (
        row(USER, {**ANSWER, "tool_calls": CALL}),
        2,
        ": 'tool_calls' is {'name': 'add', 'arguments': {'a': 1}}; should be a list of calls",
    ),
    "a call no mapping": (calls(1), 2, ", tool call 1: is 1; should be {'name': …, 'arguments': {…}}"),
    "a call without name": (
        calls({"arguments": {}}),
        2,
        ", tool call 1: is {'arguments': {}}; should be {'name': …, 'arguments': {…}}",
    ),
    "no arguments": (
        calls({"name": "add"}),
        2,
        ", tool call 1 ('add'): 'arguments' is None; should be a JSON object, {} for none",
    ),
    "arguments a list": (
        calls({"name": "add", "arguments": "[1]"}),
        2,
        ", tool call 1 ('add'): 'arguments' is [1]; should be a JSON object, {} for none",
    ),
    "arguments no JSON": (
        calls({"function": {"name": "add", "arguments": "{a: 1}"}}),
        2,
        ", tool call 1 ('add'): 'arguments' is not JSON "
        "(Expecting property name enclosed in double quotes: line 1 column 2 (char 1)): '{a: 1}'; mend it",
    ),
}
COLUMNS = {
    "no mode": (without("mode"), "there is no column 'mode'; should be reasoning or non_reasoning"),
    "a slip": (
        row(USER, ANSWER, mode="reasonning"),
        "column 'mode' is 'reasonning'; should be reasoning or non_reasoning; did you mean 'reasoning'?",
    ),
    "mode no text": (
        row(USER, ANSWER, mode=["reasoning"]),
        "column 'mode' is ['reasoning']; should be reasoning or non_reasoning",
    ),
    "domain": (row(USER, ANSWER, domain=["math"]), "column 'domain' is ['math']; should be a text"),
    "language": (row(USER, ANSWER, language=1), "column 'language' is 1; should be a text"),
    "length": (row(USER, ANSWER, context_length="9"), "column 'context_length' is '9'; should be a whole number"),
    "tools no list": (
        row(USER, ANSWER, tools=TOOL),
        "column 'tools' is {'name': 'add', 'parameters': {}}; should be a list of tools",
    ),
    "tools no JSON": (
        row(USER, ANSWER, tools="[{'name'"),
        "column 'tools' is not JSON "
        "(Expecting property name enclosed in double quotes: line 1 column 3 (char 2)): \"[{'name'\"; mend it",
    ),
    "a tool without name": (
        row(USER, ANSWER, tools=[TOOL, {"a": 1}]),
        "column 'tools', tool 2: is {'a': 1}; should be {'name': …, 'description': …, 'parameters': {…}}",
    ),
}


def message(bad: dict, place: str = "rows.jsonl:7") -> str:
    with pytest.raises(UserError) as error:
        check_dialogue(bad, place)
    return str(error.value)


@pytest.mark.parametrize("name", MESSAGES)
def test_bad_chats(name):
    bad, expected = MESSAGES[name]
    assert message(bad) == f"rows.jsonl:7: column 'messages'{expected}"


@pytest.mark.parametrize("name", TURNS)
def test_bad_turns(name):
    bad, number, expected = TURNS[name]
    assert message(bad) == f"rows.jsonl:7: column 'messages', turn {number}{expected}"


@pytest.mark.parametrize("name", COLUMNS)
def test_bad_columns(name):
    bad, expected = COLUMNS[name]
    assert message(bad) == f"rows.jsonl:7: {expected}"


def test_the_rows_own_place_is_named():
    assert message(row(place="mine.jsonl:3"), "data: row 1").startswith("mine.jsonl:3: ")


def test_messages_are_one_line_and_short():
    bad = message(row({"role": "user", "content": ["a\nb" * 1000]}, ANSWER))
    assert "\n" not in bad and len(bad) < 200
    deep = message(calls({"name": "add", "arguments": "[" * 100_000}))
    assert "\n" not in deep and len(deep) < 300


class TestGoodRows:
    @pytest.mark.parametrize(
        "good",
        [
            row(USER, ANSWER),
            row(SYSTEM, USER, ANSWER, domain="math", language="ko", context_length=4),
            row({"role": "system", "content": ""}, USER, ANSWER, domain=None),
            row(USER, THOUGHT, mode="reasoning"),
            row(USER, {"role": "assistant", "content": None, "reasoning_content": "hm"}, mode="reasoning"),
            row({"role": "user", "content": "What is <think>?"}, ANSWER),
            row(USER, {**ANSWER, "train": False}, USER, ANSWER),
            row(USER, ANSWER, answer="2", id="a"),
        ],
    )
    def test_stay_as_they_are(self, good):
        assert normal_dialogue(good, "here") == good

    @pytest.mark.parametrize(
        "call",
        [
            CALL,
            NORMAL_CALL,
            {"function": CALL},
            {"name": "add", "arguments": '{"a": 1}'},
            {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
            {"name": "add", "arguments": {"a": 1}, "function": None},
        ],
    )
    def test_calls_have_one_form(self, call):
        normal = normal_dialogue(row(USER, {**CALLS, "tool_calls": [call, call]}, RESULT, RESULT, ANSWER), "here")
        assert normal["messages"][1]["tool_calls"] == [NORMAL_CALL, NORMAL_CALL]

    def test_a_calls_id_stays(self):
        normal = normal_dialogue(calls({"id": "x", **CALL}), "here")
        assert normal["messages"][1]["tool_calls"] == [{"id": "x", **NORMAL_CALL}]

    @pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)]])
    def test_tools_are_read(self, tools):
        assert normal_dialogue(row(USER, ANSWER, tools=tools), "here") == row(USER, ANSWER, tools=[TOOL])

    @pytest.mark.parametrize(
        "columns", [{"tools": None}, {"tools": []}, {"tools": ""}, {"tools": "[]"}, {"place": "a:1"}]
    )
    def test_columns_that_say_nothing_are_left_out(self, columns):
        assert normal_dialogue(row(USER, ANSWER, **columns), "here") == row(USER, ANSWER)

    def test_the_row_is_not_changed(self):
        given = row(USER, {**CALLS, "tool_calls": json.dumps([CALL])}, place="a:1")
        before = json.dumps(given)
        assert normal_dialogue(given, "here")["messages"][1]["tool_calls"] == [NORMAL_CALL]
        assert json.dumps(given) == before


class TestRowExamples:
    def test_are_those_of_the_dialogue(self):
        good = normal_dialogue(row(USER, CALLS, {"role": "tool", "content": {"x": 2}}, ANSWER, tools=[TOOL]), "here")
        expected = dialogue_examples(TOKENIZER, good["messages"], "non_reasoning", [TOOL])
        assert row_examples(TOKENIZER, good, "here") == expected
        assert [sum(mask) for _, mask in expected] == [len('x{"name": "add", "arguments": {"a": 1}}xx') + 2]

    def test_the_templates_refusal_is_named(self):
        strict = build_tokenizer()
        strict.chat_template = "{{ raise_exception('no system turns\nhere') }}"
        with pytest.raises(UserError) as error:
            row_examples(strict, row(SYSTEM, USER, ANSWER), "a:1")
        assert str(error.value) == "a:1: the model's chat template refuses the dialogue (no system turns); mend the row"

    def test_results_that_the_template_leaves_out_are_named(self):
        qwen3 = build_tokenizer()
        qwen3.chat_template = qwen3_chat_template
        qwen3.eos_token = "[|endofturn|]"
        rows = [row(USER, CALLS, {"role": "tool", "content": content}, ANSWER) for content in ("2", 2)]
        assert len(row_examples(qwen3, rows[0], "a:1")) == 2
        with pytest.raises(UserError, match="a:2: the model's chat template leaves out tool results"):
            row_examples(qwen3, rows[1], "a:2")


def test_the_documented_row_is_good_and_trains_both_turns():
    page = (Path(__file__).parents[2] / "docs" / "data_format.md").read_text()
    [block] = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    examples = row_examples(TOKENIZER, normal_dialogue(json.loads(block), "docs"), "docs")
    trained = [TOKENIZER.decode([i for i, on in zip(*example, strict=True) if on]) for example in examples]
    assert trained == [
        'I add.\n</think>\n\n<tool_call>{"name": "add", "arguments": {"a": 17, "b": 25}}</tool_call>[|endofturn|]',
        "Done.\n</think>\n\n42[|endofturn|]",
    ]


def test_imports_no_torch():
    code = "import sys, agapo.curation.dialogues; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


class TestWhatNoFileCanHold:
    def test_half_a_surrogate_pair_is_named(self):
        row = {"messages": [{"role": "user", "content": "x\ud800"}, {"role": "assistant", "content": "a"}]}
        with pytest.raises(UserError, match="f:1: column 'messages', turn 1: holds half a surrogate pair"):
            check_dialogue({**row, "mode": "non_reasoning"}, "f:1")

    @pytest.mark.parametrize("domain", ["", "\udc00"])
    def test_a_domain_needs_a_name(self, domain):
        messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        with pytest.raises(UserError, match=r"column 'domain' is .*give it a name"):
            check_dialogue({"messages": messages, "mode": "non_reasoning", "domain": domain}, "f:1")


class TestControlTokens:
    @pytest.mark.parametrize(("turn", "name"), [(0, "content"), (1, "content"), (1, "reasoning_content")])
    def test_in_a_text_are_named(self, turn, name):
        messages = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "reasoning_content": "t"},
        ]
        messages[turn][name] += "[|endofturn|]\n[|user|]\nmore"
        row = normal_dialogue({"messages": messages, "mode": "reasoning"}, "f:7")
        with pytest.raises(UserError, match=rf"f:7: .*turn {turn + 1}: {name} holds the control token '\[\|endofturn"):
            row_examples(build_tokenizer(), row, "f:7")


def test_a_dialogue_starts_with_the_users_turn():
    messages = [
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    row = {"messages": messages, "mode": "non_reasoning"}
    with pytest.raises(UserError, match="starts with the assistant's turn"):
        check_dialogue(row, "f:1")
    messages[0]["train"] = False
    (_, mask), *_ = row_examples(build_tokenizer(), normal_dialogue(row, "f:1"), "f:1")
    assert sum(mask) == 2
