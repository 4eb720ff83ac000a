"""From a row of a public set to the tests that the sandbox runs.

Columns are the public sets' own:

    test, entry_point (prompt)              HumanEval: a function `check(candidate)`
    test_list (test_setup_code, code)       MBPP: assert statements
    input_output                            APPS, TACO: {"inputs": …, "outputs": …}, with `fn_name` or for a script
    public_test_cases, private_test_cases   LiveCodeBench: [{"input": …, "output": …, "testtype": …}]
    (metadata)

Arguments and values of functions are JSON, or, as LiveCodeBench has them, texts with a line of JSON each.
"""

import builtins
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agapo.sandbox.names import bound, called, parses, records

COLUMNS = (
    "test",
    "entry_point",
    "prompt",
    "test_list",
    "test_setup_code",
    "code",
    "input_output",
    "public_test_cases",
    "private_test_cases",
    "metadata",
)


def job_tests(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a `Job` that hold its tests; None where the row has none, or none that can be read."""
    if isinstance(row.get("test"), str) and isinstance(row.get("entry_point"), str):
        return _check(row)
    if row.get("test_list"):
        return _asserts(row)
    if row.get("input_output"):
        return _input_output(row["input_output"])
    return _test_cases(row)


def names_of(tests: Mapping[str, Any]) -> set[str]:
    """Return what the program has to define: what the tests call that neither they nor Python define."""
    if tests["kind"] != "asserts":
        return {tests["entry_point"].rpartition(".")[2]} - {""} if "entry_point" in tests else set()
    wanted = _free_calls(tests["tests"], tests["setup"])
    return {name for name in wanted if not hasattr(builtins, name) or name in tests["names"]}


# --- HumanEval ---


def _check(row: Mapping[str, Any]) -> dict[str, Any]:
    prompt = row.get("prompt") or ""
    # A function's head alone is no program yet; and some sets have prose in this column.
    whole = (text for text in (prompt, f"{prompt.rstrip()}\n    pass\n") if parses(text))
    return {"kind": "check", "test": row["test"], "entry_point": row["entry_point"], "setup": next(whole, "")}


# --- MBPP ---


def _asserts(row: Mapping[str, Any]) -> dict[str, Any]:
    tests, code = tuple(map(str, row["test_list"])), row.get("code") or ""
    setup = row.get("test_setup_code") or ""
    setup = "\n".join([*records(code, setup), setup])
    names = re.findall(r"^(?:def|class)\s+(\w+)", code, re.MULTILINE) or _of_python(tests, setup)
    return {"kind": "asserts", "tests": tests, "setup": setup, "names": tuple(names)}


def _of_python(tests: Sequence[str], setup: str) -> set[str]:
    """Names of Python's own that tests mean as the program's (an exercise to write `sum`): they call nothing else."""
    wanted = _free_calls(tests, setup)
    return wanted if all(hasattr(builtins, name) for name in wanted) else set()


def _free_calls(tests: Sequence[str], setup: str) -> set[str]:
    """The names that tests call and neither they nor the set-up define."""
    return called(*tests) - bound(setup, *tests)


# --- inputs and outputs ---


def _input_output(content: Any) -> dict[str, Any] | None:
    try:
        pairs = json.loads(content) if isinstance(content, str) else content
        inputs, outputs = (_listed(pairs[side]) for side in ("inputs", "outputs"))
    except (ValueError, TypeError, KeyError):
        return None
    return _paired(inputs, outputs, pairs.get("fn_name"))


def _listed(side: Any) -> list[Any]:
    """Some sets give a single test without a list."""
    return [side] if isinstance(side, str) else list(side)


def _paired(inputs: list[Any], outputs: list[Any], name: Any) -> dict[str, Any] | None:
    if not inputs or len(inputs) != len(outputs):
        return None
    if name:
        return {"kind": "calls", "entry_point": str(name), "inputs": inputs, "outputs": outputs}
    return {"kind": "stdio", "inputs": [_text(item) for item in inputs], "outputs": [_text(item) for item in outputs]}


def _text(item: Any) -> str:
    """Some sets give a text as its lines."""
    return "\n".join(map(str, item)) if isinstance(item, list) else str(item)


def _test_cases(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """LiveCodeBench's columns; None also where only some of the tests can be read: they would ask for less."""
    columns = [row[name] for name in ("public_test_cases", "private_test_cases") if row.get(name)]
    try:
        cases = [case for column in columns for case in (json.loads(column) if isinstance(column, str) else column)]
        about = row.get("metadata") or {}
        name = (json.loads(about) if isinstance(about, str) else about).get("func_name")
        inputs, outputs = ([case[side] for case in cases] for side in ("input", "output"))
        is_functional = any(case.get("testtype") == "functional" for case in cases)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if is_functional and not name:
        return None
    return _paired(inputs, outputs, name if is_functional else None)
