"""Is the response well-formed? Thinking closed and an answer after it, fences closed, tool calls whole, no loops.

Left out: what a task asks of its own format (a box, a fence, JSON); its own reward sees to that.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from agapo.chat import END_THINK, THINK, Completion, completion_text, parse_tool_calls, split_thinking, tool_call_texts
from agapo.schema import Mode

_TAGS = (THINK, END_THINK)
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_CODE = re.compile(r"^[ \t]*(`{3,}|~{3,}).*?(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"\w+|[^\w\s]")
_MOST = 200_000
"""Characters that are looked at for loops, from the end: a loop goes on to the end."""


def score(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    mode: Sequence[Mode | None] | None = None,
    *,
    most_repetition: float = 0.5,
    **columns: Any,
) -> list[float]:
    """Return 1.0 for a well-formed response, else 0.0.

    In reasoning mode: one thinking block, closed and not empty, and an answer. In non-reasoning mode: an answer and no
    thinking. In both: closed code fences, tool calls that parse, and no loop: neither a stretch that repeats itself at
    the end of thinking or answer (`loops`), nor more than `most_repetition` of the words in repeated phrases
    (`repetition`).
    """
    modes = mode or [None] * len(completions)
    return [float(not flaw(completion_text(c), m, most_repetition)) for c, m in zip(completions, modes, strict=True)]


def flaw(text: str, mode: Mode | None, most_repetition: float = 0.5) -> str:
    """Return what is wrong with the form of a response, in a few words; empty where nothing is."""
    thinking, answer = split_thinking(text, mode)
    if not answer:
        return "no answer"
    if mode == "reasoning" and not thinking:
        return "empty thinking"
    if mode == "non_reasoning" and thinking:
        return "thinking in non-reasoning mode"
    prose = _CODE.sub("", _without_calls(answer))
    if any(tag in part for tag in _TAGS for part in (prose, thinking or "")):
        return "stray thinking tags"
    if _has_open_fence(_without_calls(answer)):
        return "open code fence"
    try:
        parse_tool_calls(answer)
    except ValueError:
        return "malformed tool call"
    if any(loops(part) or repetition(part) > most_repetition for part in (thinking or "", answer)):
        return "repetition"
    return ""


def _without_calls(text: str) -> str:
    """The arguments of a tool call may hold tags and fences."""
    for call in reversed([call for call in tool_call_texts(text) if call.whole]):
        text = text[: call.start] + text[call.end :]
    return text


def _has_open_fence(text: str) -> bool:
    opened = ""
    for match in _FENCE.finditer(text):
        fence, rest = match.groups()
        if not opened:
            opened = fence
        elif fence[0] == opened[0] and len(fence) >= len(opened) and not rest.strip():
            opened = ""
    return bool(opened)


def loops(text: str, *, times: int = 6, least: int = 60) -> bool:
    """Return whether a text ends in one stretch repeated: at least `times` times and `least` characters in all.

    Rulers and padding (a repeated character that is no letter or digit) are no loop. Linear in the text's length (the
    prefix function of the reversed text: Knuth, Morris and Pratt 1977).
    """
    end_of_text = text[-_MOST // 10 :]
    backwards = end_of_text.rstrip()[::-1]
    blanks = len(end_of_text) - len(backwards)
    borders = [0] * len(backwards)
    border = 0
    for end in range(1, len(backwards)):
        while border and backwards[end] != backwards[border]:
            border = borders[border - 1]
        border += backwards[end] == backwards[border]
        borders[end] = border
        period = end + 1 - border
        # The last stretch may have ended in the blanks that were taken off.
        whole = end + 1 + min(blanks, period - 1)
        if end + 1 >= least and whole >= times * period and any(map(str.isalnum, backwards[:period])):
            return True
    return False


def repetition(text: str, *, words: int = 8, times: int = 4) -> float:
    """Return the share, 0 to 1, of a text's words in phrases of `words` words that come `times` times or more.

    Code blocks, and phrases of numbers and signs (tables, lists), are left out. 0 for texts too short to have any.
    """
    tokens = _WORD.findall(_CODE.sub(" ", text[-_MOST:]))
    phrases = [tuple(tokens[start : start + words]) for start in range(len(tokens) - words + 1)]
    counts = Counter(phrases)
    repeated = {p for p, count in counts.items() if count >= times and sum(map(str.isalpha, p)) >= words // 2}
    if not repeated:
        return 0.0
    inside = [False] * len(tokens)
    for start, phrase in enumerate(phrases):
        if phrase in repeated:
            inside[start : start + words] = itertools.repeat(True, words)
    return sum(inside) / len(tokens)
