"""Did the response make the expected tool calls? As the AST check of the Berkeley Function-Calling Leaderboard does.

A call is right when its function is, when no argument is missing, too many, or of the wrong type, and when each value
is one of those that are accepted. Several calls may come in any order. They stand in `<tool_call>` tags, or in the own
field of a message; where a completion is several messages, the calls of all the assistant's turns count.

Rows keep BFCL's columns: `function`, the specifications, and `ground_truth`, a list of `{function: {argument: [accepted
values]}}`, in which an accepted "" means that the argument may be left out.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agapo.chat import Completion, final_answer, parse_tool_calls
from agapo.schema import Mode

Column = Sequence[Any] | None

_TYPES: dict[str, type | tuple[type, ...]] = {
    "integer": int,
    "number": (int, float),
    "float": (int, float),
    "string": str,
    "boolean": bool,
    "array": (list, tuple),
    "tuple": (list, tuple),
    "dict": dict,
    "object": dict,
}
"""JSON schema's types, and BFCL's own; any other (`any`) takes everything."""


def score(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    function: Column = None,
    ground_truth: Column = None,
    mode: Sequence[Mode | None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Return 1.0 where the answer makes exactly the expected calls, 0.0 where not, None for rows that expect nothing.

    An empty `ground_truth` expects an answer without calls. Both columns may be JSON text.
    """
    nothing = [None] * len(completions)
    samples = zip(completions, function or nothing, ground_truth or nothing, mode or nothing, strict=True)
    return [_score(*sample) for sample in samples]


def _score(completion: Completion, function: Any, ground_truth: Any, mode: Mode | None) -> float | None:
    try:
        expected, specifications = _expected(ground_truth), _specifications(function)
    except (ValueError, TypeError, AttributeError, KeyError, StopIteration):
        return None
    answers = [final_answer(turn, None if _is_parsed(completion) else mode) for turn in _turns(completion)]
    if None in answers or not answers:
        return 0.0
    try:
        calls = [call for answer in answers for call in parse_tool_calls(answer or "")]
    except ValueError:
        return 0.0
    return float(len(calls) == len(expected) and _match(calls, expected, specifications))


def _turns(completion: Completion) -> list[Completion]:
    """Return the assistant's turns, each as a completion of its own; the results of tools stand between them."""
    if isinstance(completion, str):
        return [completion]
    return [[turn] for turn in completion if turn.get("role", "assistant") == "assistant"]


def _is_parsed(completion: Completion) -> bool:
    """Did a server part thinking and calls from the content? Then what is left there is no thinking, in any turn."""
    fields = ("tool_calls", "function_call", "reasoning_content")
    return not isinstance(completion, str) and any(turn.get(field) for turn in completion for field in fields)


def _expected(ground_truth: Any) -> list[tuple[str, dict[str, list[Any]]]]:
    """Return the expected calls as (function, {argument: accepted values})."""
    rows = _parsed(ground_truth)
    if not isinstance(rows, list):
        raise TypeError("ground_truth should be a list")
    calls = [next(iter(row.items())) for row in rows]
    # Data frames fill the arguments that a function lacks with None.
    return [
        (name, {key: values for key, values in arguments.items() if isinstance(values, list)})
        for name, arguments in calls
    ]


def _specifications(function: Any) -> dict[str, Mapping[str, Any]]:
    """Return each function's `parameters`."""
    found = _parsed(function) or []
    found = [found] if isinstance(found, Mapping) else found
    inner = [item.get("function", item) for item in found]
    return {item["name"]: item.get("parameters") or {} for item in inner}


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _match(
    calls: Sequence[Mapping[str, Any]],
    expected: Sequence[tuple[str, Mapping[str, list[Any]]]],
    specifications: Mapping[str, Mapping[str, Any]],
) -> bool:
    """Can each call be given an expected one of its own? (Bipartite matching: the first that fits may be another's.)"""
    fits = [[_is_call(call, name, arguments, specifications) for name, arguments in expected] for call in calls]
    taken: dict[int, int] = {}

    def place(call: int, seen: set[int]) -> bool:
        for number, fit in enumerate(fits[call]):
            if fit and number not in seen:
                seen.add(number)
                if number not in taken or place(taken[number], seen):
                    taken[number] = call
                    return True
        return False

    return all(place(call, set()) for call in range(len(calls)))


def _is_call(
    call: Mapping[str, Any],
    name: str,
    accepted: Mapping[str, list[Any]],
    specifications: Mapping[str, Mapping[str, Any]],
) -> bool:
    # Names with dots are written with underscores where a model's format has none.
    if call["name"] not in (name, name.replace(".", "_")):
        return False
    specification = specifications.get(name, {})
    properties, given = specification.get("properties") or {}, call["arguments"]
    if any(required not in given for required in specification.get("required") or ()):
        return False
    if any(key not in given and "" not in values for key, values in accepted.items()):
        return False
    return all(key in accepted and _is_value(given[key], accepted[key], properties.get(key) or {}) for key in given)


def _is_value(value: Any, accepted: Sequence[Any], specification: Mapping[str, Any]) -> bool:
    return _has_type(value, specification) and any(_is_same(value, one) for one in accepted if one != "" or value == "")


def _has_type(value: Any, specification: Mapping[str, Any]) -> bool:
    wanted = _TYPES.get(str(specification.get("type")))
    if wanted is None:
        return True
    if isinstance(value, bool) and wanted is not bool:
        return False
    if not isinstance(value, wanted):
        return False
    items = specification.get("items")
    return not (isinstance(value, list) and items) or all(_has_type(item, items) for item in value)


def _is_same(value: Any, accepted: Any) -> bool:
    if isinstance(value, bool) or isinstance(accepted, bool):
        return value is accepted
    if isinstance(value, str) and isinstance(accepted, str):
        return _standard(value) == _standard(accepted)
    if isinstance(value, list) and isinstance(accepted, list | tuple):
        return len(value) == len(accepted) and all(map(_is_same, value, accepted))
    if isinstance(value, dict) and isinstance(accepted, dict):
        return _is_same_dict(value, accepted)
    return value == accepted


def _is_same_dict(value: Mapping[str, Any], accepted: Mapping[str, Any]) -> bool:
    """BFCL gives a list of accepted values for each key of a nested dict; that list itself is no value."""
    if any(key not in accepted for key in value):
        return False
    for key, values in accepted.items():
        options = values if isinstance(values, list) else [values]
        if key not in value:
            if "" not in options:
                return False
        elif not any(_is_same(value[key], option) for option in options):
            return False
    return True


def _standard(text: str) -> str:
    """As BFCL compares strings: without spaces, case, some punctuation, and with one kind of quotes."""
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')
