"""Every key of every recipe as a page, made from the schema: `python -m agapo.recipe.reference`.

A key's meaning is the docstring below it, or, where it holds a section, the section's own.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agapo.algorithm.presets import PRESETS
from agapo.recipe import STAGES
from agapo.recipe.keys import classes_of, section_at

HEAD = """# Recipe keys

Every key of every section, made from the schema by `python -m agapo.recipe.reference > docs/recipe_reference.md`; a
test holds this page to it. A key inside a section is written `section.key`, in YAML or on the command line
(`learner.learning_rate=1e-5`). **required** has no default.

The last column says what may change while a run is stopped: *no*, another value is another run; *later*, it counts from
the next step on and is noted in the run's history; *yes*, it changes nothing that is computed.
"""

CHANGES = {"identity": "no", "later": "later", "free": "yes"}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
WORDS = {str: "text", bool: "true, false", NoneType: "null", Path: "path", Any: "anything"}


def reference() -> str:
    """Return the page: each stage's own keys, then each section once, under the places where it stands."""
    places: dict[type[BaseModel], dict[str, list[str]]] = {}
    for stage, recipe in STAGES.items():
        for path, section in _sections(recipe, ""):
            places.setdefault(section, {}).setdefault(path, []).append(stage)
    titles = {section: _title(found) for section, found in places.items()}
    parts = [HEAD, *(_part(f"stage: {stage}", recipe, titles) for stage, recipe in STAGES.items())]
    parts += [_part(titles[section], section, titles, _where(found)) for section, found in places.items()]
    return "\n".join(parts)


@cache
def meanings(section: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below each field of a section, those of the sections that it extends included."""
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if kind is BaseModel or not issubclass(kind, BaseModel):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in pairwise(tree.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                    found[name] = " ".join(meaning.split())
    return found


def _sections(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield each section below one with its dotted path, where a name or a number stands as `*`."""
    for name, field in section.model_fields.items():
        key = field.alias or name
        inner, inside = section_at(section, key)
        if inner:
            path = f"{prefix}{key}{'.*' * inside}"
            yield path, inner
            yield from _sections(inner, f"{path}.")


def _title(places: Mapping[str, list[str]]) -> str:
    """`evaluation (rl)`; without the stages where all four have it. Of several places the outermost names it."""
    path, stages = min(places.items(), key=lambda place: (place[0].count("."), -len(place[1]), place[0]))
    return path if len(stages) == len(STAGES) else f"{path} ({', '.join(stages)})"


def _where(places: Mapping[str, list[str]]) -> str:
    if len(places) == 1:
        return ""
    return " Stands at " + ", ".join(f"`{path}` ({', '.join(stages)})" for path, stages in places.items()) + "."


def _part(title: str, section: type[BaseModel], titles: Mapping[type[BaseModel], str], where: str = "") -> str:
    about = _escaped(" ".join((inspect.getdoc(section) or "").split())) + where
    rows = [_row(section, name, field, titles) for name, field in section.model_fields.items()]
    lines = [f"## {title}", "", about, ""]
    if rows:
        lines += ["| key | values | default | meaning | may change |", "|---|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(section: type[BaseModel], name: str, field: FieldInfo, titles: Mapping[type[BaseModel], str]) -> str:
    key = field.alias or name
    inner, _ = section_at(section, key)
    meaning = meanings(section).get(name) or (inspect.getdoc(inner) or "" if inner else "").partition("\n")[0]
    values = _values(field.annotation) + "".join(f" {sign}" for sign in _bounds(field))
    if inner:
        values = values.replace(inner.__name__, f"[{titles[inner]}](#{_anchor(titles[inner])})")
    change = CHANGES.get(classes_of(section).get(name) or classes_of(section).get(key) or "", "")
    default = _by_preset(titles[section], key) if section in titles else ""
    return f"| `{key}` | {values} | {default or _default(field, inner)} | {_escaped(meaning)} | {change} |"


def _by_preset(title: str, key: str) -> str:
    """Return what the presets set a key of `algorithm` to, where they do; else nothing."""
    place = [*title.partition(" ")[0].split("."), key]
    if place[0] != "algorithm":
        return ""
    found: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        value: Any = {"algorithm": preset}
        for part in place:
            value = value.get(part, ...) if isinstance(value, dict) else ...
        if value is not ... and not isinstance(value, dict):
            found.setdefault(f"`{value if isinstance(value, str) else json.dumps(value)}`", []).append(name)
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in found.items())


def _values(annotation: Any) -> str:
    """Return a type in words: `int`, `text or null`, `list of text`, `name: number`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(args[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin in (Union, UnionType):
        return " or ".join(_values(item) for item in args)
    if origin in (list, tuple):
        return f"list of {_values(args[0])}"
    if origin is dict:
        return f"{_values(args[0])}: {_values(args[1])}"
    return WORDS.get(annotation) or annotation.__name__


def _bounds(field: FieldInfo) -> Iterator[str]:
    for bound in field.metadata:
        for name, sign in SIGNS.items():
            if hasattr(bound, name):
                yield f"{sign} {getattr(bound, name):g}"


def _default(field: FieldInfo, inner: type[BaseModel] | None) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if inner and isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, str | Path):
        return f"`{value}`" if str(value) else "–"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _anchor(title: str) -> str:
    """Return what GitHub makes of a heading."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
