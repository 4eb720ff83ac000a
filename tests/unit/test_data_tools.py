"""Dialogues with tools: they replay in their world, errors are recovered from, expected calls score, public layouts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agapo.chat import format_tool_call
from agapo.curation.dialogues import check_dialogue
from agapo.errors import UserError
from data import tool_dialogues
from data.generated.tool_talks import SCENES
from data.generated.tool_texts import TEXTS, THOUGHTS
from data.generated.tool_world import TOOLS, World
from rewards.tool_calls import score

ROWS = list(tool_dialogues.dialogues("train", size=400))


def calls_and_results(
    messages: list[dict[str, Any]],
) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Yield (the agent's turn, a call of it, its result)."""
    for place, turn in enumerate(messages):
        for offset, call in enumerate(turn.get("tool_calls") or (), start=1):
            yield turn, call, json.loads(messages[place + offset]["content"])


def test_a_dialogue() -> None:
    (row,) = tool_dialogues.dialogues("train", size=1, reasoning=0, languages=["en"], scenes=["number"])
    system, *messages = row["messages"]
    world = World(row["world"])
    number = messages[3]["tool_calls"][0]["arguments"]["order_id"]
    order = world.orders[number]
    digits = number.removeprefix("#W")
    assert system["content"].endswith("Today is 2026-03-02. Ask for what you need to know.")
    assert digits in messages[0]["content"]
    assert messages[1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"name": "get_order", "arguments": {"order_id": digits}}],
            "train": False,
        },
        {"role": "tool", "content": f'{{"error": "no order {digits}; numbers look like #W1234"}}'},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"name": "get_order", "arguments": {"order_id": number}}],
        },
        {"role": "tool", "content": json.dumps({"order_id": number, **order})},
        {
            "role": "assistant",
            "content": f"Order {number} ({order['item']}) is {order['status']}; its address is {order['address']}.",
        },
    ]
    assert {**row, "messages": None, "tools": None} == {
        "messages": None,
        "tools": None,
        "mode": "non_reasoning",
        "domain": "tool_use",
        "task": "number",
        "language": "en",
        "world": world.seed,
    }


def test_dialogues_replay_in_their_world() -> None:
    played = 0
    for row in ROWS:
        world = World(row["world"])
        for _, call, result in calls_and_results(row["messages"]):
            assert world.call(call["name"], call["arguments"]) == result
            played += 1
    assert played > 800


def test_wrong_calls_are_not_trained_on_and_are_recovered_from() -> None:
    mended = 0
    for row in ROWS:
        found = list(calls_and_results(row["messages"]))
        for number, (turn, _, result) in enumerate(found):
            if turn.get("train") is False:
                assert "error" in result
                later = [other for other, _, answer in found[number + 1 :] if "error" not in answer]
                assert any(other.get("train", True) for other in later)
                mended += 1
        answered = [turn for turn in row["messages"] if turn["role"] == "assistant"][-1]
        assert answered["content"] and not answered.get("tool_calls")
    assert mended > 100


def test_scenes_have_what_they_promise() -> None:
    by_scene = {
        scene: [row["messages"] for row in tool_dialogues.dialogues("train", size=30, scenes=[scene], reasoning=0)]
        for scene in SCENES
    }
    assert all(len(messages[2]["tool_calls"]) == 2 for messages in by_scene["compare"])
    assert all(not any(turn.get("tool_calls") for turn in messages) for messages in by_scene["chat"])
    assert all(len([turn for turn in messages if turn.get("tool_calls")]) == 3 for messages in by_scene["order"])
    assert all(not messages[2].get("tool_calls") and messages[3]["role"] == "user" for messages in by_scene["address"])
    assert {messages[-1]["content"].split(" ")[0] for messages in by_scene["cancel"]} >= {"Order", "I"}


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("fly", {}, "no function fly"),
        ("get_order", {}, "argument order_id is missing"),
        ("get_order", {"order_id": "#W1", "x": 1}, "unknown argument x"),
        ("get_order", {"order_id": 1234}, "argument order_id should be of type string"),
        ("get_order", {"order_id": "1234"}, "no order 1234; numbers look like #W1234"),
        ("get_weather", {"city": "Oslo", "day": "monday"}, "day should be one of: today, tomorrow, saturday, sunday"),
        ("get_weather", {"city": "Atlantis", "day": "today"}, "no city Atlantis"),
        ("calculate", {"expression": "2 ** 9"}, "cannot read '2 ** 9'; use numbers"),
        ("calculate", {"expression": "1 / 0"}, "cannot read"),
        ("calculate", {"expression": "__import__('os')"}, "cannot read"),
        ("add_event", {"title": "a", "date": "2026-03-02", "hour": True}, "hour should be of type integer"),
        ("read_file", {"path": "home/none.txt"}, "no file home/none.txt"),
    ],
)
def test_wrong_calls_say_why(name: str, arguments: dict[str, Any], error: str) -> None:
    assert error in World(1).call(name, arguments)["error"]


def test_the_world_acts() -> None:
    world = World(5)
    assert world.call("calculate", {"expression": "17 / 100 * 200 + (3 - 1)"}) == {"value": 36}
    number = next(number for number, order in world.orders.items() if order["status"] == "pending")
    price = world.orders[number]["price"]
    cancelled = {"order_id": number, "status": "cancelled", "refund": price}
    assert world.call("cancel_order", {"order_id": number, "reason": "no longer needed"}) == cancelled
    again = world.call("change_address", {"order_id": number, "address": "Elm Street 1"})
    assert again == {"error": f"{number} is cancelled; only pending orders can be changed"}
    assert world.call("add_event", {"title": "a", "date": "2026-04-01", "hour": 9, "hours": 2})["added"] == "a"
    overlap = world.call("add_event", {"title": "b", "date": "2026-04-01", "hour": 10})
    assert overlap == {"error": "overlaps with a, 9:00 to 11:00"}
    assert world.call("list_events", {"date": "2026-04-01"}) == {"events": [{"title": "a", "hour": 9, "hours": 2}]}


def test_texts_are_in_all_languages() -> None:
    assert all(set(found) == {"en", "ko", "es"} for found in (*TEXTS.values(), *THOUGHTS.values()))


def test_expected_calls_score_one_and_others_zero() -> None:
    prompts = list(tool_dialogues.prompts("test", size=300))
    answers = [
        [
            {name: {k: v[0] for k, v in args.items() if v != [""]} for name, args in c.items()}
            for c in row["ground_truth"]
        ]
        for row in prompts
    ]
    said = [
        "\n".join(format_tool_call({"name": name, "arguments": args}) for call in calls for name, args in call.items())
        or "Done."
        for calls in answers
    ]
    columns = {name: [row[name] for row in prompts] for name in ("function", "ground_truth")}
    assert score([""] * 300, said, **columns) == [1.0] * 300
    wrong = [
        text.replace('": "', '": "x') if "<tool_call>" in text else format_tool_call({"name": "f", "arguments": {}})
        for text in said
    ]
    assert score([""] * 300, wrong, **columns) == [0.0] * 300
    calling = sum(bool(row["ground_truth"]) for row in prompts)
    assert 200 < calling < 300


def test_prompts_are_cut_before_a_right_turn() -> None:
    for row in tool_dialogues.prompts("test", size=100):
        assert row["messages"][-1]["role"] in ("user", "tool")
        assert row["world"] and row["function"] == [tool["function"] for tool in row["tools"]]


def test_the_tools_called_are_offered_among_others() -> None:
    for row in ROWS:
        offered = [tool["function"]["name"] for tool in row["tools"]]
        called = {call["name"] for _, call, _ in calls_and_results(row["messages"])}
        assert called < set(offered) and 1 <= len(offered) - len(called) <= 3
        assert all(tool in TOOLS for tool in row["tools"])


# --- public sets ---


def in_folder(folder: Path, *rows: Any) -> Path:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


WEATHER = {
    "name": "weather",
    "description": "Weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOL = {"type": "function", "function": WEATHER}
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
DIALOGUE = [
    {"role": "user", "content": "Weather in Oslo?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"sky": "fog"}'},
    {"role": "assistant", "content": "Fog."},
]
HERMES = {
    "conversations": [
        {"from": "system", "value": f"You may call functions within <tools> {json.dumps([TOOL])} </tools>"},
        {"from": "human", "value": "Weather in Oslo?"},
        {"from": "gpt", "value": "<tool_call>\n{'arguments': {'city': 'Oslo'}, 'name': 'weather'}\n</tool_call>"},
        {"from": "tool", "value": '<tool_response>\n{"sky": "fog"}\n</tool_response>'},
        {"from": "gpt", "value": "Fog."},
    ],
    "tools": json.dumps([TOOL]),
    "category": "Weather",
}
GLAIVE = {
    "system": "SYSTEM: You are helpful. Use these functions if required -\n" + json.dumps(WEATHER) + "\n",
    "chat": "USER: Weather in Oslo?\n\n\nASSISTANT: <functioncall> "
    '{"name": "weather", "arguments": \'{"city": "Oslo"}\'} <|endoftext|>'
    '\n\n\nFUNCTION RESPONSE: {"sky": "fog"}\n\n\nASSISTANT: Fog. <|endoftext|>\n\n\n',
}


@pytest.mark.parametrize("content", [HERMES, GLAIVE], ids=["hermes", "glaive"])
def test_public_dialogues(content: dict[str, Any], tmp_path: Path) -> None:
    (row,) = tool_dialogues.public("train", path=in_folder(tmp_path, content))
    assert row["messages"] == DIALOGUE
    assert row["tools"] == [TOOL]
    assert (row["mode"], row["domain"], row["place"]) == ("non_reasoning", "tool_use", f"{tmp_path / 'train.jsonl'}:1")
    check_dialogue(row, "?")


FLAT = {
    "city": {"type": "str", "description": "City."},
    "days": {"type": "int, optional", "description": "Days.", "default": 1},
}
XLAM = {
    "id": 7,
    "query": "Weather in Oslo?",
    "tools": json.dumps([{"name": "weather", "description": "Weather.", "parameters": FLAT}]),
    "answers": json.dumps([CALL]),
}
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "City."},
        "days": {"type": "integer", "description": "Days."},
    },
    "required": ["city"],
}


def test_xlam_as_dialogues_and_as_prompts(tmp_path: Path) -> None:
    (row,) = tool_dialogues.public("train", path=in_folder(tmp_path, XLAM))
    assert row["messages"] == DIALOGUE[:2]
    check_dialogue(row, "?")
    (prompt,) = tool_dialogues.public_prompts("train", path=tmp_path)
    assert prompt["function"] == [{"name": "weather", "description": "Weather.", "parameters": SCHEMA}]
    assert prompt["tools"] == row["tools"] == [{"type": "function", "function": prompt["function"][0]}]
    assert prompt["ground_truth"] == [{"weather": {"city": ["Oslo"], "days": [""]}}]
    columns = {"function": [prompt["function"]], "ground_truth": [prompt["ground_truth"]]}
    assert score([""], [format_tool_call(CALL)], **columns) == [1.0]


def test_nested_arguments_are_alternatives_at_each_key() -> None:
    call = {"name": "f", "arguments": {"filter": {"tags": ["a", "b"], "size": {"at_most": 3}}, "rows": [{"id": 1}]}}
    truth = tool_dialogues.ground_truth(call, {})
    assert truth["f"]["filter"] == [{"tags": [["a", "b"]], "size": [{"at_most": [3]}]}]
    columns = {"function": [[]], "ground_truth": [[truth]]}
    assert score([""], [format_tool_call(call)], **columns) == [1.0]
    call["arguments"]["filter"]["tags"] = "a"
    assert score([""], [format_tool_call(call)], **columns) == [0.0]


@pytest.mark.parametrize(
    "broken", [{}, {"query": "q", "tools": "[", "answers": "[]"}, {**XLAM, "answers": '[{"name": "f"}]'}]
)
def test_broken_xlam_rows_are_named(broken: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl:2: rows need 'query'"):
        list(tool_dialogues.public_prompts("train", path=in_folder(tmp_path, XLAM, broken)))


def test_calls_that_cannot_be_read_are_left_for_the_stage(tmp_path: Path) -> None:
    broken = {**GLAIVE, "chat": GLAIVE["chat"].replace('{"city": "Oslo"}', '{"city": ')}
    (row,) = tool_dialogues.public("train", path=in_folder(tmp_path, broken))
    with pytest.raises(UserError, match=r"train\.jsonl:1: .*'arguments'"):
        check_dialogue(row, "?")


def test_the_real_tool_calls(real_data: Path) -> None:
    path = real_data / "chat" / "en_toolcall_sft.jsonl.gz"
    rows = [row for split in ("train", "test") for row in tool_dialogues.public(split, path=path)]
    assert len(rows) == 300
    for row in rows:
        check_dialogue(row, "?")
    assert {row["domain"] for row in rows} == {"tool_use"}
    assert sum(len(list(calls_and_results(row["messages"]))) for row in rows if row.get("tools")) == 211
