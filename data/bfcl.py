"""Single tool calls of the Berkeley Function-Calling Leaderboard, from local files (its rows are not on the hub whole).

Rows have `question` (turns, each a list of messages), `function` (specifications) and `ground_truth`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}


def prompts(split: str, *, path: str | Path, whole: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the questions with their `tools` for the chat template, `function` and `ground_truth` for the reward.

    `path` and `whole`: see `data.files.read`. Raises UserError naming file and line where rows are malformed.
    """
    return map(_row, read(split, path=path, hub="", key="id", whole=whole))


def _row(row: Row) -> dict[str, Any]:
    content = row.content if isinstance(row.content, dict) else {}
    try:
        messages, functions, expected = content["question"][0], list(content["function"]), content["ground_truth"]
    except (KeyError, IndexError, TypeError):
        raise UserError(f"{row.place}: rows need 'question', 'function' and 'ground_truth'") from None
    return {
        "id": f"bfcl/{row.split}/{content.get('id', row.line)}",
        "messages": messages,
        "domain": "tool_use",
        "language": "en",
        "tools": [{"type": "function", "function": _json_schema(function)} for function in functions],
        "function": functions,
        "ground_truth": expected,
    }


def _json_schema(value: Any) -> Any:
    """BFCL has type names of its own."""
    if isinstance(value, Mapping):
        named = {key: _json_schema(inner) for key, inner in value.items()}
        if isinstance(value.get("type"), str):
            named["type"] = _TYPES.get(value["type"], value["type"])
        return named
    return [_json_schema(item) for item in value] if isinstance(value, list) else value
