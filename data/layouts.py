"""Chats as public data sets lay them out, turned into this project's: `messages` and `tools`.

    messages, conversations, conversation   turns with role and content, or from and value (ShareGPT)
    prompt with completion or response      texts, or lists of turns
    instruction with output                 Alpaca
    question with answer, inputs with targets
    input, context; history                 beside these: what follows the question; the turns before it
    system, or system_prompt                beside any of them: the first turn

Thinking in `<think>` tags becomes `reasoning_content`; calls in turns of their own (`tool_call`, `function_call`) or in
`<tool_call>` tags become `tool_calls`. What cannot be read is left as it is, for the check of the rows to name; other
columns with a prompt's text are refused, unless the dialogue holds it.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agapo.chat import TRAINED_MARKS, UNTRAINED_MARKS, tool_call_texts

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
"""(question, answer) columns; `FOLLOWING` are joined to the question, `history` comes before."""
FOLLOWING = ("input", "context")
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction")
"""Columns with the text of the system's turn."""
MASKS = ("loss_mask", "loss_masks", "train_mask", "train_on_turn", "trainable", "weights", "loss_weights")
"""Columns with a list that says of each turn whether it is trained on."""
_PROMPTS = frozenset(
    (
        *(question for question, _ in PAIRS),
        *FOLLOWING,
        *("instructions", "passage", "preamble", "system", "systemprompt", "systemmessage", "systeminstruction"),
        *("sysprompt", "developer", "developermessage", "developerprompt"),
    )
)
"""What columns with a prompt's text are called, in small letters alone."""


class Unreadable(ValueError):
    """A row whose columns cannot be read as one dialogue; the message says why, and the mend."""


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
_RESULT = re.compile(r"\s*<tool_response>\s*(.*?)\s*</tool_response>\s*", re.DOTALL)


def chat_of(content: Mapping[str, Any]) -> list[Any] | None:
    """Return a row's turns, None where it has none of the layouts. Turns that are no dicts stay as they are.

    Raises Unreadable where columns beside the chat contradict it.
    """
    chats = [name for name in CHATS if isinstance(content.get(name), list)]
    pair = next((two for two in PAIRS if content.get(two[0]) and content.get(two[1]) is not None), None)
    if not chats and not pair:
        return None
    if chats:
        _check_same(content, chats)
    turns = _masked(content[chats[0]], content) if chats else _pair(content, *(pair or ("", "")))
    turns = _merged(with_system([_turn(turn) for turn in turns], content))
    _check_prompts(turns, content, chats[:1] or [*(pair or ()), *FOLLOWING])
    return turns


def _check_same(content: Mapping[str, Any], chats: Sequence[str]) -> None:
    """Raise Unreadable where a row holds two different dialogues."""
    first, *others = chats
    for other in others:
        if content[other] and _told(content[first]) != _told(content[other]):
            raise Unreadable(f"columns '{first}' and '{other}' hold different dialogues; keep one")


def _told(turns: Sequence[Any]) -> list[Any]:
    """What a dialogue says and what of it is trained on, whatever the turns carry besides."""
    names = ("role", "content", "reasoning_content", "tool_calls")
    read = _merged([_turn(turn) for turn in turns])
    return [[*map(turn.get, names), _marks(turn)] if isinstance(turn, Mapping) else turn for turn in read]


def _check_prompts(turns: Sequence[Any], content: Mapping[str, Any], read: Sequence[str]) -> None:
    """Raise Unreadable where a column that is not read holds a prompt's text and the dialogue does not."""
    for name, value in content.items():
        if not value or name in (*read, *SYSTEMS) or re.sub("[^a-z]", "", name.lower()) not in _PROMPTS:
            continue
        held = [turn for turn in turns if isinstance(turn, Mapping) and turn.get("content")]
        said = [(turn.get("role") == "assistant", _squeezed(turn["content"])) for turn in held]
        asked = [text for is_answer, text in said if not is_answer or isinstance(value, list | tuple)]
        if all(any(text in one for one in asked) for text in map(_squeezed, _prompt_texts(value))):
            continue
        if all(piece in _squeezed(value) for _, text in said for piece in text.split(_GAP)):
            continue  # the whole dialogue again, in some template
        raise Unreadable(
            f"column '{name}' is not read beside '{read[0]}', and its text is not in the dialogue; put it there, or "
            f"give the column another name: args: {{columns: {{{name}: …}}}}"
        )


_GAP = "\n\n"


def _squeezed(value: Any) -> str:
    """The text with single spaces, its paragraphs apart."""
    return _GAP.join(" ".join(part.split()) for part in str(value).strip().split(_GAP))


def _prompt_texts(value: Any) -> list[Any]:
    """The texts of a column that holds one, several, or turns."""
    found = value if isinstance(value, list | tuple) else [value]
    return [one.get("content", one.get("value")) if isinstance(one, Mapping) and len(one) > 1 else one for one in found]


def read_columns(content: Mapping[str, Any]) -> set[str]:
    """Return the columns that `chat_of` and `tools_of` read; what is left is for others."""
    pairs = {name for pair in PAIRS for name in pair if pair[0] in content} - {"answer"}
    is_chat = any(isinstance(content.get(name), list) for name in CHATS)
    masks = {name for name in MASKS if isinstance(content.get(name), list)}
    return {*CHATS, *SYSTEMS, "tools", "functions", *pairs, *(masks if is_chat else {"history", *FOLLOWING})}


def with_system(turns: list[Any], content: Mapping[str, Any]) -> list[Any]:
    """Put the text of a system column before the turns, unless they begin with it. Raises Unreadable."""
    texts = {name: content[name] for name in SYSTEMS if content.get(name) not in (None, "", [], {})}
    first = turns[0] if turns and isinstance(turns[0], Mapping) else {}
    if first.get("role") == "system":
        texts[_FIRST] = first.get("content")
    if odd := next((name for name, text in texts.items() if name != _FIRST and not isinstance(text, str)), None):
        raise Unreadable(f"column '{odd}' is {str(texts[odd])[:40]!r}; should be the text of the system's turn")
    if len({str(text).strip() for text in texts.values()}) > 1:
        raise Unreadable(f"{' and '.join(texts)} give different system turns; keep one, or join them")
    if not texts or _FIRST in texts:
        return turns
    return [{"role": "system", "content": next(iter(texts.values()))}, *turns]


_FIRST = "the first turn"


def _masked(turns: list[Any], content: Mapping[str, Any]) -> list[Any]:
    """A list beside the turns that says of each whether it is trained on becomes a mark on each. Raises Unreadable."""
    for name in MASKS:
        mask = content.get(name)
        if not isinstance(mask, list) or not mask:
            continue
        if len(mask) != len(turns):
            raise Unreadable(f"column '{name}' has {len(mask)} values for {len(turns)} turns; give each turn one")
        turns = [
            _with_mark(turn, one, f"column '{name}' says {one!r} of turn {number}")
            for number, (turn, one) in enumerate(zip(turns, mask, strict=True), start=1)
        ]
    return turns


def _with_mark(turn: Any, mark: Any, what: str) -> Any:
    if not isinstance(turn, Mapping) or not _speaks(turn):
        return turn
    if turn.get("loss_mask") not in (None, mark):
        raise Unreadable(f"{what}, and another mark {turn['loss_mask']!r}; keep one")
    return {**turn, "loss_mask": mark}


def _speaks(turn: Mapping[str, Any]) -> bool:
    role = turn.get("role", turn.get("from"))
    return role in ("assistant", *_CALLS) or (isinstance(role, str) and _ROLES.get(role) == "assistant")


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
    for name in FOLLOWING:
        if more := content.get(name):
            if not isinstance(asked, str) or isinstance(more, list | Mapping):
                raise Unreadable(f"columns '{question}' and '{name}' are joined; both should be texts")
            asked = f"{asked}\n\n{more}"
    before = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    after = answered if isinstance(answered, list) else [{"role": "assistant", "content": answered}]
    return [*_history(content.get("history")), *before, *after]


def _history(earlier: Any) -> Iterator[Any]:
    """Yield the turns before the question: Alpaca has pairs of texts, others turns. Raises Unreadable."""
    earlier = json_or_text(earlier)
    if earlier in (None, "", [], ()):
        return
    if not isinstance(earlier, list | tuple):
        raise Unreadable(f"column 'history' is {str(earlier)[:40]!r}; should be a list of [question, answer]")
    for one in earlier:
        if isinstance(one, Mapping):
            yield one
        elif isinstance(one, list | tuple) and len(one) == 2:
            yield {"role": "user", "content": one[0]}
            yield {"role": "assistant", "content": one[1]}
        else:
            raise Unreadable(f"column 'history' holds {str(one)[:40]!r}; should hold [question, answer] or turns")


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
    if turn.get("function_call") and not turn.get("tool_calls"):  # OpenAI's former field
        turn["tool_calls"] = [turn.pop("function_call")]
    if turn.get("tool_calls"):
        calls = json_or_text(turn["tool_calls"])
        turn["tool_calls"] = [_call(call) for call in calls] if isinstance(calls, list) else calls
        turn["content"] = turn["content"] or ""
    if not isinstance(turn["content"], str):
        return turn
    found = next((match for form in _THINKING if (match := form.fullmatch(turn["content"]))), None)
    if found:
        turn["content"] = found[2].strip()
        turn |= {"reasoning_content": found[1].strip()} if found[1].strip() else {}
    calls = [call for call in tool_call_texts(turn["content"]) if call.closed]
    if calls:
        between = zip((0, *(call.end for call in calls)), (*(call.start for call in calls), None), strict=True)
        texts = [turn["content"][start:end].strip() for start, end in between]
        found = [one for call in calls for one in _calls(call.content.strip())]
        turn |= {"content": "\n".join(text for text in texts if text), "tool_calls": found}
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
        is_bare = _calling(turn) and not turn["content"] and _marks(before) == _marks(turn)
        if is_bare and isinstance(before, dict) and before.get("role") == "assistant":
            merged[-1] = {**before, **turn, "content": before["content"]}
            merged[-1]["tool_calls"] = [*(before.get("tool_calls") or ()), *turn["tool_calls"]]
        else:
            merged.append(turn)
    return merged


def _marks(turn: Any) -> dict[str, Any]:
    """A call that is trained on does not join a text that is not."""
    names = ("train", *TRAINED_MARKS, *UNTRAINED_MARKS)
    return {name: turn[name] for name in names if isinstance(turn, dict) and name in turn}


def _calling(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "assistant" and bool(turn.get("tool_calls"))
