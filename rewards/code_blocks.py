"""Which part of an answer is the program: fenced blocks of Markdown, as models write them.

Fences follow CommonMark, and beyond it: a fence may be indented as far as its list item asks, a tagged fence ends the
block before it, and a block that was never closed ends at the first stray fence.
"""

import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agapo.sandbox.names import free, given

_QUOTE = r"[ \t]*(?:>[ \t]?)+"
_FENCE = re.compile(
    rf"(?P<quote>(?:{_QUOTE})?)(?P<lead>[ \t]*(?:(?:[-*+]|\d{{1,3}}[.)])[ \t]+)*)(?P<marks>`{{3,}}|~{{3,}})(?P<info>.*)"
)
_PYTHON = re.compile(r"(?:language-|lang-)?[ic]?py(?:thon|py)?[\d.]*")
_NOBODYS = {"", "code", "tool_code", "text", "txt", "plaintext", "plain", "none"}
_DIRECTIVES = {"code-cell", "code-block", "code", "lang"}
_MARKDOWN = {"md", "markdown"}
_DEEPER = 3
"""A closing fence may stand so many columns further in than its opening one; further in it is part of a docstring."""
_STATEMENT = re.compile(
    r"^[ \t]*(?:async[ \t]|(?:def|class|for|while|if|with|try|import|from|return)\b|print\(|@\w|\w[\w.\[\], ]*=[^=])",
    re.M,
)
_PRINTS = re.compile(r"print|stdout|write")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    """`python`; empty where the tag names no language; any other tag as it is."""
    text: str


def extract_code(answer: str, names: Collection[str] = (), *, is_script: bool = False) -> str:
    """Return the program in an answer; without fences, the whole answer; "" where its blocks are of other languages.

    Of the blocks that are Python's or nobody's it is the last that defines the most of `names`, what the tests call:
    a later block may show a call, a session or what was printed. Blocks tagged as Python come first, always where
    no names are known: a script (`is_script`) has none, but has to print. Where it uses what only other blocks define
    (a helper, an import), those stand with it, in their order.
    """
    blocks = fenced_blocks(answer)
    ours = [block for block in blocks if block.language in ("", "python")]
    if not ours:
        return "" if blocks else answer
    chosen = max(reversed(range(len(ours))), key=lambda place: _rank(ours[place], names, is_script))
    return _with_helpers([block.text for block in ours], chosen, names)


def _with_helpers(texts: Sequence[str], chosen: int, names: Collection[str]) -> str:
    """Add the last block for each name that the program lacks, as long as one has it."""
    known, places = [given(text) for text in texts], {chosen}
    while True:
        program = "\n".join(texts[place] for place in sorted(places))
        lacking = free(program) | {name for name in names if not defines(program, name)}
        helpers = {
            max(place for place, own in enumerate(known) if name in own) for name in lacking & set().union(*known)
        }
        if helpers <= places:
            return program
        places |= helpers


def _rank(block: Block, names: Collection[str], is_script: bool) -> tuple[int, ...]:
    if block.text.lstrip().startswith(">>>"):
        return (-1,)
    return (
        sum(defines(block.text, name) for name in names),
        block.language == "python",
        is_script and bool(_PRINTS.search(block.text)),
        bool(_STATEMENT.search(block.text)),
    )


def defines(program: str, name: str) -> bool:
    """Whether a program gives a meaning to a name: by `def`, `class`, an assignment, or an import from the library."""
    word = re.escape(name)
    if re.search(rf"^[ \t]*(?:(?:async[ \t]+)?def|class)[ \t]+{word}\b|^{word}[ \t]*(?::[^=\n]+)?=[^=]", program, re.M):
        return True
    imports = re.finditer(rf"^from[ \t]+(\w+)[\w.]*[ \t]+import\b.*\b{word}\b", program, re.M)
    return any(found[1] in sys.stdlib_module_names for found in imports)


def fenced_blocks(answer: str) -> list[Block]:
    """Return the blocks in their order; those in a block of Markdown instead of that."""
    blocks: list[Block] = []
    opening, lines = None, []
    for line in answer.splitlines(keepends=True):
        fence = _FENCE.fullmatch(line.rstrip())
        if fence and "`" in fence["info"]:  # code within a line
            fence = None
        if not opening:
            opening, lines = fence, []
        elif fence and _ends(fence, opening):
            blocks += _made(opening, lines)
            opening, lines = fence if fence["info"].strip() else None, []
        else:
            lines.append(line)
    return [*blocks, *_unclosed(opening, lines)] if opening else blocks


def _ends(fence: re.Match[str], opening: re.Match[str]) -> bool:
    return (
        fence["marks"].startswith(opening["marks"])
        and not fence["lead"].strip()
        and _columns(fence["lead"]) <= _columns(opening["lead"]) + _DEEPER
    )


def _unclosed(opening: re.Match[str], lines: list[str]) -> list[Block]:
    """A block without its end: the first stray fence, a shorter one or one behind the code of its line, or the end."""
    for index, line in enumerate(lines):
        if line.rstrip().endswith(("```", "~~~")):
            code = line.rstrip().rstrip("`~")
            kept = [*lines[:index], code + "\n"] if code.strip(" \t>") else lines[:index]
            return [*_made(opening, kept), *fenced_blocks("".join(lines[index + 1 :]))]
    return _made(opening, lines)


def _made(opening: re.Match[str], lines: list[str]) -> list[Block]:
    if opening["quote"]:
        lines = [re.sub(f"^{_QUOTE}", "", line) for line in lines]
    text, language = "".join(_unindented(lines, _columns(opening["lead"]))), _language(opening["info"])
    return fenced_blocks(text) if language in _MARKDOWN else [Block(language, text)]


def _unindented(lines: list[str], columns: int) -> list[str]:
    """Take off the fence's own indentation, unless the code does not share it."""
    first = next((line for line in lines if line.strip()), "")
    if not columns or _columns(first[: len(first) - len(first.lstrip())]) < columns:
        return lines
    return [_shifted(line, columns) for line in lines]


def _shifted(line: str, columns: int) -> str:
    code = line.lstrip(" \t")
    return " " * max(0, _columns(line[: len(line) - len(code)]) - columns) + code


def _columns(space: str) -> int:
    return len(space.expandtabs(4))


def _language(info: str) -> str:
    """The language that the text behind a fence names: `{.python .numberLines}`, `Python3`, `py title="a.py"`."""
    words = [word.strip(".\"'") for word in re.split(r"[\s,:;=|{}()\[\]]+", info.strip().lower())]
    words = [word for word in words if word and word not in _DIRECTIVES] or [""]
    candidates = words if info.strip().startswith("{") else words[:1]
    if any(map(_PYTHON.fullmatch, candidates)) or any(word.endswith(".py") for word in words):
        return "python"
    return "" if words[0] in _NOBODYS or not words[0][0].isalpha() else words[0]
