"""Chats as text and tokens: the template, the two modes, thinking blocks and tool calls.

Any model's own chat template works; the project's own (`chat_template.jinja`) is EXAONE 4.0's format. In
`reasoning` mode the generation prompt ends with an open `<think>`, in `non_reasoning` mode with an empty block:

    [|user|]\\n1+1[|endofturn|]\\n[|assistant|]\\n<think>\\n                    reasoning
    [|user|]\\n1+1[|endofturn|]\\n[|assistant|]\\n<think>\\n\\n</think>\\n\\n      non_reasoning

Imports neither torch nor transformers: rewards and data sources use it too.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from agapo.schema import MODES, Mode, Prompt

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

    The last `</think>` is where they part, one in the arguments of a tool call left aside. Without one, a `reasoning`
    completion is all thinking (its generation prompt had opened the block) and the answer is None; in `non_reasoning`
    mode, or where the mode is unknown (None), it is all answer and the thinking is None.
    """
    end = _thinking_end(text)
    if end is not None:
        return _bare(text[:end]), text[end + len(END_THINK) :].strip()
    return (_bare(text), None) if mode == "reasoning" else (None, text.strip())


def _thinking_end(text: str) -> int | None:
    """Where the last `</think>` begins that is no part of a tool call."""
    calls = [call for call in tool_call_texts(text) if call.whole] if END_THINK in text else []
    end = text.rfind(END_THINK)
    while end >= 0 and any(call.start < end < call.end for call in calls):
        end = text.rfind(END_THINK, 0, end)
    return None if end < 0 else end


def _bare(thinking: str) -> str:
    """Some templates leave it to the model to open the block."""
    return thinking.strip().removeprefix(THINK).strip()


def completion_text(completion: Completion) -> str:
    """Return all text of a completion: thinking and answer together, tool calls as the model writes them.

    A message that went through a server or a parser has its thinking and its calls in fields of their own.
    """
    if isinstance(completion, str):
        return str(completion)  # a subclass of str costs more in what is done to every character
    message = completion[-1] if completion else {}
    content, thinking = _content_text(message.get("content")), message.get("reasoning_content")
    calls = list(map(_written_call, _own_calls(message)))
    said = "\n".join(part for part in (_without_calls(content, calls) if calls else content, *calls) if part)
    # Who parsed the calls found them behind the thinking, whether or not that was kept.
    return f"{thinking or ''}\n{END_THINK}\n\n{said}" if (thinking or calls) and END_THINK not in content else said


def _content_text(content: Any) -> str:
    """OpenAI's form may have a list of parts."""
    if isinstance(content, str) or not isinstance(content, Sequence):
        return content if isinstance(content, str) else ""
    return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))


def _own_calls(message: Message) -> Sequence[Any]:
    """The calls in the message's own field, `function_call` where a server still has that."""
    calls = message.get("tool_calls") or [call for call in (message.get("function_call"),) if call]
    if isinstance(calls, str):  # as tables hold them
        with suppress(ValueError, RecursionError):
            calls = json.loads(calls)
    return calls if isinstance(calls, list | tuple) else [calls]


def _written_call(call: Any) -> str:
    """Arguments may be JSON text, as OpenAI has them. What is no call is written as it is, for the parser to refuse."""
    inner = (call.get("function") or call) if isinstance(call, Mapping) else {}
    arguments = inner.get("arguments") or "{}"  # servers write no arguments as "" or null
    try:
        read = json.loads(arguments) if isinstance(arguments, str) else arguments
        return format_tool_call({"name": inner["name"], "arguments": read})
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"<tool_call>{json.dumps(call, default=str)}</tool_call>"


def _without_calls(content: str, calls: Sequence[str]) -> str:
    """Take away the calls that the message's own field repeats, and tags that are only spoken of."""
    for call in reversed(list(tool_call_texts(content))):
        if call.whole and _written_call(json.loads(call.content)) in calls:
            content = content[: call.start].rstrip() + content[call.end :]
        elif not call.whole and not call.content.lstrip().startswith(("{", "[")):
            content = content[: call.start] + content[call.start + len("<tool_call>") :]
    return content


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


def template_modes(tokenizer: "PreTrainedTokenizerBase") -> tuple[Mode, ...]:
    """Return the modes that the chat template tells apart: both, or the one that it always renders."""
    messages = [{"role": "user", "content": "1+1"}]
    reasoning, plain = (_render(tokenizer, messages, mode, None) for mode in MODES)
    if reasoning != plain:
        return MODES
    return ("reasoning",) if plain.rstrip().endswith(THINK) else ("non_reasoning",)


def dialogue_examples(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    mode: Mode,
    tools: Sequence[Any] | None = None,
) -> list[tuple[list[int], list[int]]]:
    """Return (token ids [T], loss mask [T]) of each example that a dialogue makes; all `trained_turns` are in them.

    Before each trained turn stand exactly the `prompt_ids` of the turns before it, and the turn is what the model
    should say after them: thinking (`reasoning` mode), answer, tool calls, end of turn. The mask is 1 there and 0
    elsewhere. Where the prompt of the next trained turn starts with all of that, both turns share an example;
    else (a template that drops past thinking, say) the next one is an example of its own.

    Raises ValueError where there is nothing to train on, and what the template raises when it refuses the dialogue.
    """
    examples: list[tuple[list[int], list[int]]] = []
    ids: list[int] = []
    mask: list[int] = []
    for index in trained_turns(messages, mode):
        context, said = _turn_ids(tokenizer, messages[: index + 1], mode, tools)
        if context[: len(ids)] != ids:
            examples.append((ids, mask))
            ids, mask = [], []
        mask = mask + [0] * (len(context) - len(ids)) + [1] * len(said)
        ids = context + said
    return [*examples, (ids, mask)]


def trained_turns(messages: Sequence[Message], mode: Mode) -> list[int]:
    """Return the indices of the assistant's turns that are trained on.

    Those with `"train": False` are not. In `reasoning` mode a turn without thinking is not either, since it would
    teach not to think, unless it is the last one or has `"train": True`. Raises ValueError where that leaves none,
    where the last turn is not the assistant's, and where no turn of a `reasoning` dialogue has thinking.
    """
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("a dialogue to train on should end with the assistant's turn")
    turns = [index for index, turn in enumerate(messages) if turn["role"] == "assistant"]
    thinking = [index for index in turns if _thinking(messages[index]).strip()]
    if mode == "reasoning" and not thinking:
        raise ValueError("a dialogue in reasoning mode should have 'reasoning_content' in an assistant's turn")
    wanted = {*thinking, turns[-1]} if mode == "reasoning" else set(turns)
    trained = [index for index in turns if _is_trained(messages[index], default=index in wanted)]
    if not trained:
        raise ValueError("a dialogue to train on should have an assistant's turn without 'train: false'")
    return trained


TRAINED_MARKS = ("weight", "loss_weight", "loss_mask", "loss", "trainable", "training", "train_on_turn", "learnable")
UNTRAINED_MARKS = ("masked", "masked_out", "ignore", "ignore_loss", "no_loss", "exclude_from_loss")
UNCLEAR_MARKS = ("mask", "training_detail", "train_detail")
"""Other formats' marks on a turn: 0 leaves it out of the loss, 1 does, and those that are read in more than one way."""


_MARK_WORD = re.compile(
    "(un)?train(ed|ing|able)?|loss(es)?|(un)?mask(s|ed)?|learn(ed|able)?|supervised?|backprop", re.IGNORECASE
)


def is_mark(name: str) -> bool:
    """Whether a key or column is, by a word of its name, about what is trained on: `compute_loss`, `doTrain`."""
    return any(_MARK_WORD.fullmatch(word) for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name))


def trained_mark(turn: Message) -> bool | None:
    """Return whether a turn is trained on, as `train` and other formats' marks say; None without any.

    Raises ValueError naming the mark where it is no yes or no, may mean either, or contradicts another.
    """
    unclear = next((name for name in UNCLEAR_MARKS if turn.get(name) not in (None, "", [])), None)
    if unclear:
        raise ValueError(f"'{unclear}' may mean that the turn is trained on, or not; say it with 'train'")
    marks = {name: turn[name] for name in ("train", *TRAINED_MARKS, *UNTRAINED_MARKS) if turn.get(name) is not None}
    for name, value in marks.items():
        if value not in (0, 1):
            raise ValueError(f"'{name}' is {value!r}; should be {'true or false' if name == 'train' else '0 or 1'}")
    found = {bool(value) != (name in UNTRAINED_MARKS) for name, value in marks.items()}
    if len(found) > 1:
        raise ValueError(f"{' and '.join(map(repr, marks))} contradict each other; keep one")
    return next(iter(found), None)


def _is_trained(turn: Message, *, default: bool) -> bool:
    train = turn.get("train")
    return default if train is None else train


def _thinking(turn: Message) -> str:
    return (turn.get("reasoning_content") or "").strip("\n")


def _turn_ids(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], mode: Mode, tools: Any
) -> tuple[list[int], list[int]]:
    """Return the ids of the last turn's prompt, and of what the model says in it, end of turn included.

    They are encoded apart, as in sampling: no token reaches over from the one into the other.
    """
    prompt = _render(tokenizer, messages[:-1], mode, tools)
    said = _encode(tokenizer, _said(tokenizer, messages, mode, tools, prompt))
    end: Any = tokenizer.eos_token_id
    return _encode(tokenizer, prompt), [*said, end]


def _said(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], mode: Mode, tools: Any, prompt: str
) -> str:
    """What the last turn adds to its prompt, the end of turn left out.

    The model's template has the word, as each writes tool calls in its own way. But some know no thinking, or put
    something else before an answer than before a generation; EXAONE 4.0's format stands in there.
    """
    past, turn, answer = messages[:-1], messages[-1], {**messages[-1], "reasoning_content": None}
    if mode == "reasoning":
        said = _after(prompt, _shown(tokenizer, [*past, turn], mode, tools), str(tokenizer.eos_token))
        if _in_order(said, [_thinking(turn).strip(), END_THINK, *_answer_parts(turn)]):
            return said
    said = _after(prompt, _shown(tokenizer, [*past, answer], mode, tools), str(tokenizer.eos_token))
    if not _in_order(said, _answer_parts(turn)) or _thinking_end(said) is not None:
        said = _answer(turn)
    return said if mode != "reasoning" else _block(turn, prompt) + said


def _shown(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], mode: Mode, tools: Any) -> str:
    return _render(tokenizer, messages, mode, tools, add_generation_prompt=False, skip_think=False)


def _after(prompt: str, text: str, end: str) -> str:
    """What stands between prompt and end; nothing where the text does not start with the prompt or has no end."""
    said, found, _ = text.removeprefix(prompt).partition(end)
    return said if text.startswith(prompt) and found else ""


def _in_order(text: str, parts: Sequence[str]) -> bool:
    for part in filter(None, parts):
        _, found, text = text.partition(part)
        if not found:
            return False
    return True


def _answer_parts(turn: Message) -> list[str]:
    names = [call.get("function", call)["name"] for call in turn.get("tool_calls") or []]
    return [(turn.get("content") or "").strip(), *names]


def _answer(turn: Message) -> str:
    calls = "\n".join(format_tool_call(call) for call in turn.get("tool_calls") or [])
    return "\n".join(part for part in ((turn.get("content") or "").lstrip("\n"), calls) if part)


def _block(turn: Message, prompt: str) -> str:
    """The thinking, opened unless the prompt has done so, and closed."""
    opened = prompt.rstrip().endswith(THINK)
    return f"{'' if opened else THINK + chr(10)}{_thinking(turn)}\n{END_THINK}\n\n"


def format_tool_call(call: Message) -> str:
    """Return `<tool_call>{"name": …, "arguments": …}</tool_call>`; the OpenAI form (`function` inside) works too."""
    call = call.get("function", call)
    content = {"name": call["name"], "arguments": call["arguments"]}
    return f"<tool_call>{json.dumps(content, ensure_ascii=False)}</tool_call>"


class CallText(NamedTuple):
    """A tool call as it stands in a text, tags included."""

    start: int
    end: int
    content: str
    """What stands between the tags."""
    closed: bool
    whole: bool
    """Whether the content is JSON; its texts may then hold the tags themselves."""


def tool_call_texts(text: str) -> Iterator[CallText]:
    """Yield the tool calls in `text`, in order, well-formed or not."""
    found = _TOOL_CALL.search(text)
    while found:
        start = found.start(1)
        end = _json_end(text, start)
        closing = re.compile(r"\s*</tool_call>").match(text, end) if end is not None else None
        if closing:
            yield CallText(found.start(), closing.end(), text[start:end], closed=True, whole=True)
        else:
            yield CallText(found.start(), found.end(), found[1], closed=bool(found[2]), whole=False)
        found = _TOOL_CALL.search(text, closing.end() if closing else found.end())


def _json_end(text: str, start: int) -> int | None:
    """Where the JSON value that begins at `start`, spaces aside, ends; None without one."""
    begin = re.compile(r"\s*").match(text, start)
    try:
        return json.JSONDecoder().raw_decode(text, begin.end() if begin else start)[1]
    except (ValueError, RecursionError):
        return None


def parse_tool_calls(text: str) -> list[dict[str, Any]]:
    """Return the tool calls in `text`, `{"name": str, "arguments": dict}` each, in order.

    Strict: one call that is not closed, not JSON, or has a wrong shape raises ValueError, since running the
    others would do half of what the model asked for. The tags may stand in the texts of arguments, and the arguments
    may be JSON text.
    """
    return [_parse_tool_call(call.content, closed=call.closed) for call in tool_call_texts(text)]


def _parse_tool_call(content: str, *, closed: bool) -> dict[str, Any]:
    if not closed:
        raise ValueError(f"tool call is not closed by </tool_call>: {content[:80]!r}")
    try:
        call = json.loads(content)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"tool call is not JSON ({error}): {content[:80]!r}") from None
    if isinstance(call, dict) and isinstance(call.get("arguments"), str):  # OpenAI's form, which templates hand on
        with suppress(ValueError, RecursionError):
            call["arguments"] = json.loads(call["arguments"])
    if not (isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), dict)):
        raise ValueError(f'tool call should be {{"name": "…", "arguments": {{…}}}}: {content[:80]!r}')
    return {"name": call["name"], "arguments": call["arguments"]}


def _render(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    mode: Mode,
    tools: Any,
    *,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    text = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tools=list(tools) if tools else None,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        enable_thinking=mode == "reasoning",
        **variables,
    )
    assert isinstance(text, str)
    return text


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
