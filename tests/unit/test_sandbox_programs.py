"""What programs find in the sandbox: all of Python's own that one process can have, as where a person runs them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agapo.sandbox import Job, Limits, LocalExecutor
from tests.sandboxed import needs_sandbox
from tests.scripts import GIVEN, SCRIPTS


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    with LocalExecutor(Limits(cpu_s=4, wall_s=6)) as made:
        yield made


@needs_sandbox
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_what_it_prints_elsewhere(name: str, executor: LocalExecutor, tmp_path: Path) -> None:
    """Twice, since one process runs all of a program's tests; and not with other output than Python's."""
    place = tmp_path / "program.py"
    place.write_text(SCRIPTS[name])
    real = subprocess.run(
        [sys.executable, "-I", str(place)], input=GIVEN, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert real.stdout, real.stderr
    outputs = [real.stdout, real.stdout, f"{real.stdout}\nmore"]
    outcome = executor.run(Job("stdio", SCRIPTS[name], inputs=[GIVEN] * 3, outputs=outputs))
    assert [result.passed for result in outcome.results] == [True, True, False], outcome


@needs_sandbox
@pytest.mark.parametrize(
    "program", ["print(1)\nexit(", "print(1)\nraise ValueError", "print(1)\n1 / 0", "print(2)\nexit()"]
)
def test_scripts_that_fail(program: str, executor: LocalExecutor) -> None:
    assert not executor.run(Job("stdio", program, inputs=[GIVEN], outputs=["1\n"])).passed


@needs_sandbox
@pytest.mark.parametrize(
    ("end", "passes"),
    [
        *((end, True) for end in ("sys.exit()", "sys.exit(0)", "sys.exit(None)", "raise SystemExit", "os._exit(0)")),
        *((end, False) for end in ("sys.exit(1)", "exit(-1)", "raise SystemExit(2)", "os._exit(3)")),
    ],
)
def test_the_status_of_a_script(end: str, passes: bool, executor: LocalExecutor, tmp_path: Path) -> None:
    program = f"import os, sys\nprint(1, flush=True)\n{end}"
    place = tmp_path / "program.py"
    place.write_text(program)
    assert (subprocess.run([sys.executable, str(place)], capture_output=True, check=False).returncode == 0) == passes
    outcome = executor.run(Job("stdio", program, inputs=["", ""], outputs=["1\n", "1\n"]))
    assert [result.passed for result in outcome.results] == [passes, passes]


# --- LeetCode's names ---

USES = {
    "typing": "def g(self, a: List[int], b: Optional[Dict[str, Tuple]] = None) -> int: return min(a)",
    "collections": "def g(self, a): return Counter(a).total() - 2 if defaultdict(int)[0] == 0 else deque(a)",
    "modules": "def g(self, a): heapq.heapify(a); return heapq.heappop(a) + bisect.bisect_left([1], 0) + math.floor(0)",
    "functions": "def g(self, a): return reduce(gcd, a) if inf > bisect_right(a, 0) else permutations(ceil(0))",
    "decorators": "@cache\n    def h(self, n): return n\n    @lru_cache(None)\n    def g(self, a=()): return self.h(1)",
    "python's own win": "def g(self, a): return pow(3, 2, 8) if abs(-1) == 1 and str(sum([1])) == '1' else open",
}


@needs_sandbox
@pytest.mark.parametrize("use", USES)
def test_names_that_leetcode_has_imported(use: str, executor: LocalExecutor) -> None:
    arguments = [] if use == "decorators" else [[3, 1, 2]]
    program = f"class Solution:\n    {USES[use]}"
    assert executor.run(Job("calls", program, entry_point="g", inputs=[arguments], outputs=[1])).passed
    asserted = [f"assert Solution().g({', '.join(map(repr, arguments))}) == 1"]
    assert executor.run(Job("asserts", program, tests=asserted)).passed


@needs_sandbox
@pytest.mark.parametrize("name", ["gcd", "add", "reduce", "factorial", "mean", "Counter", "pow", "sorted"])
def test_what_leetcode_has_imported_answers_for_no_program(name: str, executor: LocalExecutor) -> None:
    job = Job("calls", "class Solution: pass", entry_point=name, inputs=[[4, 6]], outputs=[2])
    outcome = executor.run(job)
    assert [result.passed for result in outcome.results] == [False]
    assert "Solution" in outcome.results[0].detail


@needs_sandbox
def test_other_programs_import_what_they_use(executor: LocalExecutor) -> None:
    program = "def g(a: List[int]): return min(a)"
    assert not executor.run(Job("asserts", program, tests=["assert g([1]) == 1"])).passed
    assert executor.run(Job("asserts", f"from typing import List\n{program}", tests=["assert g([1]) == 1"])).passed
