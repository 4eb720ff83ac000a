"""Rows of dialogues for SFT: what is wrong with one is named; what can be read in one way only is read.

    source ──row──► normal_dialogue ──row──► row_examples ──► (token ids, loss mask)

Left out on purpose: whether a dialogue is any good (the filters beside this file), and mending rows: a row that is
half understood would be half trained on.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from agapo.chat import (
    END_THINK,
    THINK,
    TRAINED_MARKS,
    UNCLEAR_MARKS,
    UNTRAINED_MARKS,
    dialogue_examples,
    is_mark,
    prompt_ids,
    trained_mark,
    trained_turns,
)
from agapo.curation.columns import check_columns
from agapo.errors import UserError
from agapo.resolve import did_you_mean
from agapo.schema import MODES, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant", "tool")
_ROLE_MENDS = {
    "human": "rename it to 'user'",
    "gpt": "rename it to 'assistant'",
    "bot": "rename it to 'assistant'",
    "chatgpt": "rename it to 'assistant'",
    "model": "rename it to 'assistant'",
    "developer": "rename it to 'system'",
    "function": "rename it to 'tool'",
    "observation": "rename it to 'tool'",
    "tool_response": "rename it to 'tool'",
    "tool_call": "put the call into 'tool_calls' of an assistant's turn",
    "function_call": "put the call into 'tool_calls' of an assistant's turn",
}
"""The roles of other formats."""
_THINKING_NAMES = ("thinking", "reasoning", "thought")
_CHAT_NAMES = ("conversations", "conversation", "dialogue", "chat", "turns")
_KINDS = {"domain": str, "task": str, "language": str, "context_length": int}


def check_dialogue(row: Mapping[str, Any], place: str) -> None:
    """Raise UserError unless the row can be trained on, as far as can be known without a tokenizer.

    The error names `place`, or the row's own `place` (`file:line`) where it has one, the column, and the mend.
    """
    normal_dialogue(row, place)


def normal_dialogue(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the checked row in its normal form; the other columns stay as they are.

    Tools, tool calls and their arguments are read where they are JSON texts; calls are in OpenAI's form
    (`{"type": "function", "function": {"name": str, "arguments": dict}}`); empty `tools` and `place` are left out.
    A source that could not read a row says why in `malformed`. Raises UserError as `check_dialogue` does.
    """
    place = row.get("place") or place
    if row.get("malformed"):
        raise UserError(f"{place}: {row['malformed']}")
    _check_kinds(row, place)
    check_columns(row, place)
    messages, tools = _messages(row, place), _tools(row.get("tools"), place)
    _check_mode(row, messages, place)
    rest = {name: value for name, value in row.items() if name not in ("messages", "tools", "place")}
    return {"messages": messages, **rest, **({"tools": tools} if tools else {})}


def row_examples(
    tokenizer: "PreTrainedTokenizerBase", row: Mapping[str, Any], place: str
) -> list[tuple[list[int], list[int]]]:
    """Return the `dialogue_examples` of a normal row. Raises UserError where the model's template refuses it."""
    place = row.get("place") or place
    messages, tools = row["messages"], row.get("tools")
    _check_control_tokens(tokenizer, messages, place)
    try:
        examples = dialogue_examples(tokenizer, messages, row["mode"], tools)
        hidden = _hides_results(tokenizer, messages, tools)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{place}: the model's chat template refuses the dialogue ({reason}); mend the row") from error
    if hidden:
        raise UserError(f"{place}: the model's chat template leaves out tool results that are no text; make them texts")
    return examples


def _check_control_tokens(tokenizer: "PreTrainedTokenizerBase", messages: Any, place: str) -> None:
    """A text that holds a control token would be read as the end of a turn, or as another's."""
    control = _control_tokens(tokenizer)
    for number, turn in enumerate(messages, start=1):
        for name in ("content", "reasoning_content"):
            text = turn.get(name)
            if isinstance(text, str) and (found := control.search(text)):
                where = f"{place}: column 'messages', turn {number}"
                raise UserError(f"{where}: {name} holds the control token '{found[0]}'; leave it out")


@lru_cache(maxsize=8)
def _control_tokens(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    tokens = {token for token in (*tokenizer.all_special_tokens, *added) if token}
    return re.compile("|".join(re.escape(token) for token in sorted(tokens)) or r"(?!)")


def _hides_results(tokenizer: "PreTrainedTokenizerBase", messages: Any, tools: Any) -> bool:
    """Whether results that are no text might as well be others: Qwen3's template, for one, writes nothing for them."""
    odd = [turn["role"] == "tool" and not isinstance(turn["content"], str) for turn in messages]
    if not any(odd):
        return False
    others = [{**turn, "content": {"?": 0}} if other else turn for turn, other in zip(messages, odd, strict=True)]
    rendered = (
        prompt_ids(tokenizer, Prompt("", tuple(turns), columns={"tools": tools})) for turns in (messages, others)
    )
    return next(rendered) == next(rendered) and messages != others


def _check_kinds(row: Mapping[str, Any], place: str) -> None:
    for name, kind in _KINDS.items():
        value = row.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            wanted = "a text" if kind is str else "a whole number"
            raise UserError(f"{place}: column '{name}' is {_short(value)}; should be {wanted}")
        if value == "" or (isinstance(value, str) and _is_half_a_pair(value)):
            raise UserError(f"{place}: column '{name}' is {_short(value)}; give it a name, or leave it out")


def _check_mode(row: Mapping[str, Any], messages: list[dict[str, Any]], place: str) -> None:
    """The mode is one of the two, and the thinking fits it."""
    mode, names = row.get("mode"), " or ".join(MODES)
    if mode is None:
        raise UserError(f"{place}: there is no column 'mode'; should be {names}")
    if mode not in MODES:
        near = did_you_mean(mode, list(MODES)) if isinstance(mode, str) else ""
        raise UserError(f"{place}: column 'mode' is {_short(mode)}; should be {names}{near}")
    thoughtful = any((turn.get("reasoning_content") or "").strip() for turn in messages)
    if mode == "reasoning" and not thoughtful:
        raise UserError(
            f"{place}: column 'messages' has no 'reasoning_content' in any turn, though 'mode' is reasoning; "
            "add the thinking, or set the mode to non_reasoning"
        )
    if mode == "non_reasoning" and thoughtful:
        raise UserError(
            f"{place}: column 'messages' has 'reasoning_content', which is not trained as 'mode' is non_reasoning; "
            "leave it out, or set the mode to reasoning"
        )
    try:
        trained_turns(messages, mode)
    except ValueError as error:
        raise UserError(f"{place}: column 'messages': {error}") from None


def _messages(row: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    turns = row.get("messages")
    if not isinstance(turns, list | tuple) or not turns:
        raise UserError(f"{place}: column 'messages' {_no_chat(row, turns)}")
    messages = [_turn(turn, f"{place}: column 'messages', turn {number}") for number, turn in enumerate(turns, start=1)]
    _check_order(messages, place)
    return messages


def _no_chat(row: Mapping[str, Any], turns: Any) -> str:
    other = next((name for name in _CHAT_NAMES if row.get(name)), None)
    if turns is None and other:
        return f"is missing; rename '{other}'"
    state = "is missing" if turns is None else "is empty" if turns in ([], ()) else f"is {_short(turns)}"
    return f"{state}; should be a chat that ends with the assistant's turn"


def _check_order(messages: list[dict[str, Any]], place: str) -> None:
    """The system's turn is first, the assistant's last, and each tool result has its call."""
    calls = 0
    first = next((turn for turn in messages if turn["role"] != "system"), messages[0])
    if first["role"] == "assistant" and first.get("train") is not False:
        raise UserError(
            f"{place}: column 'messages' starts with the assistant's turn, which answers nothing; "
            "start with the user's, or give that turn 'train': false"
        )
    for number, turn in enumerate(messages, start=1):
        where = f"{place}: column 'messages', turn {number}"
        if turn["role"] == "system" and number > 1:
            raise UserError(f"{where}: the system's turn should be the first; move it or join them")
        if turn["role"] == "tool" and not calls:
            raise UserError(f"{where}: a tool's result without a call before it; put it into 'tool_calls' there")
        calls = calls - 1 if turn["role"] == "tool" else len(turn.get("tool_calls") or [])
    if messages[-1]["role"] != "assistant":
        raise UserError(
            f"{place}: column 'messages' ends with the turn of '{messages[-1]['role']}'; "
            "should be a chat that ends with the assistant's turn"
        )


def _is_half_a_pair(text: str) -> bool:
    """Whether a text has a surrogate without its other half: it is no character, and no file can hold it."""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def _check_writable(turn: Mapping[str, Any], where: str) -> None:
    """What is trained on can be written down, and so looked at."""
    try:
        whole = not _is_half_a_pair(json.dumps(turn, ensure_ascii=False, default=str))
    except (RecursionError, ValueError):
        raise UserError(f"{where}: is nested too deeply; leave the row out") from None
    if not whole:
        raise UserError(
            f"{where}: holds half a surrogate pair (\\ud800 to \\udfff), which is no character; mend the text"
        )


def _turn(turn: Any, where: str) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise UserError(f"{where}: is {_short(turn)}; should be {{'role': …, 'content': …}}")
    _check_writable(turn, where)
    role = _role(turn, where)
    turn = _marked(turn, role, where)
    if role == "assistant":
        return _assistant(turn, where)
    _check_only_assistants(turn, role, where)
    content = turn.get("content")
    if role != "tool" and not isinstance(content, str):
        raise UserError(f"{where}: the {role}'s content is {_short(content)}; should be a text")
    if content is None or (role == "user" and not content.strip()):
        raise UserError(f"{where}: the {role}'s content is empty; give it some, or leave the row out")
    return dict(turn)


def _marked(turn: Mapping[str, Any], role: str, where: str) -> Mapping[str, Any]:
    """Other formats' marks become `train: false`; those that say that it is trained leave that as it is."""
    try:
        mark = trained_mark(turn)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    others = {*TRAINED_MARKS, *UNTRAINED_MARKS, *UNCLEAR_MARKS}
    found = sorted(others & turn.keys())
    if mark and found and role != "assistant":
        raise UserError(f"{where}: '{found[0]}' has the {role}'s turn trained on; only the assistant's turns are")
    bare = {name: value for name, value in turn.items() if name not in others}
    if unread := next((name for name, value in bare.items() if _may_be_mark(name, value, role)), None):
        raise UserError(
            f"{where}: '{unread}' is not read, and may say whether the turn is trained on; say it with 'train', "
            "or leave it out"
        )
    return {**bare, "train": False} if mark is False and role == "assistant" else bare


def _may_be_mark(name: str, value: Any, role: str) -> bool:
    """Whether a key is a mark by its name, or, on the turns that are trained on, by its value: yes or no."""
    if name in ("train", *_FLAGS) or value is None:
        return False
    yes_or_no = value in (0, 1) or (isinstance(value, str) and value.lower() in _YES_OR_NO)
    return (role == "assistant" and isinstance(value, bool)) or (
        (is_mark(name) or name in ("label", "labels")) and (yes_or_no or isinstance(value, float))
    )


_FLAGS = ("toxic", "redacted", "deleted", "synthetic", "edited", "flagged", "is_error", "prefix")
"""Public sets' keys of turns that say yes or no, and nothing of the training."""
_YES_OR_NO = ("true", "false", "yes", "no", "0", "1")


def _role(turn: Mapping[str, Any], where: str) -> str:
    role = turn.get("role")
    if role is None:
        mend = "rename 'from' to 'role' and 'value' to 'content'" if "from" in turn else f"give one of {_roles()}"
        raise UserError(f"{where}: has no role; {mend}")
    if role not in ROLES:
        mend = _ROLE_MENDS.get(role) if isinstance(role, str) else None
        near = did_you_mean(role, list(ROLES)) if isinstance(role, str) else ""
        raise UserError(f"{where}: the role is {_short(role)}; should be {_roles()}{f'; {mend}' if mend else near}")
    if "content" not in turn and "value" in turn:
        raise UserError(f"{where}: has no content; rename 'value' to 'content'")
    return role


def _roles() -> str:
    return f"{', '.join(ROLES[:-1])} or {ROLES[-1]}"


def _check_only_assistants(turn: Mapping[str, Any], role: str, where: str) -> None:
    for name in ("tool_calls", "reasoning_content"):
        if turn.get(name):
            raise UserError(f"{where}: the {role} has '{name}', which belongs to an assistant's turn; move it there")
    if turn.get("train"):
        raise UserError(f"{where}: 'train' is set on the {role}'s turn; only the assistant's turns are trained on")


def _assistant(turn: Mapping[str, Any], where: str) -> dict[str, Any]:
    for name in ("content", "reasoning_content"):
        _check_text(turn, name, where)
    if turn.get("function_call"):
        raise UserError(f"{where}: 'function_call' is not read; put the call into 'tool_calls'")
    other = next((name for name in _THINKING_NAMES if turn.get(name)), None)
    if other and not turn.get("reasoning_content"):
        raise UserError(f"{where}: '{other}' is not read; rename it to 'reasoning_content', or leave it out")
    calls = _calls(turn.get("tool_calls"), where)
    if not calls and not any((turn.get(name) or "").strip() for name in ("content", "reasoning_content")):
        raise UserError(f"{where}: the assistant's turn is empty; give it content, or leave the row out")
    rest = {name: value for name, value in turn.items() if name != "tool_calls"}
    return {**rest, **({"tool_calls": calls} if calls else {})}


def _check_text(turn: Mapping[str, Any], name: str, where: str) -> None:
    text = turn.get(name)
    if text is None:
        return
    if not isinstance(text, str):
        raise UserError(f"{where}: the assistant's {name} is {_short(text)}; should be a text")
    tag = next((tag for tag in (THINK, END_THINK) if tag in text), None)
    if tag:
        mend = "put the thinking into 'reasoning_content'" if name == "content" else "leave the tags out"
        raise UserError(f"{where}: the assistant's {name} holds {tag}; {mend}")


def _calls(calls: Any, where: str) -> list[dict[str, Any]]:
    calls = _read(calls, f"{where}: 'tool_calls'")
    if calls is None:
        return []
    if not isinstance(calls, list | tuple):
        raise UserError(f"{where}: 'tool_calls' is {_short(calls)}; should be a list of calls")
    return [_call(call, f"{where}, tool call {number}") for number, call in enumerate(calls, start=1)]


def _call(call: Any, where: str) -> dict[str, Any]:
    function = (call.get("function") or call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise UserError(f"{where}: is {_short(call)}; should be {{'name': …, 'arguments': {{…}}}}")
    where = f"{where} ('{_short(function['name'])[1:-1]}'): 'arguments'"
    arguments = _read(function.get("arguments"), where)
    if not isinstance(arguments, Mapping):
        raise UserError(f"{where} is {_short(arguments)}; should be a JSON object, {{}} for none")
    rest = {name: value for name, value in call.items() if name not in ("name", "arguments", "function")}
    return {**rest, "type": "function", "function": {"name": function["name"], "arguments": dict(arguments)}}


def _tools(tools: Any, place: str) -> list[dict[str, Any]]:
    tools = _read(tools or None, f"{place}: column 'tools'")
    if tools is None:
        return []
    if not isinstance(tools, list | tuple):
        raise UserError(f"{place}: column 'tools' is {_short(tools)}; should be a list of tools")
    return [_tool(tool, f"{place}: column 'tools', tool {number}") for number, tool in enumerate(tools, start=1)]


def _tool(tool: Any, where: str) -> dict[str, Any]:
    tool = _read(tool, where)
    function = (tool.get("function") or tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UserError(f"{where}: is {_short(tool)}; should be {{'name': …, 'description': …, 'parameters': {{…}}}}")
    return dict(tool)


def _read(value: Any, where: str) -> Any:
    """A text is read as JSON: columns of many public sets hold such, as their tables cannot hold free-form objects."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}): {_short(value)}; mend it") from None


def _short(value: Any) -> str:
    """One line, of bounded length."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
