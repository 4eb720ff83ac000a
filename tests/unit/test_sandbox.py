"""The sandbox: what crosses the wall, what the tests' kinds mean, and the remote executor."""

import json
import os
import threading
import urllib.request
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agapo.errors import UserError
from agapo.sandbox import Job, Limits, LocalExecutor, Outcome, RemoteExecutor, SandboxUnavailable, cgroup, remote
from agapo.sandbox.inside import seccomp, wire
from agapo.sandbox.inside.compare import same_output
from tests.sandboxed import needs_sandbox

Pair = namedtuple("Pair", "left right")


def no_handle(value: Any) -> int | None:
    return None


def there_and_back(value: Any) -> Any:
    return wire.decode(json.loads(json.dumps(wire.encode(value, no_handle))), lambda number: number)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.decimals(allow_nan=False)
)
keys = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.tuples(st.integers(), st.text()))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner) | st.sets(keys),
    max_leaves=20,
)


@given(values)
def test_values_cross_as_they_are(value: Any) -> None:
    found = there_and_back(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("value", "crosses_as"),
    [
        (True, True),
        (10**1000, 10**1000),
        (float("-inf"), float("-inf")),
        (Pair(1, 2), (1, 2)),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(int, a=1), {"a": 1}),
        (deque([1, 2]), deque([1, 2])),
        (frozenset({1}), frozenset({1})),
        (bytearray(b"x"), bytearray(b"x")),
        (range(2, 9, 3), range(2, 9, 3)),
        (Decimal("1.50"), Decimal("1.50")),
        (Fraction(1, 3), Fraction(1, 3)),
        ("\ud800", "\ud800"),
        (int, int),
        (type(None), type(None)),
        (date(2024, 2, 29), date(2024, 2, 29)),
        (datetime(2024, 2, 29, 1, 2, 3, 4), datetime(2024, 2, 29, 1, 2, 3, 4)),
        (time(1, 2), time(1, 2)),
        (timedelta(-1, 2, 3), timedelta(-1, 2, 3)),
    ],
)
def test_subclasses_cross_as_plain_values(value: Any, crosses_as: Any) -> None:
    found = there_and_back(value)
    assert found == crosses_as
    assert type(found) is type(crosses_as)


def test_not_a_number_crosses() -> None:
    assert there_and_back(float("nan")) != there_and_back(float("nan"))


FORGED = [{"T": "eval"}, {"T": "object"}, {"T": ["int"]}, {"m": ["Path", "x"]}, {"m": ["date", "x"]}, {"l": [10**400]}]


@pytest.mark.parametrize(
    "content", [{"x": 1}, {"d": 3}, {"i": "zz"}, {"h": "x"}, {}, {"s": [[]]}, {"d": [[1]]}, {"t": 1, "s": 2}, *FORGED]
)
def test_what_is_no_value_is_refused(content: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(content, lambda number: number)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_allows_no_way_out(machine: str) -> None:
    allowed = seccomp.allowed_numbers(machine)
    assert {"read", "mmap", "openat", "futex", "exit_group"} <= allowed.keys()
    dangerous = {"execve", "fork", "vfork", "kill", "ptrace", "socket", "mount", "unshare", "memfd_create", "bpf"}
    assert not dangerous & allowed.keys()
    assert len(seccomp.program(machine, 1)) % 8 == 0
    assert len(set(allowed.values())) == len(allowed)


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("6\n", "6", True),
        ("6  \n7\n\n", "6\n7", True),
        ("1 2\n3", "1 2 3", True),
        ("0.333333333", "0.3333333330", True),
        ("0.34", "0.33", False),
        ("1000000", "1000001", False),
        ("7", "7.0", True),
        ("nan", "1.5", False),
        ("", "0", False),
        ("yes", "YES", False),
    ],
)
def test_outputs_are_compared_but_for_space_and_last_digits(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected) is same


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    with LocalExecutor(Limits(cpu_s=2, wall_s=4, memory_mb=512)) as made:
        yield made


def passes(outcome: Outcome) -> list[bool]:
    return [result.passed for result in outcome.results]


@needs_sandbox
class TestKinds:
    def test_each_assert_is_a_test(self, executor: LocalExecutor) -> None:
        tests = ["assert f(1) == 2", "assert f(2) == 4", "assert f('a')"]
        outcome = executor.run(Job("asserts", "def f(x):\n    return x + 1", tests=tests))
        assert passes(outcome) == [True, False, False]
        assert not outcome.passed
        assert "TypeError" in outcome.results[2].detail

    def test_a_check_function_counts_its_asserts(self, executor: LocalExecutor) -> None:
        test = "def check(candidate):\n    for i in range(4):\n        assert candidate(i) == i * i, 'no'\n"
        assert passes(executor.run(Job("check", "def g(x): return x + x", test=test, entry_point="g"))) == [1, 0, 1, 0]

    def test_a_check_that_expects_an_exception(self, executor: LocalExecutor) -> None:
        test = """
def check(c):
    try:
        c(-1)
        assert False
    except ValueError:
        pass
    assert c(1)
"""
        raises = "def g(x):\n    if x < 0: raise ValueError('negative')\n    return True"
        assert executor.run(Job("check", raises, test=test, entry_point="g")).passed
        assert not executor.run(Job("check", "def g(x): return True", test=test, entry_point="g")).passed

    def test_scripts_read_and_print(self, executor: LocalExecutor) -> None:
        inputs, outputs = ["3\n4 5 6\n", "1\n9\n"], ["15\n", "9\n"]
        for program in (
            "n = int(input())\nprint(sum(map(int, input().split())))",
            "import sys\n_, *n = map(int, sys.stdin.buffer.read().split())\nsys.stdout.write(str(sum(n)))",
            "import os\nprint(sum(map(int, open(0).read().split()[1:])), flush=True)",
            "import sys\ndef main():\n    input()\n    print(sum(map(int, input().split())))\n    sys.exit(0)\n"
            "if __name__ == '__main__':\n    main()",
            "import threading\ndef main(): print(sum(map(int, (input(), input())[1].split())))\n"
            "threading.Thread(target=main).start()",
        ):
            assert executor.run(Job("stdio", program, inputs=inputs, outputs=outputs)).passed, program

    def test_calls_of_a_function_or_of_a_solution_class(self, executor: LocalExecutor) -> None:
        inputs, outputs = [[[3, 1, 2]], [[]]], [[1, 2, 3], []]
        for program in (
            "def s(a): return sorted(a)",
            "class Solution:\n    def s(self, a):\n        return tuple(sorted(a))",
        ):
            job = Job("calls", program, entry_point="s", inputs=inputs, outputs=outputs)
            assert executor.run(job).passed
        assert passes(
            executor.run(Job("calls", "def s(a): return a", entry_point="s", inputs=inputs, outputs=outputs))
        ) == [0, 1]

    def test_objects_and_iterators_of_the_program(self, executor: LocalExecutor) -> None:
        program = """
class Node:
    def __init__(self, value, next=None): self.value, self.next = value, next
    def __repr__(self): return f'Node({self.value})'
def total(node): return node.value + (total(node.next) if node.next else 0)
def count(n): yield from range(n)
"""
        tests = [
            "assert total(Node(1, Node(2))) == 3",
            "assert Node(4).value == 4 and str(Node(4)) == 'Node(4)'",
            "assert list(count(3)) == [0, 1, 2] and sum(count(4)) == 6",
            "assert Node(1) == Node(1)",
        ]
        assert passes(executor.run(Job("asserts", program, tests=tests))) == [True, True, True, False]

    def test_the_tests_own_set_up(self, executor: LocalExecutor) -> None:
        setup = (
            "import math\nclass Box:\n    def __init__(self, n): self.n = n\ndef close(a, b): return math.isclose(a, b)"
        )
        job = Job("asserts", "def f(box): return math.sqrt(box.n)", setup=setup, tests=["assert close(f(Box(9)), 3)"])
        assert executor.run(job).passed

    def test_names_of_python_are_pythons_unless_the_exercise_is_called_so(self, executor: LocalExecutor) -> None:
        program = "def sum(a, b): return a * 0 + 25"
        assert executor.run(Job("asserts", program, tests=["assert sum(10, 15) == 25"], names=["sum"])).passed
        lying = "def sorted(x): return [1, 2]\ndef f(): return [2, 1, 3]"
        assert not executor.run(Job("asserts", lying, tests=["assert sorted(f()) == [1, 2]"])).passed

    @pytest.mark.parametrize("test", ["assert nonsense(", "import no_such_module", "assert 1 / 0 == 3"])
    def test_tests_that_cannot_be_run_are_nobodys_fault(self, executor: LocalExecutor, test: str) -> None:
        assert executor.run(Job("asserts", "def f(): return 1", tests=[test])).ended == "broken"

    @pytest.mark.parametrize("program", ["", "def f(:", "raise ValueError", "x = 1", "def g(): return 1"])
    def test_programs_that_are_none_fail(self, executor: LocalExecutor, program: str) -> None:
        outcome = executor.run(Job("asserts", program, tests=["assert f() == 1"]))
        assert outcome.ended == "finished"
        assert passes(outcome) == [False]

    def test_no_tests_prove_nothing(self, executor: LocalExecutor) -> None:
        test = "def check(candidate): pass"
        assert not executor.run(Job("check", "def f(): return 1", test=test, entry_point="f")).passed

    def test_time_runs_out(self, executor: LocalExecutor) -> None:
        outcome = executor.run(
            Job("asserts", "import time\ndef f(x): time.sleep(x)", tests=["assert not f(0)", "f(99)"])
        )
        assert outcome.ended == "timeout"
        assert passes(outcome) == [True]

    def test_it_belongs_to_its_thread(self, executor: LocalExecutor) -> None:
        raised: list[Exception] = []

        def run() -> None:
            try:
                executor.run(Job("asserts", "", tests=[]))
            except RuntimeError as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert raised

    def test_a_container_that_was_killed_is_replaced(self, executor: LocalExecutor) -> None:
        job = Job("asserts", "def f(): return 1", tests=["assert f() == 1"])
        assert executor.run(job).passed
        for container in executor._containers.values():
            container._process.kill()
            container._process.wait()
        assert executor.run(job).passed


def test_a_control_group_is_bounded_and_those_of_the_dead_are_removed(tmp_path: Path, monkeypatch: Any) -> None:
    """Of version 2, as files in a folder; a kernel's own removes a group's files with it."""
    monkeypatch.setattr(cgroup, "_ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "_own", lambda kind: None)
    (tmp_path / "cgroup.controllers").touch()
    (tmp_path / "agapo-sandbox-999999999").mkdir()
    own = tmp_path / f"agapo-sandbox-{os.getpid()}"
    assert cgroup.make_group(1 << 30, 64) == [own / "cgroup.procs"]
    assert [path.name for path in tmp_path.glob("agapo-*")] == [own.name]
    assert (own / "memory.max").read_text() == str(1 << 30)
    assert (own / "pids.max").read_text() == "64"


def test_no_bubblewrap_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from agapo.sandbox import problem

    monkeypatch.setenv("PATH", "/nowhere")
    assert "bubblewrap is not installed" in (problem() or "")


# --- remote ---


@pytest.fixture
def server() -> Iterator[str]:
    made = remote.serve("127.0.0.1", 0, slots=2)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()


JOB = Job("asserts", "def f(x): return x + 1", tests=["assert f(1) == 2", "assert f(1) == 3"])


@needs_sandbox
def test_a_remote_executor_says_what_a_local_one_does(server: str, executor: LocalExecutor) -> None:
    assert RemoteExecutor(server).problem() is None
    assert RemoteExecutor(server).run(JOB) == executor.run(JOB)


@needs_sandbox
def test_several_clients_at_once(server: str) -> None:
    found: list[Outcome] = []
    threads = [threading.Thread(target=lambda: found.append(RemoteExecutor(server).run(JOB))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [passes(outcome) for outcome in found] == [[True, False]] * 6


@needs_sandbox
def test_a_token_is_asked_for(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(remote.TOKEN, "secret")
    assert RemoteExecutor(server).run(JOB).results
    request = urllib.request.Request(server + "/v1/run", b"{}", {"Authorization": "Bearer wrong"})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request)


def test_other_machines_need_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(remote.TOKEN, raising=False)
    with pytest.raises(UserError, match="AGAPO_EXECUTOR_TOKEN"):
        remote.serve("0.0.0.0", 0, slots=1)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"job": {"kind": "asserts"}, "limits": {}}', b'{"job": {}, "limits": {"x": 1}}']
)
def test_a_request_that_is_none(server: str, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(server + "/v1/run", body))


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE_S", 0.0)
    gone = RemoteExecutor("http://127.0.0.1:9")
    assert "does not answer" in (gone.problem() or "")
    with pytest.raises(SandboxUnavailable, match="executor http"):
        gone.run(JOB)
    assert issubclass(SandboxUnavailable, ConnectionError)  # which the verifier pool takes for nobody's fault


def test_root_is_refused_inside() -> None:
    if os.geteuid():
        pytest.skip("needs root to refuse it")
    from agapo.sandbox.inside import confine

    pid = os.fork()
    if not pid:
        try:
            confine.confine(user=0, cpu_s=5, memory=1 << 40, file_size=1 << 20)
        except PermissionError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
