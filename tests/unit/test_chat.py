"""The chat format, checked token by token against dialogues that were written out by hand."""

import json
import sys
from subprocess import run

import pytest

from agapo.chat import chat_template, format_tool_call, parse_tool_calls, prompt_ids, split_thinking
from agapo.model.tokenizer import build_tokenizer
from agapo.schema import Prompt

TOKENIZER = build_tokenizer()
USER = {"role": "user", "content": "1+1"}
ASSISTANT = {"role": "assistant", "content": "2"}


def tokens(text: str) -> list[str]:
    """The text cut into this tokenizer's tokens by hand: `¦` stands between tokens, `~` for a newline."""
    return [token.replace("~", "\n") for token in text.split("¦")]


def decoded(ids: list[int]) -> list[str]:
    return [TOKENIZER.decode([token]) for token in ids]


def rendered(messages: list[dict], **settings) -> str:
    return TOKENIZER.apply_chat_template(messages, tokenize=False, **settings)


def prompt(*messages: dict, **fields) -> Prompt:
    return Prompt(id="p", messages=messages, **fields)


class TestPromptIds:
    def test_reasoning_opens_a_thinking_block(self):
        expected = tokens("[|user|]¦~¦1¦+¦1¦[|endofturn|]¦~¦[|assistant|]¦~¦<think>¦~")
        assert decoded(prompt_ids(TOKENIZER, prompt(USER, mode="reasoning"))) == expected

    def test_non_reasoning_holds_an_empty_block(self):
        expected = tokens("[|user|]¦~¦1¦+¦1¦[|endofturn|]¦~¦[|assistant|]¦~¦<think>¦~¦~¦</think>¦~¦~")
        assert decoded(prompt_ids(TOKENIZER, prompt(USER, mode="non_reasoning"))) == expected

    def test_has_no_beginning_of_sequence(self):
        assert TOKENIZER.bos_token_id not in prompt_ids(TOKENIZER, prompt(USER))

    def test_system_turn_and_past_answers_without_their_thinking(self):
        past = {"role": "assistant", "content": "2", "reasoning_content": "easy"}
        messages = ({"role": "system", "content": "S"}, USER, past, {"role": "user", "content": "x"})
        expected = tokens(
            "[|system|]¦~¦S¦[|endofturn|]¦~¦[|user|]¦~¦1¦+¦1¦[|endofturn|]¦~"
            "¦[|assistant|]¦~¦<think>¦~¦~¦</think>¦~¦~¦2¦[|endofturn|]¦~"
            "¦[|user|]¦~¦x¦[|endofturn|]¦~¦[|assistant|]¦~¦<think>¦~"
        )
        assert decoded(prompt_ids(TOKENIZER, prompt(*messages))) == expected

    def test_tools_column_is_listed(self):
        ids = prompt_ids(TOKENIZER, prompt(USER, columns={"tools": [{"name": "f"}]}))
        assert '<tool>{"name": "f"}</tool>\n' in TOKENIZER.decode(ids)


class TestTemplate:
    def test_tool_calls_and_results(self):
        call = {"function": {"name": "add", "arguments": {"a": "é"}}}
        messages = [
            USER,
            {"role": "assistant", "content": "", "tool_calls": [call, call]},
            {"role": "tool", "content": 2},
            {"role": "tool", "content": {"x": "é"}},
        ]
        assert rendered(messages) == (
            "[|user|]\n1+1[|endofturn|]\n"
            "[|assistant|]\n<think>\n\n</think>\n\n"
            '<tool_call>{"name": "add", "arguments": {"a": "é"}}</tool_call>\n'
            '<tool_call>{"name": "add", "arguments": {"a": "é"}}</tool_call>[|endofturn|]\n'
            '[|tool|]\n<tool_result>{"result": 2}</tool_result>\n'
            '<tool_result>{"result": {"x": "é"}}</tool_result>[|endofturn|]\n'
        )

    def test_tools_join_the_system_turn_or_make_one(self):
        system = {"role": "system", "content": "S"}
        alone = rendered([USER], tools=[{"name": "f"}])
        joined = rendered([system, USER], tools=[{"name": "f"}])
        assert alone.startswith("[|system|]\n# Available Tools\n") and alone.count("[|system|]") == 1
        assert joined == alone.replace("[|system|]\n", "[|system|]\nS\n\n", 1)

    def test_thinking_inside_past_content_is_dropped(self):
        past = {"role": "assistant", "content": "<think>\nhm\n</think>\n\n2"}
        assert rendered([USER, past]) == rendered([USER, ASSISTANT])

    def test_unknown_role_is_named(self):
        with pytest.raises(Exception, match="unknown role 'robot'"):
            rendered([{"role": "robot", "content": ""}])

    def test_generation_markers_cover_the_answers(self):
        encoded = TOKENIZER.apply_chat_template(
            [USER, ASSISTANT], return_dict=True, return_assistant_tokens_mask=True, tokenize=True
        )
        marked = [i for i, on in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if on]
        assert decoded(marked) == ["2", "[|endofturn|]"]

    def test_content_is_not_read_as_a_template(self):
        assert "{{ 1 + 1 }}" in rendered([{"role": "user", "content": "{{ 1 + 1 }}"}])

    def test_is_the_tokenizers(self):
        assert TOKENIZER.chat_template == chat_template()


CALL = {"name": "f", "arguments": {"a": [1, "é"]}}


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("hm\n</think>\n\n2", "reasoning", ("hm", "2")),
        ("<think>\nhm\n</think>\n\n2", "reasoning", ("hm", "2")),
        ("hm \\boxed{2}", "reasoning", ("hm \\boxed{2}", None)),
        ("hm</think>", "reasoning", ("hm", "")),
        ("a</think>b</think>c", "reasoning", ("a</think>b", "c")),
        ("2\n", "non_reasoning", (None, "2")),
        ("hm</think>2", "non_reasoning", ("hm", "2")),
        ("2", None, (None, "2")),
        ("<think>hm</think>2", None, ("hm", "2")),
        ("", "reasoning", ("", None)),
        (
            'a</think><tool_call>{"x": "</think>"}</tool_call>',
            "reasoning",
            ("a", '<tool_call>{"x": "</think>"}</tool_call>'),
        ),
        ('<tool_call>{"x": "</think>"}</tool_call>', "reasoning", ('<tool_call>{"x": "</think>"}</tool_call>', None)),
        ("<tool_call>{</think>}</tool_call>", None, ("<tool_call>{", "}</tool_call>")),
        ("", "non_reasoning", (None, "")),
    ],
)
def test_split_thinking(text, mode, expected):
    assert split_thinking(text, mode) == expected


class TestToolCalls:
    def test_round_trip(self):
        text = f"so\n{format_tool_call(CALL)}\n{format_tool_call({'function': CALL})} done"
        assert parse_tool_calls(text) == [CALL, CALL]

    def test_tags_in_texts(self):
        call = {"name": "f", "arguments": {"a": '"</tool_call>\\"<tool_call>{"'}}
        text = f"{format_tool_call(call)} then <tool_call> \n{json.dumps(CALL)}\t</tool_call>"
        assert parse_tool_calls(text) == [call, CALL]

    def test_none(self):
        assert parse_tool_calls("no call, and a stray </tool_call>") == []

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("<tool_call>{}</tool_call>", "should be"),
            ('<tool_call>["f"]</tool_call>', "should be"),
            ('<tool_call>{"name": 1, "arguments": {}}</tool_call>', "should be"),
            ('<tool_call>{"name": "f", "arguments": "x"}</tool_call>', "should be"),
            ("<tool_call>f(1)</tool_call>", "not JSON"),
            ("<tool_call>" + "[" * 100_000 + "</tool_call>", "not JSON"),
            ('<tool_call>{"name": "f", "arguments": {}}', "not closed"),
            ("<tool_call>" + format_tool_call(CALL), "not closed"),
        ],
    )
    def test_one_malformed_call_spoils_all(self, content, message):
        with pytest.raises(ValueError, match=message):
            parse_tool_calls(format_tool_call(CALL) + content)


def test_imports_no_torch():
    code = "import sys, agapo.chat; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
