"""Tool calls against BFCL's rows: names, arguments, types, values, order."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agapo.chat import format_tool_call
from rewards.tool_calls import score

WEATHER = {
    "name": "weather.get",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "scale": {"type": "float"},
            "parts": {"type": "array", "items": {"type": "string"}},
            "when": {"type": "dict"},
            "now": {"type": "boolean"},
        },
        "required": ["city"],
    },
}
GOLD = [
    {
        "weather.get": {
            "city": ["New York, NY", "NYC"],
            "days": [3, ""],
            "scale": [1.5, 2.0, ""],
            "parts": [["rain", "wind"], ""],
            "when": [{"day": ["Monday", "Mon"], "hour": [9, ""]}, ""],
            "now": [True, ""],
        }
    }
]


def calls(*arguments: dict[str, Any], name: str = "weather.get") -> str:
    return "\n".join(format_tool_call({"name": name, "arguments": own}) for own in arguments)


def one(text: Any, gold: Any = GOLD, function: Any = (WEATHER,), mode: Any = None) -> float | None:
    return score([""], [text], function=[list(function)], ground_truth=[gold], mode=[mode])[0]


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"city": "NYC"}, True),
        ({"city": "new york NY"}, True),
        ({"city": "Boston"}, False),
        ({}, False),
        ({"city": "NYC", "days": 3}, True),
        ({"city": "NYC", "days": 4}, False),
        ({"city": "NYC", "days": "3"}, False),
        ({"city": "NYC", "days": 3.0}, False),
        ({"city": "NYC", "scale": 2}, True),
        ({"city": "NYC", "scale": True}, False),
        ({"city": "NYC", "now": True}, True),
        ({"city": "NYC", "now": 1}, False),
        ({"city": "NYC", "parts": ["Rain", "wind"]}, True),
        ({"city": "NYC", "parts": ["wind", "rain"]}, False),
        ({"city": "NYC", "parts": ["rain", 1]}, False),
        ({"city": "NYC", "parts": "rain"}, False),
        ({"city": "NYC", "when": {"day": "Mon", "hour": 9}}, True),
        ({"city": "NYC", "when": {"day": "Mon"}}, True),
        ({"city": "NYC", "when": {"hour": 9}}, False),
        ({"city": "NYC", "when": {"day": ["Monday", "Mon"]}}, False),
        ({"city": "NYC", "when": {"day": ["Mon"]}}, False),
        ({"city": "NYC", "parts": [["rain", "wind"], ""]}, False),
        ({"city": "NYC", "when": {"day": "Mon", "year": 1}}, False),
        ({"city": "NYC", "country": "US"}, False),
        ({"city": ["NYC"]}, False),
        ({"city": None}, False),
    ],
)
def test_arguments(arguments: dict[str, Any], right: bool) -> None:
    assert one(calls(arguments)) == float(right)


def test_names_numbers_and_malformed_calls() -> None:
    right = calls({"city": "NYC"})
    assert one("I look it up.\n" + right) == 1.0
    assert one(calls({"city": "NYC"}, name="weather_get")) == 1.0
    assert one(calls({"city": "NYC"}, name="weather")) == 0.0
    assert one(right + right) == 0.0
    assert one("It is sunny.") == 0.0
    assert one("<tool_call>{") == 0.0
    assert one(right, mode="reasoning") == 0.0
    assert one(f"I should ask.</think>{right}", mode="reasoning") == 1.0
    assert one("It is sunny.", gold=[]) == 1.0
    assert one(right, gold=[]) == 0.0


@pytest.mark.parametrize("gold", [None, "not json", 3, [1], [{}]])
def test_a_row_that_expects_nothing_has_no_verdict(gold: Any) -> None:
    assert one("Hello", gold=gold) is None


def test_columns_may_be_json_text() -> None:
    assert score([""], [calls({"city": "NYC"})], function=[json.dumps([WEATHER])], ground_truth=[json.dumps(GOLD)]) == [
        1.0
    ]


def test_the_first_call_that_fits_may_be_anothers() -> None:
    gold = [{"weather.get": {"city": ["Rome", "Oslo"]}}, {"weather.get": {"city": ["Rome"]}}]
    assert one(calls({"city": "Rome"}, {"city": "Oslo"}), gold=gold) == 1.0
    assert one(calls({"city": "Oslo"}, {"city": "Oslo"}), gold=gold) == 0.0


@given(st.permutations(["Rome", "Oslo", "Bonn", "Seoul"]))
def test_parallel_calls_come_in_any_order(cities: list[str]) -> None:
    gold = [{"weather.get": {"city": [city]}} for city in ("Rome", "Oslo", "Bonn", "Seoul")]
    assert one(calls(*({"city": city} for city in cities)), gold=gold) == 1.0
    assert one(calls(*({"city": city} for city in [*cities[:3], "Paris"])), gold=gold) == 0.0


def first_accepted(value: Any) -> Any:
    """A nested dict lists accepted values by key, also one in a list."""
    if isinstance(value, dict):
        return {key: first_accepted(inner[0]) if isinstance(inner, list) else inner for key, inner in value.items()}
    return [first_accepted(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ({"days": ["Mon", "Tue"], "at": {"hour": 9}}, True),
        ({"days": ["Mon", "Wed"], "at": {"hour": 10}}, True),
        ({"days": ["Mon"], "at": {"hour": 9}}, False),
        ({"days": [["Mon", "Tue"], ["Mon", "Wed"]], "at": {"hour": 9}}, False),
        ({"days": ["Mon", "Tue"], "at": {"hour": [9, 10]}}, False),
        ({"days": ["Mon", "Tue"], "at": [{"hour": 9}]}, False),
    ],
)
def test_the_list_of_alternatives_is_no_value_at_any_depth(value: dict[str, Any], right: bool) -> None:
    gold = [
        {
            "weather.get": {
                "city": ["NYC"],
                "when": [{"days": [["Mon", "Tue"], ["Mon", "Wed"]], "at": [{"hour": [9, 10]}]}],
            }
        }
    ]
    assert one(calls({"city": "NYC", "when": value}), gold=gold) == float(right)
    listed = [{"weather.get": {"city": ["NYC"], "parts": [[gold[0]["weather.get"]["when"][0]]]}}]
    assert one(calls({"city": "NYC", "parts": [value]}), gold=listed, function=()) == float(right)


TAGS = [
    "<tool_call>",
    "</tool_call>",
    "<tool_call>{}</tool_call>",
    "</tool_call><tool_call>",
    "</think>",
    "<think>x</think>",
]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("mode", ["reasoning", "non_reasoning", None])
def test_tags_may_stand_in_an_argument(tag: str, mode: Any) -> None:
    gold = [{"weather.get": {"city": [f"a {tag} b"]}}]
    thinking = "I call it.\n</think>\n\n" if mode == "reasoning" else ""
    assert one(thinking + calls({"city": f"a {tag} b"}), gold=gold, mode=mode) == 1.0
    assert one(thinking + calls({"city": f"a {tag} b"}, {"city": f"a {tag} b"}), gold=gold * 2, mode=mode) == 1.0
    assert one(thinking + calls({"city": f"a {tag} c"}), gold=gold, mode=mode) == 0.0
    assert one(thinking + calls({"city": f"a {tag} b"}) + tag + "<tool_call>", gold=gold, mode=mode) == 0.0


def test_a_call_in_the_thinking_is_none() -> None:
    text = f"Maybe {calls({'city': 'NYC'})}"
    assert one(text, mode="reasoning") == 0.0
    assert one(f"{text}</think>It is sunny.", mode="reasoning") == 0.0
    assert one(f"{text}</think>It is sunny.", mode="reasoning", gold=[]) == 1.0
    assert one(calls({"city": "</think>"}), mode="reasoning", gold=[]) == 0.0


NYC: dict[str, Any] = {"name": "weather.get", "arguments": {"city": "NYC"}}


def said(*found: Any, content: Any = "", **fields: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content, "tool_calls": list(found), **fields}]


@pytest.mark.parametrize("mode", ["reasoning", "non_reasoning", None])
@pytest.mark.parametrize(
    ("completion", "right"),
    [
        (said({"type": "function", "function": NYC}), True),
        (said({"id": "1", "type": "function", "function": {**NYC, "arguments": '{"city": "NYC"}'}}), True),
        (said(NYC, content=None), True),
        (said(NYC, content="I look it up.", reasoning_content="I should."), True),
        (said(NYC, content=[{"type": "text", "text": "I look it up."}]), True),
        ([{"role": "assistant", "content": None, "function_call": {**NYC, "arguments": '{"city": "NYC"}'}}], True),
        ([*said(NYC), {"role": "tool", "content": "sunny"}, *said(content="</think>It is sunny.")], True),
        (said({"function": {**NYC, "arguments": '{"city": "Rome"}'}}), False),
        (said({"function": {**NYC, "arguments": "{city: NYC}"}}), False),
        (said({"function": {**NYC, "arguments": '"NYC"'}}), False),
        (said({"function": {**NYC, "arguments": None}}), False),
        (said({"function": {"name": "weather.get"}}), False),
        (said("weather.get"), False),
        (said(NYC, NYC), False),
        ([*said(NYC), {"role": "tool", "content": "sunny"}, *said(NYC)], False),
        (said(content="</think>It is sunny."), False),
        ([], False),
    ],
)
def test_calls_in_the_messages_own_field(completion: Any, right: bool, mode: Any) -> None:
    assert one(completion, mode=mode) == float(right)
    if any(turn.get("tool_calls") or turn.get("function_call") for turn in completion):
        assert one(completion, gold=[], mode=mode) == 0.0


def test_answers_without_calls_as_messages() -> None:
    assert one(said(content="It is sunny."), gold=[]) == 1.0


SAID = format_tool_call(NYC)


@pytest.mark.parametrize("mode", ["reasoning", "non_reasoning", None])
@pytest.mark.parametrize(
    ("completion", "right"),
    [
        (said(NYC, content=SAID), True),
        (said(NYC, content=f"I look it up.\n{SAID}\n"), True),
        (said({**NYC, "arguments": '{"city": "NYC"}'}, content=SAID), True),
        (said(NYC, content="I use <tool_call> for it."), True),
        (said(NYC, content="Between <tool_call> and </tool_call>."), True),
        (said({**NYC, "arguments": {"city": "Rome"}}, content=SAID), False),
        (said(NYC, content='<tool_call>{"name": "weather.get", "arg'), False),
        (said(NYC, content="<tool_call>{}</tool_call>"), False),
        ([*said(NYC), {"role": "tool", "content": "sunny"}, *said(content="It is sunny.")], True),
        ([*said(NYC), {"role": "tool", "content": "sunny"}, *said(content=SAID)], False),
        ([{"role": "assistant", "content": "", "tool_calls": json.dumps([{"function": NYC}])}], True),
        ([{"role": "assistant", "content": "", "tool_calls": json.dumps({"function": NYC})}], True),
        ([{"role": "assistant", "content": "", "tool_calls": "weather.get(city='NYC')"}], False),
    ],
)
def test_calls_in_the_field_and_in_the_content(completion: Any, right: bool, mode: Any) -> None:
    assert one(completion, mode=mode) == float(right)


@pytest.mark.parametrize("arguments", ["", None, "{}", {}])
@pytest.mark.parametrize("mode", ["reasoning", "non_reasoning", None])
def test_a_call_without_arguments(arguments: Any, mode: Any) -> None:
    now, gold = {"name": "now", "parameters": {"type": "dict", "properties": {}}}, [{"now": {}}]
    assert one(said({"function": {"name": "now", "arguments": arguments}}), gold, [now], mode) == 1.0
    assert one(said({"function": {"name": "then", "arguments": arguments}}), gold, [now], mode) == 0.0


@pytest.mark.parametrize(
    ("arguments", "right"), [('{"city": "NYC"}', 1.0), ('{"city": "Rome"}', 0.0), ('"NYC"', 0.0), ("NYC", 0.0)]
)
def test_arguments_in_the_tags_may_be_json_text(arguments: str, right: float) -> None:
    call = json.dumps({"name": "weather.get", "arguments": arguments})
    assert one(f"<tool_call>{call}</tool_call>") == right


WRONG_TYPE = {
    "integer": "three",
    "string": 3,
    "float": "1.5",
    "boolean": "yes",
    "array": "x",
    "tuple": "x",
    "dict": "x",
}


def test_bfcl_rows(real_data: Path) -> None:
    rows = [json.loads(line) for line in (real_data / "bfcl_simple/simple_python_100.jsonl").open()]
    assert len(rows) == 100
    wrong_types = 0
    for row in rows:
        (name, accepted), function = next(iter(row["ground_truth"][0].items())), row["function"]
        gold = {key: first_accepted(values[0]) for key, values in accepted.items() if values[0] != ""}
        properties = function[0]["parameters"]["properties"]
        required = function[0]["parameters"]["required"]

        def judge(*arguments: dict[str, Any], name: str = name, row: dict[str, Any] = row) -> float | None:
            return one(calls(*arguments, name=name), gold=row["ground_truth"], function=row["function"])

        assert judge(gold) == 1.0, row["id"]
        assert judge(gold, name=name + "s") == 0.0
        assert judge(gold, gold) == 0.0
        assert judge({**gold, "unheard_of": 1}) == 0.0
        for key in required:
            assert judge({other: value for other, value in gold.items() if other != key}) == 0.0
        for key in gold:
            wrong = WRONG_TYPE.get(properties[key]["type"])
            if wrong is not None:
                wrong_types += 1
                assert judge({**gold, key: wrong}) == 0.0
    assert wrong_types > 200
