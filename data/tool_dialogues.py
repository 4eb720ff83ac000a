"""Dialogues of users and agents with tools: a public set, and a generator that plays scenes in a simulated world.

`public` reads `NousResearch/hermes-function-calling-v1` (Apache-2.0; configs `func_calling`, `func_calling_singleturn`,
`glaive_func_calling`; `conversations` with `from` and `value`, `tools` as JSON text). It also reads the columns of
`glaiveai/glaive-function-calling-v2` (`system`, `chat`) and `Salesforce/xlam-function-calling-60k` (`query`, `tools`,
`answers`; CC-BY-4.0, access on request), and any layout of `data.layouts`.

`dialogues` plays one to three scenes (`data.generated.tool_talks`) in one world, several turns and steps: parallel
calls, errors to recover from (the wrong call has `train: false`), missing information asked back, and questions that
need no tool. `prompts` cuts such dialogues before a call, for `rewards.tool_calls:score`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from agapo.errors import UserError
from data.files import Row, dialogue, first_question, read
from data.generated.tool_talks import SCENES, NoScene, Talk
from data.generated.tool_world import FUNCTIONS, TODAY, TOOLS, World
from data.generating import LANGUAGES, MOST_DRAWS, checked, chosen, digest, is_test, share, sized
from data.layouts import json_or_text

PUBLIC = "NousResearch/hermes-function-calling-v1"
_ABOUT = {"mode": "non_reasoning", "domain": "tool_use", "task": "tool_dialogue", "language": "en"}
_SYSTEM = {
    "en": "You help with orders, the calendar, the weather, sums and files. Today is {today}. Ask for what you "
    "need to know.",
    "ko": "주문, 일정, 날씨, 계산, 파일을 돕습니다. 오늘은 {today}입니다. 필요한 정보가 없으면 물어보세요.",
    "es": "Ayudas con pedidos, el calendario, el tiempo, cuentas y archivos. Hoy es {today}. Pregunta lo que te falte.",
}
DETERMINED = tuple(scene for scene in SCENES if scene != "percent")
"""Scenes whose calls have one right form; a sum can be written in many ways."""
_OTHERS = (1, 3)
"""So many tools are offered that are not called."""
_CALLING = 0.85
"""Share of prompts that expect a call, not an answer."""


def dialogues(
    split: str,
    *,
    size: int = 4000,
    seed: int = 0,
    reasoning: float = 0.5,
    most_scenes: int = 3,
    languages: Sequence[str] | None = None,
    scenes: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield `size` dialogues of one to `most_scenes` scenes; `reasoning` is the share whose agent thinks.

    `world` is the seed from which `data.generated.tool_world.World` plays the calls again.
    """
    names, spoken = chosen("scenes", scenes, tuple(SCENES)), chosen("languages", languages, LANGUAGES)
    if most_scenes < 1:
        raise UserError(f"data.args.most_scenes: is {most_scenes}; should be from 1 on")
    return _dialogues(
        checked(split), Random(f"tools/{split}/{seed}"), sized(size), share(reasoning), most_scenes, spoken, names
    )


def _dialogues(
    split: str, draw: Random, size: int, reasoning: float, most: int, languages: Sequence[str], scenes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    made = missed = 0
    while made < size:
        if missed > MOST_DRAWS:
            raise UserError(
                f"data.args.scenes: {', '.join(scenes)} cannot be played in the split '{split}'; add others"
            )
        language, thinks = draw.choice(languages), draw.random() < reasoning
        played = draw.sample(scenes, min(len(scenes), draw.randint(1, most)))
        talk = Talk(World(draw.getrandbits(32)), language, draw, thinks=thinks)
        try:
            for scene in played:
                SCENES[scene](talk, lambda key: is_test(key) == (split == "test"))
        except NoScene:
            missed += 1
            continue
        made, missed = made + 1, 0
        yield _row(talk, played, _offered(talk, draw))


def _offered(talk: Talk, draw: Random) -> list[dict[str, Any]]:
    """Return the tools that are called, and some that are not, in any order."""
    called = {call["name"] for turn in talk.messages for call in turn.get("tool_calls") or ()}
    others = [name for name in FUNCTIONS if name not in called]
    offered = called | set(draw.sample(others, min(len(others), draw.randint(*_OTHERS))))
    tools = [tool for tool in TOOLS if tool["function"]["name"] in offered]
    return draw.sample(tools, len(tools))


def _row(talk: Talk, scenes: Sequence[str], tools: list[dict[str, Any]]) -> dict[str, Any]:
    system = {"role": "system", "content": _SYSTEM[talk.language].format(today=TODAY)}
    return {
        "messages": [system, *talk.messages],
        "tools": tools,
        "mode": "reasoning" if talk.thinks else "non_reasoning",
        "domain": "tool_use",
        "task": "+".join(scenes),
        "language": talk.language,
        "world": talk.world.seed,
    }


def prompts(
    split: str,
    *,
    size: int = 400,
    seed: int = 0,
    languages: Sequence[str] | None = None,
    scenes: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield `size` dialogues cut before the agent's turn, with `function` and `ground_truth` (BFCL's form).

    An empty `ground_truth` expects an answer without a call. Scenes are those of `DETERMINED` unless named.
    """
    scenes = chosen("scenes", scenes, tuple(SCENES)) if scenes else DETERMINED
    draw = Random(f"tools/prompts/{split}/{seed}")
    rows = dialogues(
        split, size=size, seed=seed + 1_000_003, reasoning=0, most_scenes=2, languages=languages, scenes=scenes
    )
    return (_cut(row, draw) for row in rows)


def _cut(row: Mapping[str, Any], draw: Random) -> dict[str, Any]:
    """Cut a dialogue before one of its right turns, more often before a call than before an answer."""
    turns = list(enumerate(row["messages"]))
    right = [(place, turn) for place, turn in turns if turn["role"] == "assistant" and turn.get("train", True)]
    calling = [(place, turn) for place, turn in right if turn.get("tool_calls")]
    place, turn = draw.choice(calling if calling and draw.random() < _CALLING else right)
    messages, calls = row["messages"][:place], turn.get("tool_calls") or []
    rest = {name: row[name] for name in ("domain", "task", "language", "tools", "world")}
    return {
        "id": f"tools/{digest(json.dumps(messages))}",
        "messages": messages,
        **rest,
        "function": [tool["function"] for tool in row["tools"]],
        "ground_truth": [ground_truth(call, FUNCTIONS) for call in calls],
    }


def ground_truth(call: Mapping[str, Any], functions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call in BFCL's form: each argument with the values that are accepted, and "" for those left out."""
    parameters = (functions.get(call["name"]) or {}).get("parameters") or {}
    known = parameters.get("properties") or {}
    left_out = {name: [""] for name in known if name not in call["arguments"]}
    return {call["name"]: _alternatives(call["arguments"]) | left_out}


def _alternatives(arguments: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A nested dict has a list of accepted values for each of its keys, too."""
    return {name: [_accepted(value)] for name, value in arguments.items()}


def _accepted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _alternatives(value)
    return [_accepted(item) for item in value] if isinstance(value, list) else value


# --- public sets ---


def public(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = PUBLIC,
    config: str | None = "func_calling",
    only_split: str = "train",
) -> Iterator[dict[str, Any]]:
    """Yield the public set's dialogues as rows for SFT. `path`, `name`, `config`, `only_split`: see `data.files.read`.

    Calls that cannot be read are passed on for the stage to name or drop; raises UserError, naming file and line, for
    rows in no known layout.
    """
    rows = read(
        split,
        path=path,
        hub=name,
        config=config,
        only_split=only_split,
        key=lambda content: first_question(_chat(content)),
    )
    return (_without_list(dialogue(row, _chat(row.content), _ABOUT)) for row in rows)


def public_prompts(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = "Salesforce/xlam-function-calling-60k",
    only_split: str = "train",
) -> Iterator[dict[str, Any]]:
    """Yield rows of `query`, `tools` and `answers` as prompts with `function` and `ground_truth`.

    Raises UserError naming file and line where they are malformed.
    """
    return map(_xlam_prompt, read(split, path=path, hub=name, only_split=only_split, key="query"))


def _xlam_prompt(row: Row) -> dict[str, Any]:
    content = row.content if isinstance(row.content, dict) else {}
    tools, calls = _xlam_tools(content.get("tools")), json_or_text(content.get("answers"))
    if not isinstance(content.get("query"), str) or not isinstance(tools, list) or not _are_calls(calls):
        raise UserError(f"{row.place}: rows need 'query', and 'tools' and 'answers' as (JSON of) lists")
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    return {
        "id": f"xlam/{row.split}/{content.get('id', row.line)}",
        "messages": [{"role": "user", "content": content["query"]}],
        "domain": "tool_use",
        "task": "single_turn",
        "language": "en",
        "tools": tools,
        "function": list(functions.values()),
        "ground_truth": [ground_truth(call, functions) for call in calls],
    }


def _are_calls(calls: Any) -> bool:
    return isinstance(calls, list) and all(
        isinstance(call, dict) and "name" in call and isinstance(call.get("arguments"), dict) for call in calls
    )


def _chat(content: Any) -> Any:
    """Return the content with a chat, where its layout is xlam's or glaive's own."""
    if not isinstance(content, dict):
        return content
    if "query" in content and "answers" in content:
        calls = json_or_text(content["answers"])
        turns = [
            {"role": "user", "content": content["query"]},
            {"role": "assistant", "content": "", "tool_calls": calls if isinstance(calls, list) else [calls]},
        ]
        rest = {name: value for name, value in content.items() if name not in ("query", "answers")}
        return rest | {"messages": turns, "tools": _xlam_tools(content.get("tools"))}
    if isinstance(content.get("chat"), str) and "system" in content:
        return {"messages": _glaive_turns(content["chat"]), "tools": _glaive_tools(str(content["system"] or ""))}
    return content


def _without_list(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out a system turn that only lists the tools, which the chat template does."""
    first = row["messages"][0] if row["messages"] else None
    listed = isinstance(first, dict) and first.get("role") == "system" and "<tools>" in str(first.get("content"))
    return row | {"messages": row["messages"][1:]} if listed and row.get("tools") else row


_XLAM_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}


def _xlam_tools(tools: Any) -> Any:
    """The parameters of xlam are a flat dict of Python's type names; `, optional` marks what may be left out."""
    tools = json_or_text(tools)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and "name" in tool for tool in tools):
        return tools
    return [
        {"type": "function", "function": tool | {"parameters": _xlam_schema(tool.get("parameters"))}} for tool in tools
    ]


def _xlam_schema(parameters: Any) -> dict[str, Any]:
    parameters = parameters if isinstance(parameters, dict) else {}
    if parameters.get("type") == "object":
        return parameters
    properties, required = {}, []
    for name, about in parameters.items():
        kind = str(about.get("type", "")) if isinstance(about, dict) else ""
        base = re.split(r"[\[,]", kind)[0].strip().lower()
        properties[name] = {
            "type": _XLAM_TYPES.get(base, "string"),
            "description": (about or {}).get("description", ""),
        }
        if "optional" not in kind and "default" not in (about or {}):
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


_GLAIVE_TURN = re.compile(
    r"(USER|ASSISTANT|FUNCTION RESPONSE):\s*(.*?)(?=\n+\s*(?:USER|ASSISTANT|FUNCTION RESPONSE):|\Z)", re.S
)
_GLAIVE_CALL = re.compile(r"<functioncall>\s*(\{.*\})", re.S)
_GLAIVE_ARGUMENTS = re.compile(r"\"name\":\s*\"([^\"]+)\"\s*,\s*\"arguments\":\s*'(.*)'\s*\}", re.S)
_GLAIVE_ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}


def _glaive_turns(chat: str) -> list[dict[str, Any]]:
    return [_glaive_turn(role, text.replace("<|endoftext|>", "").strip()) for role, text in _GLAIVE_TURN.findall(chat)]


def _glaive_turn(role: str, text: str) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": _GLAIVE_ROLES[role], "content": text}
    found = _GLAIVE_CALL.search(text) if role == "ASSISTANT" else None
    if not found:
        return turn
    named = _GLAIVE_ARGUMENTS.search(found[1])
    call = {"name": named[1], "arguments": json_or_text(named[2])} if named else json_or_text(found[1])
    return turn | {"content": text[: found.start()].strip(), "tool_calls": [call]}


def _glaive_tools(system: str) -> list[Any]:
    """The system turn holds the functions as JSON objects, one after the other."""
    decoder, tools, place = json.JSONDecoder(), [], system.find("{")
    while place >= 0:
        try:
            tool, end = decoder.raw_decode(system, place)
        except ValueError:
            break
        tools.append(tool)
        place = system.find("{", end)
    return tools
