r"""Where the final answer stands in a response: `\boxed{…}`, `#### …`, else the last formula or number.

Without a box the number is taken with all that belongs to it: 2 1/4, 9{,}500, 3 million, 9\pi, (3, 4), 2 + 3i.
"""

import re
from collections import deque

from rewards.answers.units import is_unit

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed\s*([^\s{}$\\]+)")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_ANSWER_LINE = re.compile(r"(?=[^\d]*\d)[^A-Za-z]*")
_WINDOW = 300
_MATH = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def extract_answer(text: str) -> str | None:
    r"""Return the final answer in `text`: the last `\boxed{…}`, else `#### …`, else the last formula or number.

    None where there is nothing of the kind. Takes time linear in the length of the text.
    """
    marked = marked_answer(text)
    return _last_expression(text) if marked is None else marked or None


def marked_answer(text: str) -> str | None:
    """Return the answer that stands in a box or behind `####`; an empty string when that place is empty."""
    boxed = last_boxed(text)
    return _behind_hashes(text) if boxed is None else boxed


def last_boxed(text: str) -> str | None:
    """Return what stands in the last whole box, None where there is no box."""
    if r"\boxed" not in text and r"\fbox" not in text:
        return None
    found, opened = (-1, -1), []
    for brace in _BRACES.finditer(text):
        if brace[0] == "}" and opened:
            start, is_box = opened.pop()
            found = max(found, (start, brace.start())) if is_box else found
        elif brace[0].endswith("{") and brace[0] != r"\{":
            opened.append((brace.end(), brace[0] != "{"))
    if found[0] >= 0:
        return text[slice(*found)].strip()
    bare = _BARE_BOX.findall(text)
    return bare[-1] if bare else None


def _behind_hashes(text: str) -> str | None:
    """Return the last line, or else the last number, behind `####`; a Markdown heading is neither."""
    found = list(_HASHES.finditer(text))
    if found and not text[found[-1].end() :].strip():
        return found[-1][1].strip()
    numbers = (match[1].strip() for match in reversed(found) if _ANSWER_LINE.fullmatch(match[1]))
    return next(numbers, None)


# --- no mark ---

_WHOLE = r"(?:\d{1,3}(?:_\d{3})+(?![\d_])|\d{1,3}(?:(?:,|,?\\[!,] ?|\{,\}|[ \u2009\u202f\xa0])\d{3})+(?!\d)|\d+)"
_DECIMAL = (
    rf"(?:\d{{1,3}}(?:\.\d{{3}})+,\d\d(?![\d,.]*\d)"
    rf"|{_WHOLE}(?:\.\d+(?:\\(?:overline|bar)\{{\d+\}}|\(\d+\)|\.\.\.)?)?|(?<!\d)\.\d+)"
)
_TEN = r"10\s?(?:\^|\*\*)\s?(?:\{[-−+]?\d{1,4}\}|[-−+]?\d{1,4})"
_FRACTION = r"\\[dtc]?frac\s?(?:\{[^{}]{1,40}\}\s?\{[^{}]{1,40}\}|\d\s?\d)"
_SCALE = r"(?:hundred|thousand|million|billion|trillion|dozen|percent|per cent)s?(?![a-zA-Z])"
_TAIL = (
    r"(?:\s?\\?%|\s?\\pi(?![a-zA-Z])|\s?π|\s?\\?sqrt\{\d+\}|√\d+|(?<=\d)[a-z](?![a-zA-Z'’])(?:\^\{?\d\}?)?"
    rf"|(?:\s{_SCALE})+)?"
)
_CORE = (
    rf"(?:\d+\s?[½⅓⅔¼¾]|\d+\s?{_FRACTION}|{_FRACTION}|\d+\s\d+/\d+(?![\d/])|"
    rf"{_TEN}|{_DECIMAL}(?:[eE][+-]?\d{{1,3}}(?!\d)|\s?(?:\\times|\\cdot|[×x*·])\s?{_TEN}|\s?/\s?\d+(?!\.?\d)"
    rf"|\^\{{?-?\d{{1,4}}\}}?|_\{{?\d{{1,2}}\}}?|(?::\d+)+|(?:\s:\s\d+)+)?)"
)
_SIGN = r"(?:(?<![\w)\]}.])[-−]|(?<=[:=] )[-−] )?"  # a sign, not the minus of 5-3
_NO_POWER = r"(?<![ck]m\^)(?<!mm\^)(?<!\bm\^)(?<!ft\^)(?<!in\^)"  # of the unit in 56 cm^2
_NUMBER = re.compile(rf"{_NO_POWER}{_SIGN}{_CORE}{_TAIL}", re.ASCII)
_SHORT = rf"[-−]?\s?{_DECIMAL}(?:/\d+)?"
_LIST = re.compile(
    rf"[\[(]\s?{_SHORT}(?:\s?,\s?{_SHORT}){{1,9}}\s?[\])]|(?<!\w)([a-zA-Z])\s?=\s?{_SHORT}(?:,\s\1\s?=\s?{_SHORT}){{0,9}},?\s(?:and|or)\s\1\s?=\s?{_SHORT}(?![\w/%^])"
    rf"|(?<![\w/.)=]){_SHORT}(?:,\s?{_SHORT}){{0,9}},?\s(?:and|or)\s{_SHORT}(?![\w/%^])",
    re.ASCII,
)
_TERM = r"(?:\d+(?:\.\d+)?[a-z]?|[a-z]|\\pi|π)(?:\^\{?\d{1,4}\}?)?"
_SUM = re.compile(
    rf"(?<![\w$.)\]}}]){_TERM}(?:\s?[+*·×]\s?{_TERM}|\s?\^\s?{_TERM}|\s-\s{_TERM}|(?<=[a-z\d]{{2}})-{_TERM})+$"
)
_PROSE = re.compile(r"(?<![\\a-zA-Z{])(?!(?:sin|cos|tan|cot|sec|log|exp|min|max|mod|gcd|lcm|and)\b)[a-zA-Z]{3,}")
_COUNTED = re.compile(r"\b(?:week|day|month|year|hour|step|part|case|question|round|trip)\s$", re.I)
_FOLLOWING = re.compile(r"\s?([a-zA-Z]{2,}|\^?\\circ|°)(?:\^\{?[23]\}?|[²³])?")


def _last_expression(text: str) -> str | None:
    """Return whichever ends last: a formula between math delimiters or a number."""
    text = text.replace(r"\$", "\\\0")  # a dollar is no delimiter
    candidates = [found for left, right in _MATH if (found := _last_between(text, left, right))]
    window = _around_last_digit(text)
    candidates += [(found.end(), found[0]) for found in deque(_LIST.finditer(text, *window), maxlen=1)]
    candidates += [_widened(text, number) for number in deque(_NUMBER.finditer(text, *window), maxlen=1)]
    if not candidates:
        return None
    answer = max(candidates, key=lambda candidate: (candidate[0], len(candidate[1])))[1]
    return answer.replace("\\\0", r"\$").strip()


def _around_last_digit(text: str) -> tuple[int, int]:
    """Where the last number may stand: a bounded part, so that the time stays linear."""
    digit = re.search(r"\d", text[::-1], re.ASCII)
    last = max(len(text) - digit.start() if digit else 0, text.rfind("frac{"))
    return max(0, last - _WINDOW), last + _WINDOW


def _widened(text: str, number: re.Match[str]) -> tuple[int, str]:
    """Take in the sum that a number ends, and the unit behind it."""
    start = max(0, number.start() - 80)
    whole = _SUM.search(text[start : number.end()])
    answer = whole[0] if whole and len(whole[0]) > len(number[0]) else number[0]
    if ":" in answer and _COUNTED.search(text[start : number.start()]):
        answer = answer.rpartition(":")[2]
    behind = _FOLLOWING.match(text, number.end())
    has_unit = behind and (behind[1] not in ("in", "ha", "day", "or", "cup") and is_unit(behind[1]))
    return number.end(), answer + (behind[0] if behind and has_unit else "")


def _last_between(text: str, left: str, right: str) -> tuple[int, str] | None:
    end = text.rfind(right)
    start = text.rfind(left, 0, max(end, 0))
    content = text[start + len(left) : end]
    if start < 0 or not content.strip(" $") or (left == "$" and _is_prose(content, text[end + 1 : end + 2])):
        return None
    return end + len(right), content


def _is_prose(content: str, following: str) -> bool:
    """Tell what stands between two prices from a formula, mostly as Pandoc does."""
    uneven = content[:1].isspace() != content[-1:].isspace()
    words = _PROSE.findall(re.sub(r"\\text\{[^{}]*\}", "", content[-500:]))
    return following.isdigit() or len(words) > 1 or (bool(words) and (uneven or content[:1].isspace()))
