"""Programming problems with tests on standard input and output, from the hub or local files.

By default `open-r1/verifiable-coding-problems-python`, a collection of APPS, TACO and CodeContests problems. Rows have
a text in `problem`, `problem_statement`, `question`, `question_content` or `description`, and tests in one of

    input_output                              APPS, TACO: JSON with `inputs`, `outputs` and maybe `fn_name`
    verification_info                         a list of `test_cases`
    public_test_cases, private_test_cases     LiveCodeBench, with `metadata` and `starter_code`; as JSON, or packed as
                                              the private ones are published
"""

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read

INSTRUCTION = "Write a Python program that reads standard input and prints the answer, in one ```python block."
FUNCTION_INSTRUCTION = "Write the Python function `{name}` (or a class `Solution` with it), in one ```python block."
STARTER = "It begins like this:\n\n```python\n{code}\n```"
_TEXTS = ("problem", "problem_statement", "question", "question_content", "description")


def prompts(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = "open-r1/verifiable-coding-problems-python",
    only_split: str = "train",
    most_tests: int = 20,
    whole: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the problems of a split, each with its first `most_tests` tests; those without any are left out.

    `path`, `name`, `whole` and `only_split` (empty for a set that has both splits): see `data.files.read`. Raises
    UserError naming file and line where rows are malformed.
    """
    rows = read(split, path=path, hub=name, key=_TEXTS, only_split=only_split, whole=whole)
    found = (_row(row, most_tests) for row in rows)
    return (row for row in found if row is not None)


def _row(row: Row, most_tests: int) -> dict[str, Any] | None:
    content = row.content if isinstance(row.content, dict) else {}
    text = next((content[column] for column in _TEXTS if isinstance(content.get(column), str)), None)
    if text is None:
        raise UserError(f"{row.place}: no text in column {' or '.join(map(repr, _TEXTS))}")
    tests = _readable_tests(content, row.place)
    if not tests["inputs"]:
        return None
    name = tests.get("fn_name")
    instruction = FUNCTION_INSTRUCTION.format(name=name) if name else INSTRUCTION
    starter = [STARTER.format(code=code)] if name and (code := str(content.get("starter_code") or "").rstrip()) else []
    number = content.get("problem_id") or content.get("task_id") or content.get("question_id") or row.line
    return {
        "id": f"coding/{row.split}/{number}",
        "messages": [{"role": "user", "content": "\n\n".join([text.strip(), *starter, instruction])}],
        "domain": "code",
        "language": "en",
        "input_output": json.dumps(
            {**tests, "inputs": tests["inputs"][:most_tests], "outputs": tests["outputs"][:most_tests]}
        ),
    }


def _readable_tests(content: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the tests. Raises UserError where there are none, or some that the sandbox could not read."""
    try:
        tests = _tests(content)
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error, pickle.UnpicklingError):
        names = "'input_output', 'verification_info' or 'public_test_cases'"
        raise UserError(f"{place}: no tests in column {names}") from None
    if len(tests["inputs"]) != len(tests["outputs"]):
        sizes = f"{len(tests['inputs'])} inputs and {len(tests['outputs'])} outputs"
        raise UserError(f"{place}: the tests have {sizes}; give one output an input")
    for text in (item for item in tests["inputs"] if tests.get("fn_name") and isinstance(item, str)):
        for line in filter(str.strip, text.split("\n")):
            if not _is_value(line):
                raise UserError(
                    f"{place}: the tests of '{tests['fn_name']}' have {line[:60]!r} for an argument, which is not JSON"
                )
    return tests


def _is_value(text: str) -> bool:
    """JSON, or Python, which some sets wrote where JSON was meant."""
    for read_value in (json.loads, ast.literal_eval):
        try:
            read_value(text)
        except (ValueError, SyntaxError):
            continue
        return True
    return False


def _tests(content: Mapping[str, Any]) -> dict[str, Any]:
    if content.get("input_output"):
        return _pairs(_parsed(content["input_output"]))
    if content.get("public_test_cases") or content.get("private_test_cases"):
        cases = [*_parsed(content.get("public_test_cases") or []), *_unpacked(content.get("private_test_cases") or [])]
        is_functional = any(case.get("testtype") == "functional" for case in cases)
        return _cases(cases, _parsed(content.get("metadata") or {})["func_name"] if is_functional else None)
    cases = _parsed(content["verification_info"])["test_cases"]
    return _cases(cases, next((case["fn_name"] for case in cases if case.get("fn_name")), None))


def _parsed(column: Any) -> Any:
    return json.loads(column) if isinstance(column, str) else column


def _pairs(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Some sets give a single test without a list."""
    sides = {
        name: [pairs[name]] if isinstance(pairs[name], str) else list(pairs[name]) for name in ("inputs", "outputs")
    }
    return {**({"fn_name": pairs["fn_name"]} if pairs.get("fn_name") else {}), **sides}


def _cases(cases: Sequence[Mapping[str, Any]], name: str | None) -> dict[str, Any]:
    inputs, outputs = ([case[side] for case in cases] for side in ("input", "output"))
    return {"inputs": inputs, "outputs": outputs, **({"fn_name": name} if name else {})}


def _unpacked(column: Any) -> Any:
    """Tests as JSON, or as a pickled text of it, compressed, in base 64."""
    try:
        return _parsed(column)
    except ValueError:
        return json.loads(_TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(column)))).load())


class _TextOnly(pickle.Unpickler):
    """Unpickles texts and other plain values: a class or a function would be a way to run code."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not plain data")
