"""The texts of a row that filters look at: its question, its thinking, its answer, and what of a text is prose."""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from agapo.chat import END_THINK, THINK, format_tool_call, split_thinking

Row = Mapping[str, Any]

_FENCE = re.compile(r"^[ \t]*(`{3,})([^`\n]*)$", re.MULTILINE)
_ANY_FENCE = re.compile(r"`{3,}")
_FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_NOT_PROSE = re.compile(
    r"\[asy\].*?(?:\[/asy\]|\Z)"
    r"|`[^`\n]*`"
    r"|\$\$.{0,2000}?\$\$|\$[^$\n]{1,500}\$|\\\[.{0,2000}?\\\]|\\\(.{0,2000}?\\\)"
    r"|\\begin\{(?P<environment>[a-z]+\*?)\}.{0,5000}?\\end\{(?P=environment)\}"
    r"|\\[a-zA-Z]+"
    r"|<<[^<>\n]{1,200}>>"
    r"|<[^<>\n]{1,200}>"
    r"|https?://\S+|\S+@\S+"
    r"|^[^|\n]*\|[^|\n]*\|[^\n]*$",
    re.DOTALL | re.MULTILINE,
)
_CODE_LINE = re.compile(
    r"\s*(?:"
    r"(?:from [\w.]+ )?import \w|#include|@\w|(?:async )?def \w+\(|class \w+[\s(:{]|return\b|raise \w|assert\b|elif\b"
    r"|(?:if|for|while|with|else|try|except)\b.*:\s*$"
    r"|(?:public|private|protected|static|const|let|var|func|fn|function|struct|enum|interface|package|using|namespace)\s"
    r"|(?:SELECT|INSERT|UPDATE|CREATE|ALTER|DROP|FROM|WHERE|JOIN|GROUP BY|ORDER BY)\s"
    r"|</?\w[^<>]*>|//|/\*|\*/|\$ \w"
    r"|[\w.\[\]\"']+\s*(?:[-+*/|&:]?=|\+\+)"
    r"|[\w.]+\([^()]*\)\s*;?\s*$"
    r"|.*[;{}]\s*$|[\])}]+,?\s*$"
    r"|[\"'][^\"']*[\"']\s*[:,]|(?:\t|  )\s*\S"
    r")"
)
_LEAST_CODE_LINES = 4
_CODE_SHARE = 0.6
_SPACE = re.compile(r"\s+")


class Part(NamedTuple):
    """A text of an assistant's turn."""

    name: str
    """`thinking` or `answer`."""
    text: str


def response(row: Row) -> tuple[str, str]:
    """Return (thinking, answer) of the last turn; its tool calls belong to the answer."""
    return _split(row["messages"][-1])


def parts(row: Row) -> Iterator[Part]:
    """Yield the thinking and the answer of every assistant's turn but those marked `train: false`, where not empty."""
    for turn in row["messages"]:
        if turn.get("role") == "assistant" and turn.get("train") is not False:
            thinking, answer = _split(turn)
            if thinking:
                yield Part("thinking", thinking)
            if answer:
                yield Part("answer", answer)


def _split(turn: Mapping[str, Any]) -> tuple[str, str]:
    content = turn.get("content") or ""
    thinking = turn.get("reasoning_content") or ""
    if not thinking and content.lstrip().startswith(THINK):
        inside, outside = split_thinking(content, None)
        thinking, content = inside or "", outside or ""
    calls = "\n".join(map(format_tool_call, turn.get("tool_calls") or ()))
    return thinking.strip(), "\n".join(part for part in (content.strip(), calls) if part)


def completion(row: Row) -> str:
    """Return the last turn as a model would have said it: in reasoning mode with its thinking, closed."""
    thinking, answer = response(row)
    return f"{thinking}\n{END_THINK}\n\n{answer}" if row.get("mode") == "reasoning" else answer


def question(row: Row) -> str:
    """Return what the last turn responds to: tools and all turns before it, as text that tells questions apart."""
    tools = json.dumps(row["tools"], sort_keys=True, default=str) if row.get("tools") else ""
    return "\n".join([tools, *map(_turn, row["messages"][:-1])])


def asked(row: Row) -> str:
    """Return the turns before the last without the system's: what a user would call the question."""
    return "\n".join(_turn(turn) for turn in row["messages"][:-1] if turn.get("role") != "system")


def _turn(turn: Mapping[str, Any]) -> str:
    return f"{turn.get('role')}: {' '.join(_split(turn))}"


def normalised(text: str) -> str:
    """Return a text without what does not make it another: case, width and composition of characters, spacing."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def code_and_prose(text: str) -> tuple[str, str]:
    """Split a text in (code, prose). Fenced blocks are code, and so is a text most of whose lines look like it.

    In prose, a number stands for each formula, inline code, row of a table, tag, link and block of code, the same for
    the same: if they were left out, sentences that differ in them only would look repeated.
    """
    code = "\n".join(match[2] for match in _FENCED.finditer(text))
    numbers: dict[str, int] = {}
    rest = _FENCED.sub(partial(_number, numbers), text) if code else text
    if _looks_like_code(rest):
        return f"{code}\n{rest}", ""
    return code, _NOT_PROSE.sub(partial(_number, numbers), rest)


def _number(numbers: dict[str, int], match: re.Match[str]) -> str:
    return f" {numbers.setdefault(match[0], len(numbers))} "


def _looks_like_code(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < _LEAST_CODE_LINES:
        return False
    return sum(bool(_CODE_LINE.match(line)) for line in lines) >= _CODE_SHARE * len(lines)


def has_open_fence(text: str) -> bool:
    """Return whether a code fence (of backticks) is never closed: as CommonMark reads it, and by an odd number of them.

    Blocks inside blocks, and a closing fence at the end of a line of code, are forgiven.
    """
    opened = ""
    for match in _FENCE.finditer(text):
        fence, rest = match[1], match[2].strip()
        if not opened:
            opened = fence
        elif len(fence) >= len(opened) and not rest:
            opened = ""
    return bool(opened) and len(_ANY_FENCE.findall(text)) % 2 == 1
