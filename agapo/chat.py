"""Chats as text and tokens: the template, the two modes, thinking blocks and tool calls.

Any model's own chat template works; the project's own (`chat_template.jinja`) is EXAONE 4.0's format. In
`reasoning` mode the generation prompt ends with an open `<think>`, in `non_reasoning` mode with an empty block:

    [|user|]\\n1+1[|endofturn|]\\n[|assistant|]\\n<think>\\n                    reasoning
    [|user|]\\n1+1[|endofturn|]\\n[|assistant|]\\n<think>\\n\\n</think>\\n\\n      non_reasoning

Imports neither torch nor transformers: rewards and data sources use it too.
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from agapo.schema import Mode, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINK, END_THINK = "<think>", "</think>"
_TOOL_CALL = re.compile(r"<tool_call>(.*?)(</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)

Message = Mapping[str, Any]
Completion = str | Sequence[Message]
"""A response: its text, or the messages of a conversational data set, of which the last is judged."""


def chat_template() -> str:
    """Return the project's own chat template (Jinja), the format of EXAONE 4.0."""
    return (files("agapo") / "chat_template.jinja").read_text(encoding="utf-8")


def split_thinking(text: str, mode: Mode | None) -> tuple[str | None, str | None]:
    """Split a completion into (thinking, answer), each stripped of surrounding space.

    The last `</think>` is where they part. Without one, a `reasoning` completion is all thinking (its generation
    prompt had opened the block) and the answer is None; in `non_reasoning` mode, or where the mode is unknown
    (None), it is all answer and the thinking is None.
    """
    before, closed, after = text.rpartition(END_THINK)
    if closed:
        return _bare(before), after.strip()
    return (_bare(text), None) if mode == "reasoning" else (None, text.strip())


def _bare(thinking: str) -> str:
    """Some templates leave it to the model to open the block."""
    return thinking.strip().removeprefix(THINK).strip()


def completion_text(completion: Completion) -> str:
    """Return all text of a completion: thinking and answer together."""
    if isinstance(completion, str):
        return completion
    message = completion[-1] if completion else {}
    content, thinking = message.get("content") or "", message.get("reasoning_content")
    return f"{thinking}\n{END_THINK}\n\n{content}" if thinking and END_THINK not in content else content


def final_answer(completion: Completion, mode: Mode | None) -> str | None:
    """Return what stands after the thinking; None where a `reasoning` completion never came to an answer."""
    text = completion_text(completion)
    return split_thinking(text, mode)[1]


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> list[int]:
    """Return the token ids [P] of the rendered prompt, generation prompt included.

    A `tools` column, where there is one, is handed to the template.
    """
    text = _render(tokenizer, prompt.messages, prompt.mode, prompt.columns.get("tools"))
    return _encode(tokenizer, text)


def dialogue_ids(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    mode: Mode,
    tools: Sequence[Any] | None = None,
) -> tuple[list[int], list[int]]:
    """Return the token ids [T] of a dialogue and the loss mask [T] of its last turn, the assistant's.

    The mask is 1 on the last turn's thinking (`reasoning_content`), answer, tool calls and end of turn. The ids
    are those of the generation prompt followed by those of the completion, so the model is trained on exactly
    what it sees when it is sampled. Raises ValueError when the last turn is not the assistant's.
    """
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("a dialogue to train on should end with the assistant's turn")
    prompt = _render(tokenizer, messages[:-1], mode, tools)
    context = _encode(tokenizer, prompt)
    trained = [*_encode(tokenizer, _completion(messages[-1], mode, prompt)), tokenizer.eos_token_id]
    return context + trained, [0] * len(context) + [1] * len(trained)


def _completion(turn: Message, mode: Mode, prompt: str) -> str:
    calls = "\n".join(format_tool_call(call) for call in turn.get("tool_calls") or [])
    answer = "\n".join(part for part in (turn.get("content"), calls) if part)
    if mode != "reasoning":
        return answer
    opened = prompt.rstrip().endswith(THINK)
    return f"{'' if opened else THINK + chr(10)}{turn.get('reasoning_content') or ''}\n{END_THINK}\n\n{answer}"


def format_tool_call(call: Message) -> str:
    """Return `<tool_call>{"name": …, "arguments": …}</tool_call>`; the OpenAI form (`function` inside) works too."""
    call = call.get("function", call)
    content = {"name": call["name"], "arguments": call["arguments"]}
    return f"<tool_call>{json.dumps(content, ensure_ascii=False)}</tool_call>"


def parse_tool_calls(text: str) -> list[dict[str, Any]]:
    """Return the tool calls in `text`, `{"name": str, "arguments": dict}` each, in order.

    Strict: one call that is not closed, not JSON, or has a wrong shape raises ValueError, since running the
    others would do half of what the model asked for.
    """
    return [_parse_tool_call(match[1], closed=bool(match[2])) for match in _TOOL_CALL.finditer(text)]


def _parse_tool_call(content: str, *, closed: bool) -> dict[str, Any]:
    if not closed:
        raise ValueError(f"tool call is not closed by </tool_call>: {content[:80]!r}")
    try:
        call = json.loads(content)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"tool call is not JSON ({error}): {content[:80]!r}") from None
    if not (isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), dict)):
        raise ValueError(f'tool call should be {{"name": "…", "arguments": {{…}}}}: {content[:80]!r}')
    return {"name": call["name"], "arguments": call["arguments"]}


def _render(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], mode: Mode, tools: Any) -> str:
    text = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tools=list(tools) if tools else None,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=mode == "reasoning",
    )
    assert isinstance(text, str)
    return text


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
