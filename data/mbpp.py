"""MBPP: mostly basic Python problems with assert tests (Austin et al., arXiv 2108.07732), from the hub or local files.

Rows have `text` (or `prompt`, in the sanitized version), `test_list`, and maybe `test_setup_code`, `test_imports` and
`code`, the reference solution, which is never shown.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from agapo.sandbox.names import handed_functions, records
from data.files import Row, read

INSTRUCTION = "Write the function in Python, in one ```python block. It should pass tests like these:"


def prompts(
    split: str, *, path: str | Path | None = None, name: str = "google-research-datasets/mbpp", config: str = "full"
) -> Iterator[dict[str, Any]]:
    """Yield the problems of a split, with the first test shown, since it tells the function's name and form.

    Where the tests hand over objects of a class that holds values (a tree's `Node`), the class is shown too.

    `path` and `name`: see `data.files.read`. Raises UserError naming file and line where rows are malformed.
    """
    return map(_row, read(split, path=path, hub=name, config=config, key="task_id"))


def _row(row: Row) -> dict[str, Any]:
    content = row.content if isinstance(row.content, dict) else {}
    task, tests = content.get("text") or content.get("prompt"), content.get("test_list")
    if not isinstance(task, str) or not isinstance(tests, list) or not tests:
        raise UserError(f"{row.place}: rows need 'text' (or 'prompt') and a list in 'test_list'")
    imports = "\n".join(content.get("test_imports") or ())
    setup = "\n".join(part for part in (imports, content.get("test_setup_code")) if part)
    if handed := handed_functions(setup, *map(str, tests)):
        raise UserError(
            f"{row.place}: column 'test_list' hands {handed[0]!r} to the program, which cannot reach it there; "
            "define it by name in 'test_setup_code', which runs on both sides"
        )
    classes = records(content.get("code") or "", setup)
    shown = "\n\n".join([*classes, tests[0]])
    return {
        "id": f"mbpp/{row.split}/{content.get('task_id', row.line)}",
        "messages": [{"role": "user", "content": f"{task.strip()}\n\n{INSTRUCTION}\n\n```python\n{shown}\n```"}],
        "domain": "code",
        "language": "en",
        "test_list": tests,
        "test_setup_code": "\n".join([*classes, setup]),
        "code": content.get("code") or "",
    }
