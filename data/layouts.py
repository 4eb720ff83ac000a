"""Chats as public data sets lay them out, turned into this project's: `messages` and `tools`.

    messages, conversations, conversation   turns with role and content, or from and value (ShareGPT)
    prompt with completion or response      texts, or lists of turns
    instruction (input) with output         Alpaca
    question with answer, inputs with targets

Thinking in `<think>` tags becomes `reasoning_content`; calls in turns of their own (`tool_call`, `function_call`) or in
`<tool_call>` tags become `tool_calls`. What cannot be read is left as it is, for the check of the rows to name.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CHATS = ("messages", "conversations", "conversation")
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("inputs", "targets"),
    ("query", "response"),
)
"""(question, answer) columns; `instruction` may be followed by an `input`, `system` comes first."""
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "observation": "tool",
}
_CALLS = ("tool_call", "function_call")
_THINKING = (
    re.compile(r"\s*<think>(.*?)</think>\s*(.*)", re.DOTALL),
    re.compile(
        r"\s*<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>\s*"
        r"<\|begin_of_solution\|>(.*?)(?:<\|end_of_solution\|>\s*|\Z)",
        re.DOTALL,
    ),
)
_CALL = re.compile(r"\s*<tool_call>\s*(.*?)\s*</tool_call>\s*", re.DOTALL)
_RESULT = re.compile(r"\s*<tool_response>\s*(.*?)\s*</tool_response>\s*", re.DOTALL)


def chat_of(content: Mapping[str, Any]) -> list[Any] | None:
    """Return a row's turns, None where it has none of the layouts. Turns that are no dicts stay as they are."""
    for name in CHATS:
        if isinstance(content.get(name), list):
            return _merged([_turn(turn) for turn in content[name]])
    for question, answer in PAIRS:
        if content.get(question) and content.get(answer) is not None:
            return _pair(content, question, answer)
    return None


def tools_of(content: Mapping[str, Any]) -> Any:
    """Return a row's tools in OpenAI's form, None without any; what is not a list of functions stays as it is."""
    tools = json_or_text(content.get("tools") or content.get("functions"))
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        return [_tool(tools)] if isinstance(tools, Mapping) else tools
    return [_tool(tool) for tool in tools] or None


def _tool(tool: Any) -> Any:
    tool = json_or_text(tool)
    bare = isinstance(tool, Mapping) and "name" in tool and "function" not in tool
    return {"type": "function", "function": dict(tool)} if bare else tool


def json_or_text(value: Any) -> Any:
    """Return what a JSON text (or, as some sets have it, a Python literal) says; anything else as it is."""
    if not isinstance(value, str):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def thinks(messages: Sequence[Any]) -> bool:
    """Does any turn think?"""
    return any(isinstance(turn, Mapping) and turn.get("reasoning_content") for turn in messages)


# --- turns ---


def _pair(content: Mapping[str, Any], question: str, answer: str) -> list[Any]:
    asked, answered = content[question], content[answer]
    if question == "instruction" and content.get("input"):
        asked = f"{asked}\n\n{content['input']}"
    system = [{"role": "system", "content": content["system"]}] if content.get("system") else []
    before = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    after = answered if isinstance(answered, list) else [{"role": "assistant", "content": answered}]
    return _merged([_turn(turn) for turn in (*system, *before, *after)])


def _turn(turn: Any) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    role, text = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    # Parquet fills the keys that a turn lacks with None.
    others = {key: value for key, value in turn.items() if key not in ("role", "from", "content", "value")}
    kept = {key: value for key, value in others.items() if value is not None}
    role = _ROLES.get(role, role) if isinstance(role, str) else role
    if role in _CALLS:
        return {"role": "assistant", "content": "", **kept, "tool_calls": list(_calls(text))}
    if role == "assistant":
        return _assistant({"role": role, "content": text, **kept})
    if role == "tool" and isinstance(text, str) and (found := _RESULT.fullmatch(text)):
        text = found[1]
    return {"role": role, "content": text, **kept}


def _assistant(turn: dict[str, Any]) -> dict[str, Any]:
    if turn.get("tool_calls"):
        turn["tool_calls"] = [_call(call) for call in turn["tool_calls"]]
        turn["content"] = turn["content"] or ""
    if not isinstance(turn["content"], str):
        return turn
    found = next((match for form in _THINKING if (match := form.fullmatch(turn["content"]))), None)
    if found:
        turn["content"] = found[2].strip()
        turn |= {"reasoning_content": found[1].strip()} if found[1].strip() else {}
    calls = [call for text in _CALL.findall(turn["content"]) for call in _calls(text)]
    if calls:
        turn |= {"content": _CALL.sub("\n", turn["content"]).strip(), "tool_calls": calls}
    return turn


def _calls(text: Any) -> Iterator[Any]:
    read = json_or_text(text)
    yield from map(_call, read if isinstance(read, list) else [read])


def _call(call: Any) -> Any:
    """Return {"name", "arguments"}; what is none stays as it is."""
    inner = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(inner, Mapping) or "name" not in inner:
        return call
    arguments = inner.get("arguments", inner.get("parameters"))
    return {"name": inner["name"], "arguments": {} if arguments is None else json_or_text(arguments)}


def _merged(turns: Sequence[Any]) -> list[Any]:
    """Join the calls that follow each other, and a text with the call after it, into one turn."""
    merged: list[Any] = []
    for turn in turns:
        before = merged[-1] if merged else None
        if _calling(turn) and isinstance(before, dict) and before.get("role") == "assistant" and not turn["content"]:
            merged[-1] = {**before, **turn, "content": before["content"]}
            merged[-1]["tool_calls"] = [*(before.get("tool_calls") or ()), *turn["tool_calls"]]
        else:
            merged.append(turn)
    return merged


def _calling(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "assistant" and bool(turn.get("tool_calls"))
