"""Programming problems with tests on standard input and output, from the hub or local files.

By default `open-r1/verifiable-coding-problems-python`, a collection of APPS, TACO and CodeContests problems. Rows have
a text in `problem`, `problem_statement`, `question` or `description`, and tests in `input_output` (APPS, TACO: JSON
with `inputs`, `outputs` and maybe `fn_name`) or in `verification_info` (a list of `test_cases`).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read

INSTRUCTION = "Write a Python program that reads standard input and prints the answer, in one ```python block."
FUNCTION_INSTRUCTION = "Write the Python function `{name}` (or a class `Solution` with it), in one ```python block."
_TEXTS = ("problem", "problem_statement", "question", "description")


def prompts(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = "open-r1/verifiable-coding-problems-python",
    only_split: str = "train",
    most_tests: int = 20,
) -> Iterator[dict[str, Any]]:
    """Yield the problems of a split, each with its first `most_tests` tests; those without any are left out.

    `path`, `name` and `only_split` (empty for a set that has both splits): see `data.files.read`. Raises UserError
    naming file and line where rows are malformed.
    """
    rows = read(split, path=path, hub=name, key=_TEXTS, only_split=only_split)
    found = (_row(row, most_tests) for row in rows)
    return (row for row in found if row is not None)


def _row(row: Row, most_tests: int) -> dict[str, Any] | None:
    content = row.content if isinstance(row.content, dict) else {}
    text = next((content[column] for column in _TEXTS if isinstance(content.get(column), str)), None)
    if text is None:
        raise UserError(f"{row.place}: no text in column {' or '.join(map(repr, _TEXTS))}")
    try:
        tests = _tests(content)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{row.place}: no tests in column 'input_output' or 'verification_info'") from None
    if not tests["inputs"]:
        return None
    name = tests.get("fn_name")
    instruction = FUNCTION_INSTRUCTION.format(name=name) if name else INSTRUCTION
    return {
        "id": f"coding/{row.split}/{content.get('problem_id') or content.get('task_id') or row.line}",
        "messages": [{"role": "user", "content": f"{text.strip()}\n\n{instruction}"}],
        "domain": "code",
        "language": "en",
        "input_output": json.dumps(
            {**tests, "inputs": tests["inputs"][:most_tests], "outputs": tests["outputs"][:most_tests]}
        ),
    }


def _tests(content: Mapping[str, Any]) -> dict[str, Any]:
    if content.get("input_output"):
        pairs = content["input_output"]
        pairs = json.loads(pairs) if isinstance(pairs, str) else pairs
        return {name: pairs[name] for name in ("fn_name", "inputs", "outputs") if pairs.get(name) is not None}
    info = content["verification_info"]
    cases = (json.loads(info) if isinstance(info, str) else info)["test_cases"]
    name = next((case["fn_name"] for case in cases if case.get("fn_name")), None)
    inputs, outputs = ([case[side] for case in cases] for side in ("input", "output"))
    return {"inputs": inputs, "outputs": outputs, **({"fn_name": name} if name else {})}
