"""Small made-up projects with one bug: a shop, a library, a clinic and the like."""

from collections.abc import Mapping
from random import Random
from string import Template
from typing import NamedTuple


class Resource(NamedTuple):
    """What a made-up application is about."""

    one: str
    many: str
    label: str
    """Its text field."""
    group: str
    """Its field with few values."""
    groups: tuple[str, ...]
    number: str
    """Its number field."""


RESOURCES = (
    Resource("product", "products", "name", "category", ("garden", "kitchen", "office"), "price"),
    Resource("book", "books", "title", "genre", ("crime", "poetry", "travel"), "pages"),
    Resource("patient", "patients", "name", "ward", ("east", "north", "west"), "age"),
    Resource("course", "courses", "title", "level", ("basic", "expert", "middle"), "seats"),
    Resource("invoice", "invoices", "customer", "status", ("due", "open", "paid"), "amount"),
    Resource("ticket", "tickets", "subject", "queue", ("billing", "sales", "support"), "priority"),
    Resource("flight", "flights", "code", "airline", ("blue", "nordic", "sun"), "minutes"),
    Resource("employee", "employees", "name", "team", ("design", "legal", "web"), "salary"),
    Resource("recipe", "recipes", "title", "course", ("dessert", "main", "soup"), "minutes"),
    Resource("sensor", "sensors", "label", "site", ("cellar", "hall", "roof"), "reading"),
    Resource("match", "matches", "title", "league", ("east", "first", "youth"), "goals"),
    Resource("parcel", "parcels", "address", "depot", ("harbour", "hill", "south"), "weight"),
)


class Bug(NamedTuple):
    """A function, right and wrong, what users see of it, and tests. `$one` and the like are the resource's words."""

    issue: str
    name: str
    right: str
    """Lines of the module."""
    wrong: tuple[str, str]
    """(what the right lines have, what stands there instead)."""
    why: str
    tests: tuple[str, ...]


BUGS = (
    Bug(
        "Page 1 of the $one list shows what should be on page 2.",
        "page_of",
        'def page_of($many, page):\n    """Return one page of $size; the first page is 1."""\n'
        "    start = (page - 1) * $size\n    return $many[start : start + $size]\n",
        ("(page - 1) * $size", "page * $size"),
        "Pages count from 1, the offset from 0, so it is (page - 1) * $size.",
        ("page_of(list(range(200)), 1) == list(range($size))", "page_of(list(range(200)), 3)[0] == 2 * $size"),
    ),
    Bug(
        "The $one list for $number below $limit also has those of exactly $limit.",
        "below",
        'def below($many, limit=$limit):\n    """Return the $label of those $many that have less than the limit."""\n'
        '    return [item["$label"] for item in $many if item["$number"] < limit]\n',
        ('item["$number"] < limit', 'item["$number"] <= limit'),
        "`below` excludes the limit, so the comparison is <.",
        (
            'below([{"$label": "a", "$number": $limit}]) == []',
            'below([{"$label": "a", "$number": $limit - 1}, {"$label": "b", "$number": $limit + 1}]) == ["a"]',
        ),
    ),
    Bug(
        "GET /$many/stats answers 500 (ZeroDivisionError) as long as there is no $one.",
        "average",
        'def average($many, digits=$size):\n    """Return the mean $number, 0 without any $one."""\n'
        "    if not $many:\n        return 0\n"
        '    return round(sum(item["$number"] for item in $many) / len($many), digits)\n',
        ("    if not $many:\n        return 0\n", ""),
        "Without any $one the length is 0, so the function has to return before it divides.",
        ("average([]) == 0", 'average([{"$number": $limit}, {"$number": $limit + 4}]) == $limit + 2'),
    ),
    Bug(
        'Searching $many for " AMBER" finds nothing, though "amber" is there (page size $size).',
        "search",
        'def search($many, text, most=$size):\n    """Return the $many whose $label holds the text, in any case."""\n'
        "    needle = text.strip().lower()\n"
        '    return [item for item in $many if needle in item["$label"].lower()][:most]\n',
        ("text.strip().lower()", "text"),
        "The $label is lowered but the text is not: strip and lower it too.",
        (
            'search([{"$label": "Amber"}], " AMBER ") == [{"$label": "Amber"}]',
            'search([{"$label": "birch"}], "amber") == []',
        ),
    ),
    Bug(
        "A new $group starts with the $many of the one before (limit $limit).",
        "add",
        'def add($one, $many=None):\n    """Return the $many with one more, at most $limit."""\n'
        "    $many = [] if $many is None else $many\n    $many.append($one)\n    return $many[:$limit]\n",
        (
            "$many=None):\n"
            '    """Return the $many with one more, at most $limit."""\n    $many = [] if $many is None else $many\n',
            '$many=[]):\n    """Return the $many with one more, at most $limit."""\n',
        ),
        "A default list is made once and shared by all calls; use None and make a new one.",
        ('[add("a"), add("b")] == [["a"], ["b"]]', 'add("c", ["a"]) == ["a", "c"]'),
    ),
    Bug(
        "Changing the $number of a $one (to $limit, say) is answered with 200 but nothing changes.",
        "update",
        'def update($one, changes):\n    """Return the $one with the changes; a missing $number is $limit."""\n'
        '    return {"$number": $limit, **$one, **changes}\n',
        ("**$one, **changes", "**changes, **$one"),
        "The later of two equal keys wins, so the changes come last.",
        (
            'update({"$number": 1}, {"$number": $limit}) == {"$number": $limit}',
            'update({"$label": "a"}, {}) == {"$number": $limit, "$label": "a"}',
        ),
    ),
    Bug(
        "The top $size list of $many starts with the lowest $number.",
        "top",
        'def top($many, count=$size):\n    """Return the $label of those with the highest $number, highest first."""\n'
        '    ordered = sorted($many, key=lambda item: item["$number"], reverse=True)\n'
        '    return [item["$label"] for item in ordered[:count]]\n',
        (", reverse=True", ""),
        "sorted is ascending; the highest come first with reverse=True.",
        (
            'top([{"$label": "a", "$number": 1}, {"$label": "b", "$number": $limit}]) == ["b", "a"]',
            'top([{"$label": "a", "$number": 1}, {"$label": "b", "$number": 2}], count=1) == ["b"]',
        ),
    ),
)


def fill(text: str, resource: Resource, size: int, limit: int) -> str:
    """Return a text of `BUGS` with the resource's words."""
    return Template(text).substitute(resource._asdict() | {"size": size, "limit": limit})


class Project(NamedTuple):
    """A drawn project with a bug."""

    resource: Resource
    bug: Bug
    file: str
    issue: str
    right: str
    wrong: str
    why: str
    tests: tuple[str, ...]
    others: Mapping[str, str]

    def shown(self) -> str:
        """Return all files, as a question shows them."""
        files = {**self.others, self.file: self.wrong}
        return "\n\n".join(f"`{name}`\n```python\n{text}```" for name, text in sorted(files.items()))


def draw_project(draw: Random) -> Project:
    """Draw a project whose file has a bug, among two right functions."""
    resource, (bug, *others) = draw.choice(RESOURCES), draw.sample(BUGS, 3)
    size, limit = draw.choice((5, 8, 10, 12, 20, 25)), draw.randint(20, 90)

    def filled(text: str) -> str:
        return fill(text, resource, size, limit)

    functions = [filled(one.right) for one in (bug, *others)]
    order = draw.sample(range(3), 3)
    right = "\n\n".join(functions[place] for place in order)
    head = f'"""What is done with {resource.many}."""\n\n\n'
    had, has = map(filled, bug.wrong)
    wrong = right.replace(had, has)
    assert wrong != right
    names = ", ".join(sorted(one.name for one in (bug, *others)))
    module = f"{resource.many}.py"
    return Project(
        resource=resource,
        bug=bug,
        file=module,
        issue=filled(bug.issue),
        right=head + right,
        wrong=head + wrong,
        why=filled(bug.why),
        tests=tuple(map(filled, bug.tests)),
        others={
            "api.py": f"from {resource.many} import {names}\n\nROUTES = {{}}\n",
            "settings.py": f'RESOURCE = "{resource.many}"\nPAGE_SIZE = {size}\n',
        },
    )
