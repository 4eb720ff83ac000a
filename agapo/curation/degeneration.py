"""Responses that went wrong while they were sampled: loops, mostly repeated phrases, and texts that were cut off.

Every check is one-sided: what may be meant is kept. Tables, formulas, numbers, and a phrase that the question quotes
are never loops; code is judged by lines and with more patience than prose, since it repeats itself by nature, but it is
judged: in long responses of code a model falls into writing the same lines over and over.

Left out: a loop that counts (`test_1`, `test_2`, …), which cannot be told from data, and texts of low quality.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from agapo.chat import END_THINK, THINK
from agapo.curation.report import Finding, shorten
from agapo.curation.text import Part, code_and_prose, has_open_fence, parts, response

_WORD = re.compile(r"[぀-ヿ㐀-鿿฀-๿]|\w+|[^\w\s]")
_LONG_WORD = re.compile(r"\w{60,}")
_LOOPING_WORD = re.compile(r"([^\W\dA-Z]{1,12}?)\1{14,}")  # upper case may be base64
_REAL_WORD = re.compile(r"[^\W\d_]{2,}|[가-힣぀-ヿ㐀-鿿]")
_LEAST_LOOP = 80
"""Characters in all that make a loop."""
_PASSAGE = 16
"""Words from which a repeated stretch is a passage: half the repetitions tell."""
_NUMBERS_PATIENCE = 10
_LINES, _BLOCK_PATIENCE = 4, 4
"""Lines from which repeated code is a block: a quarter of the repetitions tell."""
_PHRASE, _PHRASE_TIMES = 8, 4
_LEAST_WORDS = 100
_BLOCK, _BLOCK_TIMES = 5, 6
_LEAST_CODE_LOOP = 200
_LEAST_CODE_LINES = 40
_WINDOW = 4
_MOST_UNITS = 12_000
"""Words or lines that are looked at, from the end: a loop goes on to the end."""

_CLOSING = re.compile(r"[.!?。！？…:;)\]}>\"'”’»」』*_`~|$=\-–—^]$|\d$|[^\w\s,]$")
_NO_ENDINGS = """
the a an of to and or but nor with from into by for at on as than that which whose because although while if is are
was were has have had would should could might must therefore thus let's i'll we'll
el la los las un una unos unas de del al y o u e pero ni con sin por para en sobre entre que cuyo porque aunque es son
era eran ha han había será sería debe puede su sus nuestro muy
그리고 그러나 하지만 그래서 따라서 그러므로 그런데 왜냐하면 즉 및 또는 혹은 만약 만일
"""
_REPEAT = re.compile(r"\b(?:repeat\w*|times|repit\w+|repet\w+|veces)\b|반복|번 ", re.IGNORECASE)
_INNER_ENDS = re.compile(r"[.!?。！？][\"'”’»」』)*]*\s+(?=[^\W\da-z])")
_UNFINISHED = frozenset(_NO_ENDINGS.split())
"""Words that do not end a sentence."""
_SENTENCE_WORDS = 6
_LEAST_SENTENCES = 4


class Loop(NamedTuple):
    """A stretch that comes again and again, without anything between."""

    start: int
    """Index of its first unit."""
    period: int
    """Units a turn."""
    times: float
    """Turns, the last of which may be a part."""


def degeneration(
    row: dict[str, Any], *, times: int, code_times: int, repetition: float, truncated: bool
) -> Finding | None:
    """Return what is wrong with the assistant's turns of a row, or None; see `DegenerationConfig`."""
    if not response(row)[1]:
        return Finding("no answer")
    found = (_loop_or_repetition(row, part, times, code_times, repetition) for part in parts(row))
    first = next(filter(None, found), None)
    return first or (cut_off(row) if truncated else None)


def _loop_or_repetition(row: dict[str, Any], part: Part, times: int, code_times: int, most: float) -> Finding | None:
    if len(part.text) < _LEAST_LOOP:
        return None
    code, prose = code_and_prose(part.text)
    phrase = prose_loop(prose, times)
    asked_for = phrase and _is_asked_for(phrase, row)
    if phrase and not asked_for:
        return Finding(f"loop in the {part.name}", shorten(phrase))
    if (share := repeated_share(prose)) >= most and not asked_for:
        return Finding(f"repeated phrases in the {part.name}", f"{share:.0%} of the words")
    if lines := code_loop(code, code_times):
        return Finding(f"loop in code of the {part.name}", shorten(lines))
    if (share := repeated_lines(code)) >= most:
        return Finding(f"repeated blocks in code of the {part.name}", f"{share:.0%} of the lines")
    return None


def prose_loop(text: str, times: int) -> str:
    """Return the phrase that a text says over and over, `times` times in a row or more; empty where none.

    A passage of 16 words and more is a loop from half as many on, a phrase of numbers and single letters from ten times
    as many, and signs alone are none, nor are loops of fewer than 80 characters in all.
    """
    for word in _LONG_WORD.findall(text):
        if match := _LOOPING_WORD.search(word):
            return match[1]
    spans = list(_WORD.finditer(text))[-_MOST_UNITS:]
    words = [span[0] for span in spans]
    for loop in find_loops(words, times, _PASSAGE):
        phrase = words[loop.start : loop.start + loop.period]
        last = spans[loop.start + round(loop.times * loop.period) - 1]
        worded = any(map(_REAL_WORD.fullmatch, phrase))
        if not worded and (loop.times < _NUMBERS_PATIENCE * times or not any(map(str.isalnum, phrase))):
            continue
        if last.end() - spans[loop.start].start() >= _LEAST_LOOP:
            return text[spans[loop.start].start() : spans[loop.start + loop.period - 1].end()]
    return ""


def code_loop(code: str, times: int) -> str:
    """Return the lines that come over and over in code, `times` times in a row or more; empty where none.

    Blocks of four lines and more are a loop from a quarter as many on. Lines without a word (zeros of a table), and
    loops of fewer than 200 characters in all, are none.
    """
    lines = [line.strip() for line in code.splitlines() if line.strip()][-_MOST_UNITS:]
    for loop in find_loops(lines, times, _LINES, _BLOCK_PATIENCE):
        block = lines[loop.start : loop.start + loop.period]
        size = sum(map(len, block)) * loop.times
        if size >= _LEAST_CODE_LOOP and any(map(_REAL_WORD.search, block)):
            return "\n".join(block)
    return ""


def find_loops(units: Sequence[str], times: int, passage: int, part: int = 2) -> list[Loop]:
    """Return the stretches of units that repeat at least `times` times in a row, shortest periods first.

    From a period of `passage` units on, turns / `part` are enough. Linear for texts that do not repeat themselves.
    """
    enough = max(3, -(-times // part))
    if len(units) < max(times, _WINDOW) or len(units) - len(set(units)) < enough - 1:
        return []
    known: dict[str, int] = {}
    numbers = np.array([known.setdefault(unit, len(known)) for unit in units])
    loops = []
    for period in _candidate_periods(numbers, enough):
        needed = times if period < passage else enough
        for start, length in _runs(numbers[period:] == numbers[:-period]):
            if length / period + 1 >= needed:
                loops.append(Loop(start, period, length / period + 1))
    return loops


def _candidate_periods(numbers: np.ndarray, turns: int) -> list[int]:
    """Distances, shortest first, at which the same four units come again often enough.

    Four, since inside a period single ones may come again: `a a b b` never has the same one four later next.
    """
    names = np.zeros(len(numbers) - _WINDOW + 1, dtype=np.int64)
    for offset in range(_WINDOW):  # at most 12,000 units: four of them have a place each in 64 bits
        names = names * _MOST_UNITS + numbers[offset : offset + len(names)]
    order = np.argsort(names, kind="stable")
    gaps = np.diff(order)[np.diff(names[order]) == 0]
    # The last window of a loop begins four units before its end.
    counts = np.bincount(gaps[gaps <= len(numbers) // turns], minlength=1)
    return [int(gap) for gap in np.flatnonzero(counts >= max(1, turns - 1 - _WINDOW))]


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, length) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(start), int(end - start)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def repeated_share(text: str) -> float:
    """Return the share, 0 to 1, of a text's words that lie in phrases of 8 words that come 4 times or more.

    Only phrases with four words at least that are words count, so that numbers and signs may repeat. 0 for texts of
    less than 100 words.
    """
    words = [match[0] for match in _WORD.finditer(text)][-_MOST_UNITS:]
    if len(words) < _LEAST_WORDS:
        return 0.0
    return _share(words, _PHRASE, _PHRASE_TIMES, lambda phrase: sum(map(str.isalpha, phrase)) >= _PHRASE // 2)


def repeated_lines(code: str) -> float:
    """Return the share, 0 to 1, of lines in blocks of 5 lines that come 6 times or more; 0 for less than 40 lines."""
    lines = [line.strip() for line in code.splitlines() if line.strip()][-_MOST_UNITS:]
    if len(lines) < _LEAST_CODE_LINES:
        return 0.0
    return _share(
        lines, _BLOCK, _BLOCK_TIMES, lambda block: sum(map(len, block)) >= 40 and any(map(_REAL_WORD.search, block))
    )


def _share(units: Sequence[str], size: int, times: int, counts: Any) -> float:
    if len(units) < size * times:
        return 0.0
    stretches = [tuple(units[start : start + size]) for start in range(len(units) - size + 1)]
    repeated = {item for item, number in Counter(stretches).items() if number >= times and counts(item)}
    if not repeated:
        return 0.0
    inside = [False] * len(units)
    for start, item in enumerate(stretches):
        if item in repeated:
            inside[start : start + size] = itertools.repeat(True, size)
    return sum(inside) / len(units)


def _is_asked_for(phrase: str, row: dict[str, Any]) -> bool:
    """Whether the last question quotes the phrase, or speaks of repeating and has it: it is meant to come again."""
    question = next((str(turn.get("content")) for turn in reversed(row["messages"]) if turn.get("role") == "user"), "")
    bare = re.escape(phrase.strip(" .,!?。"))
    if not bare or not re.search(bare, question, re.IGNORECASE):
        return False
    quoted = re.search(rf"[\"'“‘«「『`]{bare}[.,!?。]?[\"'”’»」』`]", question, re.IGNORECASE)
    return bool(quoted or _REPEAT.search(question))


def cut_off(row: dict[str, Any]) -> Finding | None:
    """Return what shows that the last turn was cut off: thinking or answer without their end."""
    content = row["messages"][-1].get("content") or ""
    if content.lstrip().startswith(THINK) and END_THINK not in content:  # elsewhere it may be spoken of
        return Finding("thinking block is not closed")
    for name, text in zip(("thinking", "answer"), response(row), strict=True):
        if has_open_fence(text):
            return Finding(f"code fence of the {name} is not closed")
        if ending := unfinished(text):
            return Finding(f"{name} ends in mid-sentence", ending)
    return None


def unfinished(text: str) -> str:
    """Return the end of a text that stops in mid-sentence; empty where it may well be its end.

    It does when its last line is a sentence whose last word ends none (an article, a conjunction) or is followed by a
    comma, or one without an end, while at least four lines before are sentences and all have theirs, or four sentences
    before it on its own line.
    """
    prose = code_and_prose(text)[1]
    lines = [line.strip() for line in prose.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    words = last.split()
    if not words or not text.rstrip().endswith(words[-1]):  # it ends in code, a formula, a table
        return ""
    is_sentence = len(words) >= _SENTENCE_WORDS
    final = words[-1] if len(words[-1]) == 1 else words[-1].casefold()  # "Plan A" is an end, "Plan a" is none
    if is_sentence and final in _UNFINISHED:
        return shorten(last, 80)
    others = [line for line in lines[:-1] if len(line.split()) >= _SENTENCE_WORDS]
    all_end = len(others) >= _LEAST_SENTENCES and all(map(_CLOSING.search, others))
    sentences = _INNER_ENDS.split(last)
    all_end = all_end or len(sentences) > _LEAST_SENTENCES
    # Notes on a sum end as they like: "In total 96 apples + 72 bananas".
    if any(map(str.isdigit, sentences[-1])) or last[-1].isupper():
        return ""
    open_ended = last.endswith(",") or (all_end and not _CLOSING.search(last))
    return shorten(last, 80) if is_sentence and open_ended else ""
