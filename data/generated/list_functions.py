"""Small Python functions on lists, composed of a filter, a mapping and a summary, with three ways to write each.

The tests' expected values come from running the composition; a response is a whole program in one ```python block.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple

from data.generating import Item, Maker, Response


class Step(NamedTuple):
    """What a step says, its expression in Python, and the function itself, given the parameter k."""

    words: str
    code: str
    run: Callable[[int, int], int]


class Summary(NamedTuple):
    """How the mapped numbers become the result."""

    words: str
    call: str
    """The expression over a list `values`."""
    start: str
    """Of a loop's total."""
    step: str
    """Of a loop, over `value`."""
    run: Callable[[Sequence[int]], int]


_FILTERS = (
    Step("that are even", "x % 2 == 0", lambda x, k: x % 2 == 0),
    Step("that are odd", "x % 2 == 1", lambda x, k: x % 2 == 1),
    Step("that are positive", "x > 0", lambda x, k: x > 0),
    Step("greater than {k}", "x > {k}", lambda x, k: x > k),
    Step("at most {k}", "x <= {k}", lambda x, k: x <= k),
    Step("divisible by {k}", "x % {k} == 0", lambda x, k: x % k == 0),
    Step("not divisible by {k}", "x % {k} != 0", lambda x, k: x % k != 0),
    Step("whose last digit is {k}", "abs(x) % 10 == {k}", lambda x, k: abs(x) % 10 == k),
)
_MAPS = (
    Step("squared", "x * x", lambda x, k: x * x),
    Step("doubled", "2 * x", lambda x, k: 2 * x),
    Step("negated", "-x", lambda x, k: -x),
    Step("increased by {k}", "x + {k}", lambda x, k: x + k),
    Step("multiplied by {k}", "x * {k}", lambda x, k: x * k),
    Step("taken modulo {k}", "x % {k}", lambda x, k: x % k),
    Step("replaced by their absolute value", "abs(x)", lambda x, k: abs(x)),
)
_SUMMARIES = (
    Summary("the sum", "sum(values)", "0", "total += value", sum),
    Summary(
        "how many different values there are", "len(set(values))", "set()", "total.add(value)", lambda v: len({*v})
    ),
    Summary("the largest (0 if there is none)", "max(values, default=0)", "None", "", lambda v: max(v, default=0)),
    Summary("the smallest (0 if there is none)", "min(values, default=0)", "None", "", lambda v: min(v, default=0)),
)
_INPUTS = 4


def _draw(draw: Random, summaries: Sequence[Summary]) -> Item:
    name, keep, change, summary = "f", draw.choice(_FILTERS), draw.choice(_MAPS), draw.choice(summaries)
    k, m = draw.randint(2, 9), draw.randint(2, 9)
    condition, value = keep.code.format(k=k), change.code.format(k=m)
    inputs = [[], *([draw.randint(-30, 60) for _ in range(draw.randint(3, 9))] for _ in range(_INPUTS))]
    results = [summary.run([change.run(x, m) for x in numbers if keep.run(x, k)]) for numbers in inputs]
    return Item(
        question=f"Write a Python function `{name}(numbers)`. Of the numbers {keep.words.format(k=k)}, each "
        f"{change.words.format(k=m)}, it returns {summary.words}. Give it in one ```python block.",
        responses=_programs(condition, value, summary),
        domain="code",
        task="list_function",
        columns={
            "test_list": [
                f"assert {name}({numbers}) == {result}" for numbers, result in zip(inputs, results, strict=True)
            ],
            "test_setup_code": "",
        },
    )


def _programs(condition: str, value: str, summary: Summary) -> tuple[Response, ...]:
    comprehension = f"    values = [{value} for x in numbers if {condition}]\n    return {summary.call}\n"
    functional = (
        f"    kept = filter(lambda x: {condition}, numbers)\n    values = list(map(lambda x: {value}, kept))\n"
        f"    return {summary.call}\n"
    )
    plan = f"Keep x where {condition}, turn it into {value}, then take {summary.call}."
    return (
        _response(plan, comprehension),
        _response(f"Go through the numbers one by one. {plan}", _loop(condition, value, summary)),
        _response(f"As a chain of filter and map. {plan}", functional),
    )


def _loop(condition: str, value: str, summary: Summary) -> str:
    head = f"    for x in numbers:\n        if {condition}:\n            value = {value}\n"
    if summary.step:
        result = "len(total)" if summary.start == "set()" else "total"
        return f"    total = {summary.start}\n{head}            {summary.step}\n    return {result}\n"
    sign = ">" if summary.call.startswith("max") else "<"
    return (
        f"    best = None\n{head}            if best is None or value {sign} best:\n                best = value\n"
        "    return 0 if best is None else best\n"
    )


def _response(thinking: str, body: str) -> Response:
    return Response(content=f"```python\ndef f(numbers):\n{body}```", thinking=thinking)


MAKERS: Mapping[str, Maker] = {
    "sums": lambda draw: _draw(draw, _SUMMARIES[:1]),
    "counts": lambda draw: _draw(draw, _SUMMARIES[1:2]),
    "extremes": lambda draw: _draw(draw, _SUMMARIES[2:]),
}
