"""Software tasks whose answer is a Python module that tests can judge: the `test_list` of `rewards.unit_tests`.

bug_fix     an issue and a small project in which one file has a bug; the answer is the mended file
sql         a question about a table; the answer loads the rows into SQLite and asks
rest        a handler for the requests on a resource
regex       a check of a text's form
test_cases  cases that a right implementation passes and a wrong one does not
"""

from collections.abc import Mapping
from pprint import pformat
from random import Random

from data.generated.software_projects import RESOURCES, Project, Resource, draw_project
from data.generating import Item, Maker, Response

_WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "hazel", "iris", "karst", "maple", "opal")


def _bug_fix(draw: Random) -> Item:
    project = draw_project(draw)
    question = (
        f"Issue: {project.issue}\n\nThe project:\n\n{project.shown()}\n\n"
        f"Give the whole mended `{project.file}` in one ```python block."
    )
    return Item(
        question=question,
        responses=(Response(f"{project.why}\n\n```python\n{project.right}```", _hunt(project)),),
        domain="code",
        task="bug_fix",
        columns={"test_list": [f"assert {test}" for test in project.tests], "test_setup_code": ""},
        key=project.wrong,
    )


def _hunt(project: Project) -> str:
    return f"The issue is about `{project.bug.name}` in {project.file}. {project.why} The other functions are fine."


# --- SQL ---


def _sql(draw: Random) -> Item:
    resource, limit = draw.choice(RESOURCES), draw.randint(10, 90)
    rows = [(draw.choice(_WORDS), draw.choice(resource.groups), draw.randint(1, 100)) for _ in range(12)]
    wanted, query, result = draw.choice((_filtered, _grouped, _highest))(resource, rows, limit)
    table = f"{resource.many}({resource.label} text, {resource.group} text, {resource.number} integer)"
    program = (
        "import sqlite3\n\n\ndef report(rows):\n"
        '    connection = sqlite3.connect(":memory:")\n'
        f'    connection.execute("create table {table}")\n'
        f'    connection.executemany("insert into {resource.many} values (?, ?, ?)", rows)\n'
        f'    return connection.execute("{query}").fetchall()\n'
    )
    return Item(
        question=f"A table is {table}. Write a Python function `report(rows)` that loads the rows (tuples in the "
        "order of "
        f"the columns) into an in-memory SQLite table and answers with one SQL query: {wanted}. "
        "It returns a list of tuples. Give it in one ```python block.",
        responses=(Response(f"```python\n{program}```", f"The query is: {query}"),),
        domain="code",
        task="sql",
        columns={
            "test_list": [
                f"assert [tuple(row) for row in report({rows})] == {result}",
                "assert list(report([])) == []",
            ],
            "test_setup_code": "",
        },
    )


_Rows = list[tuple[str, str, int]]


def _filtered(resource: Resource, rows: _Rows, limit: int) -> tuple[str, str, list[tuple]]:
    label, _, number = resource.label, resource.group, resource.number
    wanted = f"the {label} and {number} of those with {number} above {limit}, ordered by {number}, then {label}"
    query = f"select {label}, {number} from {resource.many} where {number} > {limit} order by {number}, {label}"
    found = sorted((value, name) for name, _, value in rows if value > limit)
    return wanted, query, [(name, value) for value, name in found]


def _grouped(resource: Resource, rows: _Rows, limit: int) -> tuple[str, str, list[tuple]]:
    group, number = resource.group, resource.number
    wanted = f"of those with {number} at least {limit}, for each {group} their count and sum of {number}, by {group}"
    table = f"{resource.many} where {number} >= {limit}"
    query = f"select {group}, count(*), sum({number}) from {table} group by {group} order by {group}"
    kept = [row for row in rows if row[2] >= limit]
    groups = sorted({row[1] for row in kept})
    values = [[row[2] for row in kept if row[1] == name] for name in groups]
    return wanted, query, [(name, len(found), sum(found)) for name, found in zip(groups, values, strict=True)]


def _highest(resource: Resource, rows: _Rows, limit: int) -> tuple[str, str, list[tuple]]:
    group, number = resource.group, resource.number
    wanted = f"the highest {number} of each {group} whose highest is above {limit}, highest first, then by {group}"
    groups = f"{resource.many} group by {group} having max({number}) > {limit}"
    query = f"select {group}, max({number}) from {groups} order by 2 desc, 1"
    best = {name: max(row[2] for row in rows if row[1] == name) for name in {row[1] for row in rows}}
    return wanted, query, sorted(((n, v) for n, v in best.items() if v > limit), key=lambda pair: (-pair[1], pair[0]))


# --- requests ---


def _rest(draw: Random) -> Item:
    resource, least, most = draw.choice(RESOURCES), draw.randint(0, 9), draw.randint(20, 400)
    label, number, many = resource.label, resource.number, resource.many
    missing, invalid = draw.choice((404, 410)), draw.choice((400, 422))
    program = (
        "def handle(method, path, body, store):\n"
        f'    parts = path.strip("/").split("/")\n    if parts[0] != "{many}" or len(parts) > 2:\n'
        "        return 404, None, store\n    key = parts[1] if len(parts) == 2 else None\n"
        "    if key is not None and key not in store:\n"
        f"        return {missing}, None, store\n"
        '    if method == "GET":\n        return 200, store[key] if key else sorted(store), store\n'
        '    if method == "DELETE" and key:\n'
        "        return 204, None, {k: v for k, v in store.items() if k != key}\n"
        '    if method == "POST" and key is None:\n'
        f'        if not body.get("{label}") or not {least} <= body.get("{number}", -1) <= {most}:\n'
        f"            return {invalid}, None, store\n"
        "        new = str(len(store) + 1)\n        return 201, new, {**store, new: body}\n"
        "    return 405, None, store\n"
    )
    good, item = {label: "amber", number: most}, {label: "birch", number: least}
    store = {"1": item}
    tests = (
        f'handle("GET", "/{many}", None, {store}) == (200, ["1"], {store})',
        f'handle("GET", "/{many}/1", None, {store}) == (200, {item}, {store})',
        f'handle("GET", "/{many}/9", None, {store}) == ({missing}, None, {store})',
        f'handle("DELETE", "/{many}/1", None, {store}) == (204, None, {{}})',
        f'handle("POST", "/{many}", {good}, {store}) == (201, "2", {store | {"2": good}})',
        f'handle("POST", "/{many}", {good | {number: most + 1}}, {{}}) == ({invalid}, None, {{}})',
        f'handle("PUT", "/{many}", {good}, {{}}) == (405, None, {{}})',
    )
    return Item(
        question=f"Write a Python function `handle(method, path, body, store)` for the resource /{many}. `store` "
        "maps ids "
        f"(texts) to items; it returns (status, body, new store) and changes nothing in place. GET /{many}: 200 "
        "and the "
        f"sorted ids. GET /{many}/ID: 200 and the item. DELETE /{many}/ID: 204. POST /{many}: 201 and the new id, the "
        f"number of items plus 1; {invalid} where {label} is missing or empty, or {number} is not from {least} to "
        f"{most}. "
        f"An unknown id: {missing}; another path: 404; another method: 405. Where there is no body to answer with "
        "it is "
        "None. Give it in one ```python block.",
        responses=(
            Response(
                f"```python\n{program}```", "Path first, then the id, then the method; each answer has three parts."
            ),
        ),
        domain="code",
        task="rest",
        columns={
            "test_list": [f"assert tuple({call}) == {rest}" for call, rest in map(_halves, tests)],
            "test_setup_code": "",
        },
    )


def _halves(test: str) -> tuple[str, str]:
    call, _, expected = test.partition(" == ")
    return call, expected


# --- forms of texts ---


def _regex(draw: Random) -> Item:
    letters, digits, mark = draw.randint(2, 5), draw.randint(2, 6), draw.choice("-_/.:")
    case, kind = draw.choice((("A-Z", "capital"), ("a-z", "small"))), draw.choice(("code", "version", "tag"))
    tail = draw.randint(2, 4)
    example = ("Q" if case[0] == "A-Z" else "q") * letters
    pattern = rf"[{case[0]}]{{{letters}}}[{mark}][0-9]{{{digits}}}(?:[{mark}][0-9]{{1,{tail}}})?"
    good = [f"{example}{mark}{'7' * digits}", f"{example}{mark}{'0' * digits}{mark}{'1' * tail}"]
    bad = [
        f"{example}{'7' * digits}",
        f"{good[0]}{mark}",
        f"{example}x{good[0]}",
        f"{good[0]}{mark}{'1' * (tail + 1)}",
        good[0][1:],
    ]
    name = f"is_{kind}"
    return Item(
        question=f"Write a Python function `{name}(text)` that says whether a text is exactly {letters} {case[1]} "
        "letters "
        f"from {case[0][0]} to {case[0][2]}, then `{mark}`, then {digits} digits, and optionally `{mark}` and 1 "
        f"to {tail} more "
        "digits. Use a regular expression. Give it in one ```python block.",
        responses=(
            Response(
                f'```python\nimport re\n\n\ndef {name}(text):\n    return re.fullmatch(r"{pattern}", text) is not '
                "None\n```",
                f"The whole text has to match: {pattern}",
            ),
        ),
        domain="code",
        task="regex",
        columns={
            "test_list": [
                *(f"assert {name}({text!r})" for text in good),
                *(f"assert not {name}({text!r})" for text in bad),
            ],
            "test_setup_code": "",
        },
    )


# --- tests ---


def _test_cases(draw: Random) -> Item:
    low, high = sorted(draw.sample(range(-20, 120), 2))
    step = draw.randint(1, 9)
    name, article = draw.choice((("clamp", "the number"), ("limited", "the amount"), ("bounded", "the value")))
    words = f"{article} itself, but {low} where it is less, {high} where it is more, and then {step} added"
    right = f"def {name}(x):\n    return min(max(x, {low}), {high}) + {step}\n"
    wrong = (
        f"def wrong_1(x):\n    return min(x, {high}) + {step}\n",
        f"def wrong_2(x):\n    return max(x, {low}) + {step}\n",
        f"def wrong_3(x):\n    return min(max(x, {low}), {high})\n",
    )
    cases = [(low - 5, low + step), (low, low + step), (high, high + step), (high + 5, high + step)]
    return Item(
        question=f"`{name}(x)` should return {words}. Write a Python function `cases()` that returns a list of pairs "
        "(x, expected result), so that a wrong implementation fails at least one of them. "
        "Give it in one ```python block.",
        responses=(
            Response(
                f"```python\ndef cases():\n    return {pformat(cases)}\n```",
                f"Below, at and above both limits. Below {low}: {low} + {step} = {low + step}. "
                f"Above {high}: {high} + {step} = {high + step}.",
            ),
        ),
        domain="code",
        task="test_cases",
        columns={
            "test_list": [
                f"assert cases() and all({name}(x) == result for x, result in cases())",
                *(f"assert any(wrong_{n}(x) != result for x, result in cases())" for n in (1, 2, 3)),
            ],
            "test_setup_code": "\n".join((right, *wrong)),
        },
    )


MAKERS: Mapping[str, Maker] = {
    "bug_fix": _bug_fix,
    "sql": _sql,
    "rest": _rest,
    "regex": _regex,
    "test_cases": _test_cases,
}
