"""Does the program pass its tests? Model-written code runs in `agapo.sandbox`, never in this process.

The program is a fenced block of the final answer (`rewards.code_blocks`). Rows keep the public sets' columns
(`rewards.code_tests`).

Deliberately left out: languages other than Python, and packages beyond its standard library.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from textwrap import dedent
from typing import Any

from agapo.chat import Completion, completion_text, final_answer
from agapo.errors import UserError
from agapo.sandbox import Job, Limits, LocalExecutor, Outcome, RemoteExecutor, problem
from agapo.schema import Mode
from rewards.code_blocks import defines, extract_code
from rewards.code_tests import COLUMNS, job_tests, names_of

_own = threading.local()
"""This thread's executor, and the last job with its outcome: `score` and `share` of a sample run its tests once."""


def score(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    mode: Sequence[Mode | None] | None = None,
    *,
    executor: str | None = None,
    cpu_s: int = 6,
    wall_s: float = 8.0,
    memory_mb: int = 1024,
    **columns: Any,
) -> list[float | None]:
    """Return 1.0 where the program passes every test, 0.0 where not, None where the row has no tests that can be run.

    `executor` is the URL of a remote executor; without it programs run on this machine. `cpu_s`, `wall_s` and
    `memory_mb` bound one program over all its tests; keep `wall_s` below the recipe's `deadline_s`. Raises UserError
    where there is no sandbox, ConnectionError when it fails.
    """
    limits = Limits(cpu_s=cpu_s, wall_s=wall_s, memory_mb=memory_mb)
    return [_verdict(outcome) for outcome, _ in _outcomes(completions, mode, columns, executor, limits)]


def share(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    mode: Sequence[Mode | None] | None = None,
    *,
    executor: str | None = None,
    cpu_s: int = 6,
    wall_s: float = 8.0,
    memory_mb: int = 1024,
    **columns: Any,
) -> list[float | None]:
    """Return the share of tests that pass, 0 to 1; otherwise like `score`."""
    limits = Limits(cpu_s=cpu_s, wall_s=wall_s, memory_mb=memory_mb)
    return [_share(outcome, row) for outcome, row in _outcomes(completions, mode, columns, executor, limits)]


def check(*, executor: str | None = None, cpu_s: int = 6, wall_s: float = 8.0, memory_mb: int = 1024) -> None:
    """Raise UserError where model-written code cannot be contained."""
    reason = RemoteExecutor(executor).problem() if executor else problem()
    if reason:
        raise UserError(
            f"reward.terms: unit_tests: no sandbox: {reason}; model-written code runs in one or not at all: "
            "mend this, or name a remote executor (args: {executor: http://HOST:PORT}); see docs/sandbox.md"
        )


# --- from a row and a response to a job ---


def _outcomes(
    completions: Sequence[Completion],
    mode: Sequence[Mode | None] | None,
    columns: Mapping[str, Sequence[Any] | None],
    executor: str | None,
    limits: Limits,
) -> Iterator[tuple[Outcome | None, dict[str, Any]]]:
    """Yield each completion's outcome, and its row."""
    for index, completion in enumerate(completions):
        row = {name: column[index] for name in COLUMNS if (column := columns.get(name))}
        yield _outcome(completion, mode[index] if mode else None, row, executor, limits), row


def _outcome(
    completion: Completion, mode: Mode | None, row: Mapping[str, Any], executor: str | None, limits: Limits
) -> Outcome | None:
    tests = job_tests(row)
    answer = final_answer(completion, mode)
    if tests is None or answer is None:
        return None if tests is None else Outcome([], "finished", "no answer")
    code = extract_code(answer, names_of(tests), is_script=tests["kind"] == "stdio")
    rest = _indented(completion, answer) if code == answer else code
    return _run(Job(program=_program(code, rest, row), **tests), executor, limits)


def _indented(completion: Completion, answer: str) -> str:
    """Return the answer with its first line's indentation, which `final_answer` takes away."""
    before = completion_text(completion).rstrip().removesuffix(answer)
    return before[len(before.rstrip(" \t")) :] + answer


def _program(code: str, rest: str, row: Mapping[str, Any]) -> str:
    """HumanEval's prompt is the beginning of a program; some models answer with the `rest` of it."""
    name, beginning = row.get("entry_point"), row.get("prompt")
    if not name or not isinstance(beginning, str) or defines(code, name.rpartition(".")[2]):
        return dedent(code) if code.lstrip("\r\n")[:1] in (" ", "\t") else code
    return beginning + rest


# --- running it ---


def _run(job: Job, executor: str | None, limits: Limits) -> Outcome:
    last = getattr(_own, "last", None)
    if last and last[0] == job:
        return last[1]
    outcome = _executor(executor, limits).run(job)
    _own.last = job, outcome
    return outcome


def _executor(url: str | None, limits: Limits) -> LocalExecutor | RemoteExecutor:
    """Return this thread's executor; containers die with their thread, so each has its own."""
    known: dict[Any, LocalExecutor | RemoteExecutor] = _own.__dict__.setdefault("executors", {})
    if (url, limits) not in known:
        if not url:
            check()
        known[url, limits] = RemoteExecutor(url, limits) if url else LocalExecutor(limits)
    return known[url, limits]


def _verdict(outcome: Outcome | None) -> float | None:
    return None if outcome is None or outcome.ended == "broken" else float(outcome.passed)


def _share(outcome: Outcome | None, row: Mapping[str, Any]) -> float | None:
    if outcome is None or outcome.ended == "broken":
        return None
    passed = sum(result.passed for result in outcome.results)
    # A check function's tests are counted as they come, so an early end is one that failed.
    came_to_end = outcome.ended == "finished"
    planned = len(row.get("test_list") or ()) or len(outcome.results) + (not came_to_end)
    return passed / max(planned, 1)
