"""Loops, repetition and cut-off texts are found; what only looks like them is not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agapo.curation.degeneration import degeneration, find_loops, repeated_lines, repeated_share, unfinished
from agapo.curation.text import code_and_prose, has_open_fence
from agapo.recipe.curation import DegenerationConfig

DEFAULTS = DegenerationConfig().model_dump()
PARAGRAPH = (
    "The train leaves at nine and arrives at noon. It stops twice on the way. Nobody gets on at the first stop. "
    "At the second one a man with a dog gets on. "
)
CODE = "\n".join(f"def f{n}(x):\n    y = x + {n}\n    return y * {n}\n" for n in range(30))
LIST = "\n".join(f"{n}. The number {n} squared is {n * n}." for n in range(1, 60))
TABLE = "| name | passed |\n|---|---|\n" + "\n".join("| yes | yes |" for _ in range(60))
FORMULAS = " ".join(f"We know that $x_{n} = {n}$." for n in range(40))
BLOCK = "def area(w, h):\n    if w < 0:\n        raise ValueError(w)\n    size = w * h\n    return size\n"


def row(answer: str, thinking: str | None = None, question: str = "?", **turn: Any) -> dict[str, Any]:
    last = {"role": "assistant", "content": answer, **({"reasoning_content": thinking} if thinking else {}), **turn}
    mode = "reasoning" if thinking else "non_reasoning"
    return {"messages": [{"role": "user", "content": question}, last], "mode": mode}


def reason(*args: Any, **kwargs: Any) -> str:
    found = degeneration(row(*args, **kwargs), **DEFAULTS)
    return found.reason if found else ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So " + "the answer is 4, and " * 30, "loop in the answer"),
        ("계산을 다시 해 보겠습니다. " * 12, "loop in the answer"),
        ("La respuesta es " + "la suma de los números, " * 20, "loop in the answer"),
        ("Before. " + "Wait, let me see. " * 20 + PARAGRAPH, "loop in the answer"),
        ("하" * 200, "loop in the answer"),
        ("我们" * 60, "loop in the answer"),
        (PARAGRAPH * 4, "loop in the answer"),
        ("0, " * 100 + "0", "loop in the answer"),
        (
            "\n".join(f"{n}. He said that the dark night was cold and long again." for n in range(20)),
            "repeated phrases in the answer",
        ),
        ("```python\n" + CODE + "print('the end')\n" * 20 + "```", "loop in code of the answer"),
        ("```python\n" + CODE + BLOCK * 5 + "```\nThis works.", "loop in code of the answer"),
        (CODE + BLOCK * 5, "loop in code of the answer"),
        (
            "```\n" + "".join(BLOCK + f"x = {n}\n" for n in range(12)) + "```",
            "repeated blocks in code of the answer",
        ),
        ("", "no answer"),
        ("Here:\n```python\nx = 1\n", "code fence of the answer is not closed"),
        ("The answer that we have found in the end is the", "answer ends in mid-sentence"),
        ("결과를 모두 더해서 다시 한번 확인해 보면 그리고", "answer ends in mid-sentence"),
        ("Al final tenemos que sumar los números de la", "answer ends in mid-sentence"),
        (PARAGRAPH + "Then the train", "answer ends in mid-sentence"),
        ("<think>\nI add.", "thinking block is not closed"),
    ],
)
def test_what_is_broken_is_named(text: str, expected: str) -> None:
    assert reason(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "4",
        "\\boxed{4}",
        "7+2=9 9-4=5 \\boxed{5}",
        "No no no, that is wrong. No!",
        "하하하하 정말요?",
        "¡Gol, gol, gol, gol, gol!",
        PARAGRAPH,
        LIST,
        TABLE,
        FORMULAS,
        CODE,
        f"```python\n{CODE}```",
        "```python\n" + "print('hello')\n" * 10 + "```\nThat prints it ten times.",
        "```\n" + "0, 0, 0, 0,\n" * 200 + "```",
        "Title\n" + "=" * 200 + "\n" + "- " * 60 + "\nText.",
        "1/7 = 0." + "142857" * 10,
        "1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1",
        "Choose Plan A, which is the better one of all",
        "Here are five of them, in no order: red, green, blue, white, black",
        "The sum of the two is\n\n$$x + 2$$",
        "So we write down the following and\n```python\nx = 1\n```",
        "````markdown\n```python\nx = 1\n```\n````\nDone.",
        "You can write it as\n```cout << x```",
        "#include <a.h>\n#include <b.h>\n" + "\n".join(f"#include <lib/{n}.h>" for n in range(40)) + "\nint x;",
    ],
)
def test_what_is_meant_is_kept(text: str) -> None:
    assert reason(text) == ""


def test_thinking_is_judged_too() -> None:
    assert reason("4", "Wait. " * 50) == "loop in the thinking"
    assert (
        reason("4", PARAGRAPH + "So the answer that we are looking for must be the") == "thinking ends in mid-sentence"
    )
    assert reason("4", "In total there are 96 apples + 72 bananas = 168 fruits") == ""
    assert reason("4", "I add.\n```\nx = 1") == "code fence of the thinking is not closed"
    assert reason("", "I add.") == "no answer"


def test_a_tool_call_is_an_answer() -> None:
    assert reason("", "I ask.", tool_calls=[{"name": "f", "arguments": {}}]) == ""


def test_a_phrase_that_the_question_asks_for_may_be_repeated() -> None:
    lines = "I will not talk in class.\n" * 50
    assert reason(lines) == "loop in the answer"
    assert reason(lines, question='Write "I will not talk in class." on the board.') == ""
    assert reason("hello " * 100, question="Repeat the word hello 100 times.") == ""
    assert reason("안녕 " * 100, question="안녕을 백 번 말해 줘") == ""
    assert reason("hello " * 100, question="Say hello.") == "loop in the answer"


def test_earlier_turns_of_the_assistant_are_judged_unless_they_are_not_trained_on() -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "the answer is " * 40}]
    asked = {**row("4"), "messages": [*turns, *row("4")["messages"]]}
    found = degeneration(asked, **DEFAULTS)
    assert found
    assert found.reason == "loop in the answer"
    turns[1]["train"] = False  # pyright: ignore[reportArgumentType]
    assert degeneration(asked, **DEFAULTS) is None


def test_truncation_may_be_tolerated() -> None:
    assert degeneration(row("```\nx = 1"), **(DEFAULTS | {"truncated": False})) is None


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=6), st.integers(8, 20), st.lists(st.integers(), max_size=5)
)
def test_every_planted_loop_is_found(period: list[str], times: int, before: list[int]) -> None:
    units = [*map(str, before), *(period * times)]
    loops = find_loops(units, 8, 16)
    assert loops
    assert min(loop.period for loop in loops) <= len(period)
    assert all(loop.times >= 8 for loop in loops)
    for loop in loops:
        stretch = units[loop.start : loop.start + round(loop.period * loop.times)]
        assert stretch[loop.period :] == stretch[: -loop.period]


@given(st.permutations(range(60)))
def test_units_that_differ_have_no_loops(units: list[int]) -> None:
    assert find_loops(list(map(str, units)), 3, 16) == []


def test_shares_by_hand() -> None:
    phrase = "one two three four five six seven eight"
    filler = " ".join(f"word{n}" for n in range(68))
    assert repeated_share(" . ".join([phrase] * 4) + " " + filler) == pytest.approx(32 / 103, abs=0.04)
    assert repeated_share(" . ".join([phrase] * 3) + " " + filler) == 0
    lines = ["call_something(first)", "call_something(second)", "three()", "four()", "five()"]
    code = "\n".join(line for n in range(6) for line in [*lines, f"x{n} = {n}"])
    assert repeated_lines(code + "\n" + "\n".join(f"y{n} = {n}" for n in range(24))) == pytest.approx(30 / 60)


def test_code_and_prose() -> None:
    text = "Take $x$ and `y`.\n```python\nz = 1\n```\nNow $x$ again."
    assert code_and_prose(text) == ("z = 1\n", "Take  1  and  2 .\n 0 \nNow  1  again.")
    assert code_and_prose(CODE)[1] == ""


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("```\nx\n```", False),
        ("```\nx", True),
        ("```md\n```py\nx\n```\n```", False),
        ("```py\nx\n```\n```py\ny", True),
        ("Title\n~~~~~\nText", False),
    ],
)
def test_open_fences(text: str, opened: bool) -> None:
    assert has_open_fence(text) == opened


def test_the_end_of_an_unfinished_text_is_shown() -> None:
    assert unfinished("We then go on to the next one, and") == "We then go on to the next one, and"
    assert unfinished(PARAGRAPH) == ""
