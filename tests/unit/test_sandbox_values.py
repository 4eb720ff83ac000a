"""Types, objects and functions that tests hand to a program, and whether what it gives back is what a row expects."""

from collections.abc import Iterator
from typing import Any

import pytest

from agapo.sandbox import Job, Limits, LocalExecutor, Outcome
from agapo.sandbox.inside.compare import same_value
from tests.sandboxed import needs_sandbox


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    with LocalExecutor(Limits(cpu_s=2, wall_s=4)) as made:
        yield made


def passes(outcome: Outcome) -> list[bool]:
    return [result.passed for result in outcome.results]


@needs_sandbox
def test_what_python_has_is_handed_over_by_name(executor: LocalExecutor) -> None:
    program = "def f(g, *x): return g(*x)\ndef same(x): return x"
    tests = [
        "assert f(max, 1, 2) == 2 and f(str.upper, 'a') == 'A'",
        "import operator\nassert f(operator.add, 1, 2) == 3",
        "from collections import OrderedDict\nassert f(OrderedDict, [('a', 1)]) == {'a': 1}",
        "assert same(int) is int and f(float, 1) == 1.0 and same([str, dict]) == [str, dict]",
        "assert same(bool) is int",
        "assert f(ValueError, 'x').args == ('x',)",
    ]
    assert passes(executor.run(Job("asserts", program, tests=tests))) == [True] * 4 + [False, True]


@needs_sandbox
@pytest.mark.parametrize(
    ("given", "does"),
    [
        ("Counter('aab')", "given.most_common(1)[0][0] == 'a'"),
        ("defaultdict(list, b=[1])", "(given['a'], given['b'], type(given).__name__) == ([], [1], 'defaultdict')"),
        ("OrderedDict([('b', 1), ('a', 2)])", "given.popitem(last=False) == ('b', 1)"),
        ("[Counter('a'), {'k': (Counter('b'),)}]", "given[1]['k'][0].total() == given[0].total() == 1"),
        ("Point(1, y=2)", "given.x + given.y == 3 and given == (1, 2)"),
        ("double", "given(2) == 4"),
        ("iter([1, 2])", "next(given) + next(given) == 3"),
        ("(x for x in 'ab')", "list(given) == ['a', 'b']"),
        ("map(str, [1])", "list(given) == ['1']"),
        ("zip([1], 'a')", "list(given) == [(1, 'a')]"),
        ("{1: 2}.items()", "list(given) == [(1, 2)]"),
        ("re.compile('a+', re.I)", "given.match('AA').group() == 'AA'"),
        ("array('i', [1, 2])", "given.tolist() == [1, 2]"),
        ("Path('a/b.py')", "given.suffix == '.py'"),
        ("datetime(2024, 1, 2, tzinfo=timezone.utc)", "given.isoformat() == '2024-01-02T00:00:00+00:00'"),
    ],
)
def test_objects_of_the_standard_library_are_made_anew(given: str, does: str, executor: LocalExecutor) -> None:
    setup = (
        "import re\nfrom array import array\nfrom collections import *\nfrom datetime import *\n"
        "from pathlib import Path\nPoint = namedtuple('Point', 'x y')\ndef double(x): return 2 * x"
    )
    program = f"def f(given): return {does}"
    tests = [f"assert f({given}) is True", f"assert f({given}) is False"]
    assert passes(executor.run(Job("asserts", program, setup=setup, tests=tests))) == [True, False]


@needs_sandbox
@pytest.mark.parametrize(
    "given", ["lambda: 1", "helper", "Own", "Own()", "Pair", "[helper]", "iter(int, 1)", "{'a': lambda: 1}"]
)
def test_what_the_tests_define_cannot_be_handed_over(given: str, executor: LocalExecutor) -> None:
    test = "from collections import namedtuple\nPair = namedtuple('Pair', 'x')\n"
    test += f"class Own: pass\ndef helper(): return 1\nassert f({given})"
    assert executor.run(Job("asserts", "def f(g): return True", tests=[test])).ended == "broken"


@needs_sandbox
@pytest.mark.parametrize(
    "trick",
    [
        "double = 3",
        "del double",
        "Point = 3",
        "import importlib\nimportlib.import_module = lambda name: 1 / 0",
        "import operator\noperator.attrgetter = lambda name: lambda module: 3",
        "import inside.candidate\ninside.candidate._Given = lambda value: 3",
        "import inside.candidate\ninside.candidate._Candidate._number = lambda self, value: 'x'",
    ],
)
@pytest.mark.parametrize("given", ["double", "Point(1, 2)", "len", "Counter('a')"])
def test_a_program_cannot_do_away_with_its_tests(trick: str, given: str, executor: LocalExecutor) -> None:
    """It is wrong where it keeps them from handing over what they would; no verdict would be an escape."""
    setup = "from collections import *\nPoint = namedtuple('Point', 'x y')\ndef double(x): return 2 * x"
    job = Job("asserts", f"{trick}\ndef f(given): return 1", setup=setup, tests=[f"assert f({given}) == 2"])
    assert executor.run(job).ended == "finished"
    assert not executor.run(job).passed


@needs_sandbox
def test_objects_are_changed_from_outside(executor: LocalExecutor) -> None:
    setup = "class Node:\n    def __init__(self, n): self.n, self.next = n, None"
    setup += "\na = Node(1)\na.next = Node(2)\na.n = 5"
    program = "def f(a): return a.n + a.next.n"
    assert executor.run(Job("asserts", program, setup=setup, tests=["assert f(a) == 7"])).passed
    own = f"class Node:\n    def __init__(self, x): self.n = 3 * x\n{program}"
    assert executor.run(Job("asserts", own, setup=setup, tests=["assert f(a) == 11"])).passed


@needs_sandbox
def test_a_set_up_that_needs_the_program(executor: LocalExecutor) -> None:
    setup, tests = "import math\na = Node(1)", ["assert math.floor(f(a)) == 1"]
    program = "import math\nclass Node:\n    def __init__(self, n): self.n = n\ndef f(a): return math.sqrt(a.n)"
    assert executor.run(Job("asserts", program, setup=setup, tests=tests)).passed
    outcome = executor.run(Job("asserts", "def f(a): return 1", setup=setup, tests=tests))
    assert (outcome.ended, passes(outcome)) == ("finished", [False])


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        (2, 2.0, True),
        (2.0, 2, True),
        ([2, [3, (4,)]], [2.0, [3.0, [4.0]]], True),
        ({"a": [1, 2.5]}, {"a": [1.0, 2.5]}, True),
        (0.1 + 0.2, 0.3, True),
        ({"x": 0.1 + 0.2}, {"x": 0.3}, True),
        ({1: 2}, {"1": 2.0}, True),
        (10**18, 1e18, True),
        (None, None, True),
        (True, True, True),
        ("2", "2", True),
        (2, 2.5, False),
        (2, 3.0, False),
        (2.4, 2, False),
        (10**400, 2.5, False),
        (1e15 + 1, 10**15, False),
        (float("nan"), 1.0, False),
        (True, 1, False),
        (1, True, False),
        (1.0, True, False),
        (0, False, False),
        (None, 0, False),
        ("2", 2, False),
        (2, "2", False),
        ([1], [1, 2], False),
        ([1], 1, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({1: 2, "1": 2}, {"1": 2}, False),
        ({True: 2}, {"True": 2}, False),
        ({1, 2}, [1, 2], False),
        (1j, 1.0, False),
    ],
)
def test_values_are_compared_as_python_compares_them(found: Any, expected: Any, same: bool) -> None:
    assert same_value(found, expected) is same
