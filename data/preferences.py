"""Preference rows as public data sets lay them out: a prompt, a response that is preferred, and one that is not.

    prompt with chosen and rejected           TRL's explicit form: texts, or lists of turns
    chosen and rejected                       TRL's implicit form: the prompt is what both begin with
    question, instruction or query instead of prompt; input or context after it; system before it
    messages or conversations, chosen, rejected   turns, and the two turns that may follow
    chosen_response and rejected_response, or response_j and response_k, instead of chosen and rejected

A text is a turn: the model is always asked in its chat template. Texts with `Human:` and `Assistant:` in them (HH-RLHF)
are dialogues. Responses that hold the whole dialogue (UltraFeedback) are cut to their last turn.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Broken, Row, read
from data.layouts import CHATS, FOLLOWING, SYSTEMS, Unreadable, chat_of, thinks, tools_of

RESPONSES = (("chosen", "rejected"), ("chosen_response", "rejected_response"), ("response_j", "response_k"))
ASKED = ("prompt", "question", "instruction", "query", *CHATS)
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def pairs(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = "",
    config: str | None = None,
    only_split: str = "",
    mode: str = "",
    domain: str = "general",
    language: str = "en",
    columns: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield `{"prompt": turns, "chosen": turn, "rejected": turn, "mode", "domain", "language", "place"}`, and `tools`.

    From a folder, a file (all of it for training) or the hub's data set `name`. `mode` (by default `reasoning` where a
    response thinks), `domain` and `language` are for rows that have no such column; `columns` renames columns, {theirs:
    ours}; the other options: see `data.files.read`. A row that cannot be read has `malformed`, why, and its `place`.
    Raises UserError.
    """
    if path is None and not name:
        raise UserError("pairs.rows: give 'path' (a file or folder with the pairs), or args: {name: HUB_NAME}")
    about = {"domain": domain, "language": language, **({"mode": mode} if mode else {})}
    rows = read(
        split, path=path, hub=name, config=config, only_split=only_split, key=lambda content: None, pass_broken=True
    )
    for row in rows:
        try:
            yield {**_pair(row, dict(columns or {}), about), "place": row.place}
        except Unreadable as reason:
            yield {"malformed": str(reason), "place": row.place}


def _pair(row: Row, names: Mapping[str, str], about: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(row.content, Broken):
        raise Unreadable(row.content.reason)
    if not isinstance(row.content, dict):
        raise Unreadable("no object; rows need 'prompt', 'chosen' and 'rejected'")
    content = {names.get(key, key): value for key, value in row.content.items() if value is not None}
    own = next((both for both in RESPONSES if all(name in content for name in both)), None)
    if own is None:
        known = ", or ".join(f"'{good}' and '{bad}'" for good, bad in RESPONSES)
        raise Unreadable(f"no two responses; rows need {known} (args: {{columns: {{THEIRS: OURS}}}} renames)")
    good, bad = (_dialogue(content, name, own) for name in own)
    if good[:-1] != bad[:-1]:
        raise Unreadable(f"'{own[0]}' and '{own[1]}' answer different prompts; both should follow the same turns")
    found = {key: content[key] for key in ("id", "mode", "domain", "language") if key in content}
    thinking = {"mode": "reasoning" if thinks([good[-1], bad[-1]]) else "non_reasoning"}
    tools = tools_of(content)
    turns = {"prompt": good[:-1], "chosen": good[-1], "rejected": bad[-1]}
    return {**thinking, **about, **found, **turns, **({"tools": tools} if tools else {})}


def _dialogue(content: Mapping[str, Any], name: str, own: tuple[str, str]) -> list[Any]:
    """Return the turns of the prompt and the response in column `name`. Raises Unreadable."""
    asked = next((content[key] for key in ASKED if content.get(key)), None)
    response = _turns(content[name])
    if asked is None and isinstance(response, str):
        asked, response = _parted(content, name, own)
    elif isinstance(response, list) and len(response) > 1:
        _check_asked(asked, response[:-1], name)
        asked, response = response[:-1], response[-1:]
    if asked is None:
        raise Unreadable(f"'{name}' has no prompt; give the column 'prompt', or whole dialogues in both responses")
    if isinstance(asked, str) and _SPEAKER.match(asked):
        asked = _spoken(asked.rstrip().removesuffix("\n\nAssistant:"))
    beside = {key: content[key] for key in (*SYSTEMS, *FOLLOWING, "history") if key in content}
    turns = chat_of({"prompt": asked, "completion": response, **beside})
    last = turns[-1] if turns else None
    if not turns or len(turns) < 2 or not isinstance(last, dict) or last.get("role") != "assistant":
        raise Unreadable(f"'{name}' should end with the assistant's turn, after a prompt")
    if not (last.get("tool_calls") or (isinstance(last.get("content"), str) and last["content"].strip())):
        raise Unreadable(f"'{name}' is {str(content[name])[:40]!r}; should be a text, or a turn with one")
    return turns


def _turns(response: Any) -> Any:
    """A turn by itself is a list of one; a text with speakers is a dialogue."""
    if isinstance(response, Mapping):
        return [response]
    return _spoken(response) if isinstance(response, str) and _SPEAKER.match(response) else response


def _spoken(text: str) -> list[dict[str, str]]:
    parts = _SPEAKER.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    spoken = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": roles[speaker], "content": said.strip()} for speaker, said in spoken]


def _parted(content: Mapping[str, Any], name: str, own: tuple[str, str]) -> tuple[str, str]:
    """Part a text as TRL does: what both texts begin with, up to a whole word, is the prompt."""
    texts = [content[one] for one in own]
    if not all(isinstance(text, str) for text in texts):
        raise Unreadable(f"'{own[0]}' and '{own[1]}' should both be texts, or both be lists of turns")
    differ = next((n for n, (one, other) in enumerate(zip(*texts, strict=False)) if one != other), min(map(len, texts)))
    common = texts[0][:differ]
    # Up to a space, so that no word is cut.
    end = len(common) if common.endswith((" ", "\n")) else max(common.rfind(" "), common.rfind("\n")) + 1
    if not common[:end].strip():
        raise Unreadable(f"no column 'prompt', and '{own[0]}' and '{own[1]}' do not begin alike; give the prompt")
    return common[:end].strip(), content[name][end:]


def _check_asked(asked: Any, turns: list[Any], name: str) -> None:
    """A prompt beside whole dialogues is said in them. Raises Unreadable."""
    texts = [turn.get("content", turn.get("value")) for turn in turns if isinstance(turn, Mapping)]
    if isinstance(asked, str) and asked.strip() not in [str(text).strip() for text in texts]:
        raise Unreadable(f"'{name}' is a dialogue that does not ask the row's prompt; keep one of both")
