"""Well-formed or not: thinking, fences, tool calls, loops."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rewards.format import flaw, loops, repetition, score

LIST = "\n".join(f"{n}. The number {n} squared is {n * n}." for n in range(1, 60))
TABLE = "| n | n squared |\n|---|---|\n" + "\n".join(f"| {n} | {n * n} |" for n in range(60))
STEPS = "\n".join(f"Step {n}: we add {n} to {n + 1} and get {2 * n + 1}." for n in range(40))
CODE = "```python\n" + "print('hello hello hello')\n" * 30 + "```\nThat prints it thirty times."


@pytest.mark.parametrize(
    ("mode", "text", "wrong"),
    [
        ("reasoning", "I add.\n</think>\n\n4", ""),
        ("reasoning", "<think>\nI add.\n</think>\n\n4", ""),
        ("reasoning", "I add and add", "no answer"),
        ("reasoning", "I add.\n</think>\n\n", "no answer"),
        ("reasoning", "\n</think>\n\n4", "empty thinking"),
        ("reasoning", "a</think>b</think>4", "stray thinking tags"),
        ("reasoning", "a</think>4 <think> more", "stray thinking tags"),
        ("reasoning", "a</think>In code:\n```\n<think>\n```\nthat is all.", ""),
        ("non_reasoning", "4", ""),
        ("non_reasoning", "", "no answer"),
        ("non_reasoning", "I add.</think>4", "thinking in non-reasoning mode"),
        ("non_reasoning", "<think>4", "stray thinking tags"),
        (None, "4", ""),
        (None, "I add.</think>4", ""),
        ("non_reasoning", "```python\nx = 1\n```", ""),
        ("non_reasoning", "```python\nx = 1", "open code fence"),
        ("non_reasoning", "````\n```\n````", ""),
        ("non_reasoning", "~~~\n```\n~~~", ""),
        ("non_reasoning", '<tool_call>{"name": "f", "arguments": {}}</tool_call>', ""),
        ("non_reasoning", '<tool_call>{"name": "f", "arguments": {"text": "<think>"}}</tool_call>', ""),
        ("reasoning", 'I call.</think><tool_call>{"name": "f", "arguments": {"text": "</think>"}}</tool_call>', ""),
        ("non_reasoning", '<tool_call>{"name": "f", "arguments": {}}</tool_call> <think>', "stray thinking tags"),
        ("non_reasoning", '<tool_call>{"name": "f"', "malformed tool call"),
        ("non_reasoning", "So " + "the answer is 4, and " * 30, "repetition"),
        ("reasoning", "Wait. " * 50 + "</think>4", "repetition"),
        ("non_reasoning", "하하 " * 60, "repetition"),
        ("non_reasoning", "계산을 다시 해 보겠습니다. " * 12, "repetition"),
        (
            "non_reasoning",
            "\n".join(["It was a dark night and the wind was cold.", "He ran."] * 8) + "\nEnd.",
            "repetition",
        ),
        ("non_reasoning", LIST, ""),
        ("non_reasoning", TABLE, ""),
        ("non_reasoning", STEPS, ""),
        ("non_reasoning", CODE, ""),
        ("non_reasoning", "Title\n" + "=" * 200, ""),
        ("non_reasoning", "1/7 = 0." + "142857" * 4, ""),
        ("non_reasoning", "No no no, that is wrong. No!", ""),
    ],
)
def test_what_is_wrong_with_it(mode, text, wrong):
    assert flaw(text, mode) == wrong
    assert score([""], [text], mode=[mode]) == [float(not wrong)]


def test_a_conversational_completion():
    assert score(
        [""], [[{"role": "assistant", "content": "4", "reasoning_content": "I add."}]], mode=["reasoning"]
    ) == [1.0]


@given(st.text(alphabet="abc ", min_size=5, max_size=30).filter(str.strip), st.integers(6, 30))
@example(stretch="aaaaaaaaaa  ", times=6)
def test_a_stretch_repeated_often_enough_is_a_loop(stretch, times):
    repeated = stretch * times
    assert loops("Something else before it. " + repeated) == (len(repeated.rstrip()) >= 60) or len(repeated) < 70


@pytest.mark.parametrize("text", ["a" * 100_000, "ab " * 40_000, "[" * 100_000, "x y z " * 20_000 + "q", "`" * 100_000])
def test_long_texts_are_quick(text):
    started = time.monotonic()
    flaw(text, "non_reasoning")
    assert time.monotonic() - started < 2


def test_repetition_is_a_share():
    phrase = "one two three four five six seven eight. "
    assert repetition("nothing is repeated in this text at all, not a single phrase of it") == 0.0
    assert repetition(phrase * 4) == 1.0
    assert 0.4 < repetition(phrase * 4 + " ".join(f"word{n}" for n in range(36))) < 0.6
