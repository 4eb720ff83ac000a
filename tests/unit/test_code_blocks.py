"""Which part of an answer is taken for the program."""

import pytest

from rewards.code_blocks import defines, extract_code

ADD = "def add(a, b):\n    return a + b\n"


def fenced(program: str, tag: str = "python") -> str:
    return f"Here it is:\n```{tag}\n{program.rstrip()}\n```\nIt runs in linear time.\n"


def indented(text: str, space: str) -> str:
    return "".join(space + line for line in text.splitlines(keepends=True))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (fenced("x = 1"), "x = 1\n"),
        (fenced("x = 1") + fenced("x = 2"), "x = 2\n"),
        (fenced("x = 1") + fenced("$ python x.py", "bash"), "x = 1\n"),
        (fenced("ls", "bash"), ""),
        (fenced("def add(a, b) a + b end", "ruby"), ""),
        ("```python\n    return 1\n```", "    return 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("x = 1", "x = 1"),
        ("", ""),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
    ],
)
def test_the_last_fenced_block_is_the_program(answer: str, code: str) -> None:
    assert extract_code(answer) == code


@pytest.mark.parametrize(
    "tag",
    [
        *("", "py", "py3", "python3", "Python", "PYTHON3", "python3.11", "Python 3", "ipython", "pypy3", " python"),
        *("{python}", "{.python .numberLines}", "{python, echo=FALSE}", "{code-cell} python", "{#sum .python}"),
        *(
            "python:add.py",
            'python title="add.py"',
            "python,linenos",
            "python=",
            "python {1-2}",
            "add.py",
            "lang-python",
        ),
        *("language-python", "text", "plaintext", "code"),
    ],
)
def test_tags_of_python(tag: str) -> None:
    assert extract_code(fenced(ADD, tag)) == ADD


@pytest.mark.parametrize("tag", ["bash", "json", "javascript", "output", "pycon", "pyret", "c++", "ruby", "diff"])
def test_tags_of_others(tag: str) -> None:
    assert extract_code(fenced(ADD, tag)) == ""


@pytest.mark.parametrize("marks", ["```", "````", "~~~", "~~~~~"])
@pytest.mark.parametrize("space", ["", "  ", "   ", "    ", "\t", "      "])
def test_fences_may_be_indented(marks: str, space: str) -> None:
    block = indented(f"{marks}python\n{ADD}{marks}\n", space)
    assert extract_code(f"1. The function:\n\n{block}\n2. It adds.") == ADD


@pytest.mark.parametrize(
    "answer",
    [
        f"- ```python\n{indented(ADD, '  ')}  ```",
        f"1. ```python\n{indented(ADD, '   ')}   ```",
        f"- ```python\n{ADD}```",  # the code does not share the fence's indentation
        f"  ```python\n{ADD}  ```",
        indented(f"```python\n{ADD}```\n", "> "),
        f"1. a\n\n   ```python\n{indented(ADD, '   ')}   ```\n2. b\n\n   ```text\n   3\n   ```",
    ],
)
def test_fences_in_lists_and_quotes(answer: str) -> None:
    assert extract_code(answer, ["add"]) == ADD


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{ADD}````\nDone.",
        f"````python\n{ADD}```\nDone.",
        f"~~~python\n{ADD}```\nDone.",
        f"```python\n{ADD}    ```\nDone.",
        f"```python\n{ADD.rstrip()}```\nDone.",
        f"````python\n{ADD}```\nIt prints\n```\n3\n```",
        f"```python\n{ADD}```python\n",
        f"```markdown\n# Answer\n```python\n{ADD}```\nDone.\n```",
        f"````markdown\n# Answer\n```python\n{ADD}```\nDone.\n````",
        f"```python\ndef add(\n\nNo, so:\n```python\n{ADD}```",  # the first was never closed
    ],
)
def test_fences_that_do_not_match(answer: str) -> None:
    assert extract_code(answer, ["add"]) == ADD


@pytest.mark.parametrize(
    "program",
    [
        'def add(a, b):\n    """Add.\n\n    ```python\n    add(1, 2)\n    ```\n    """\n    return a + b\n',
        "def add(a, b):\n    s = `1`\n",
    ],
)
def test_fences_in_docstrings_are_the_programs(program: str) -> None:
    assert extract_code(fenced(program), ["add"]) == program


def test_a_longer_fence_holds_shorter_ones() -> None:
    assert extract_code("````python\nx = '''\n```\n'''\n````") == "x = '''\n```\n'''\n"


BEHIND = [
    fenced("3", ""),
    fenced("O(1)", ""),
    fenced("x = 3", ""),
    fenced(">>> add(1, 2)\n3", ""),
    fenced(">>> add(1, 2)\n3"),
    fenced("print(add(1, 2))  # 3"),
    fenced("assert add(1, 2) == 3"),
    fenced("from solution import add\nprint(add(1, 2))"),
    fenced("[1, 2, 3]\nTrue", "text"),
    fenced("", ""),
    fenced("$ python add.py\n3", "bash"),
    "```\n3",
]


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("tag", ["python", ""])
def test_what_follows_the_program_is_not_it(behind: str, tag: str) -> None:
    assert extract_code(fenced(ADD, tag) + behind, ["add"]) == ADD


@pytest.mark.parametrize(
    "last",
    ["def add(a, b):\n    return a - b\n", "class add: pass\n", "add = max\n", "from operator import sub as add\n"],
)
def test_the_last_definition_counts_however_it_is_made(last: str) -> None:
    assert extract_code(fenced(ADD) + fenced(last), ["add"]) == last
    assert extract_code(fenced(last) + fenced("3", ""), ["add"]) == last


def test_the_block_that_defines_the_most_is_the_program() -> None:
    whole = "class Node: pass\ndef depth(n): return 1\n"
    assert extract_code(fenced(whole) + fenced("class Node: pass"), ["Node", "depth"]) == whole


HELPER, USER = "def helper(a): return a\n", "def add(a, b): return helper(a) + b\n"


@pytest.mark.parametrize(
    ("blocks", "places"),
    [
        ([HELPER, USER], [0, 1]),
        ([USER, HELPER], [0, 1]),
        ([HELPER, USER, "print(add(1, 2))"], [0, 1]),
        ([HELPER, "x = 1\n", USER], [0, 2]),
        (["import math\n", "def add(a, b): return math.fsum((a, b))\n"], [0, 1]),
        (["SHIFT = 0\n", "def helper(a): return a + SHIFT\n", USER], [0, 1, 2]),
        (["def helper(a): return a + 1\n", HELPER, USER], [1, 2]),
        (["class Node: pass\n", "def depth(n): return 1\n", ADD], [0, 1, 2]),
        ([HELPER, ADD], [1]),  # it needs no helper
        ([HELPER, HELPER + USER], [1]),
        (["a = 1\n", ADD], [1]),  # arguments are given
        (["def sum(a): return 1\n", "def add(a, b): return sum((a, b))\n"], [1]),  # Python has it
        (["def add(a, b): return 1\n", "class Solution:\n    def add(self, a, b): return 2\n"], [1]),
        ([">>> helper(1)\n1\n", USER], [1]),
        ([HELPER, "def add(a, b) return helper(a) + b\n"], [1]),
    ],
)
def test_a_program_comes_with_the_blocks_that_it_needs(blocks: list[str], places: list[int]) -> None:
    names = ["add", "depth", "Node"] if any("depth" in block for block in blocks) else ["add"]
    expected = "\n".join(blocks[place] for place in places)
    assert extract_code("".join(map(fenced, blocks)), names) == expected


def test_a_script_comes_with_its_functions() -> None:
    blocks = ["def solve(n):\n    return n\n", "print(solve(int(input())))\n"]
    assert extract_code("".join(map(fenced, blocks)), is_script=True) == "\n".join(blocks)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (fenced("print(input())") + fenced("3", ""), "print(input())\n"),
        (fenced("print(input())", "") + fenced("3", ""), "print(input())\n"),
        (fenced("print(input())", "") + fenced("YES\nNO", ""), "print(input())\n"),
        (fenced("print(input())") + fenced("print the sum", ""), "print(input())\n"),
        (
            fenced("import sys\nsys.stdout.write('a')") + fenced("def helper(): pass"),
            "import sys\nsys.stdout.write('a')\n",
        ),
        (fenced("print(1)") + fenced("print(2)"), "print(2)\n"),
        (fenced(">>> print(1)\n1") + fenced("Done", "text"), "Done\n"),
    ],
)
def test_a_script_is_a_block_that_prints(answer: str, code: str) -> None:
    assert extract_code(answer, is_script=True) == code


def test_code_within_a_line_opens_no_block() -> None:
    assert extract_code(f"```x = 1``` is not all:\n\n{fenced(ADD)}", ["add"]) == ADD


@pytest.mark.parametrize(
    ("program", "has"),
    [
        ("def add(a): pass", True),
        ("class S:\n    async def add(self): pass", True),
        ("add: int = 3", True),
        ("from operator import add", True),
        ("from solution import add", False),
        ("add == 3", False),
        ("def adder(a): pass", False),
        ("add(1, 2)", False),
    ],
)
def test_a_definition(program: str, has: bool) -> None:
    assert defines(program, "add") is has


def test_long_answers_take_no_time_to_speak_of() -> None:
    """Patterns that go back over what they have read would take hours here."""
    for unit in (" ", "\n", "> ", "- ", "`", "```\n~~~\n", "1. ```python\n", "x, ", "````md\n"):
        extract_code(unit * 20_000, ["add"], is_script=True)
