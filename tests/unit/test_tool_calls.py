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


def one(text: str, gold: Any = GOLD, function: Any = (WEATHER,), mode: Any = None) -> float | None:
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
    """A nested dict lists accepted values by key."""
    return (
        {key: inner[0] if isinstance(inner, list) else inner for key, inner in value.items()}
        if isinstance(value, dict)
        else value
    )


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
