"""A recipe's text as plain values: YAML 1.2, as people mean it, and no key given twice.

    1e-2, 1E5        numbers (YAML 1.1 has them as texts)
    no, off, 1:30    texts, and so are dates (YAML 1.1 has other things in them)

What a plain scalar is depends on what the recipe wants in its place: `name: 007` and `name: true` are names. So a
scalar keeps its text until `fit` knows. Left out: YAML's own tags but those of the plain types.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from agapo.errors import UserError


@dataclass(frozen=True)
class Scalar:
    """A value that is no text, as YAML reads it, and how it is written."""

    value: Any
    text: str


class Section(dict[str, Any]):
    """A mapping by the texts of its keys. `keys_read` has those that are no texts as YAML reads them."""

    keys_read: dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Knows none of YAML 1.1's plain values."""


_Loader.yaml_implicit_resolvers = {}
_TAG = "tag:yaml.org,2002:"
_PATTERNS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+(?:_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "merge": "<<",
}
"""YAML 1.2's core schema, and thousands parted by `_`."""
for _name, _pattern in _PATTERNS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)


def read_yaml(text: str, place: str) -> Any:
    """Return what a text says: `Section`, list, `Scalar` or str.

    Raises UserError naming `place`, line and key where it is not YAML, or gives a key twice.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _read(loader, node, place, "")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{place}{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise UserError(f"{place}: not YAML: nested too deeply") from None
    finally:
        loader.dispose()


def read_override(text: str, override: str) -> Any:
    """Return what the value of an override says; one that is not YAML is a text. Raises UserError as `read_yaml`."""
    try:
        yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError):
        return text
    found = read_yaml(text, f"override '{override}'")
    return Scalar(None, text) if found is None else found


def _read(loader: _Loader, node: yaml.Node, place: str, key: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _section(loader, node, place, key)
    if isinstance(node, yaml.SequenceNode):
        return [_read(loader, item, place, f"{key}{number}.") for number, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    kind = node.tag.removeprefix(_TAG)
    if kind not in ("str", "null", "bool", "int", "float", "merge"):
        raise UserError(f"{_where(place, node)}: {key[:-1]}: the tag '{node.tag}' is not read; leave it out")
    return node.value if kind in ("str", "merge") else Scalar(_value(kind, node.value), node.value)


def _value(kind: str, text: str) -> Any:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "float":
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _section(loader: _Loader, node: yaml.MappingNode, place: str, key: str) -> Section:
    seen: dict[str, int] = {}
    for name, _ in node.value:
        if not isinstance(name, yaml.ScalarNode):
            raise UserError(f"{_where(place, name)}: {key}: a key should be a name")
        if name.value in seen:
            first = "" if place.startswith("override") else f" (first in line {seen[name.value]})"
            raise UserError(f"{_where(place, name)}: {key}{name.value}: is given twice{first}; keep one")
        seen[name.value] = name.start_mark.line + 1
    loader.flatten_mapping(node)
    section = Section()
    section.keys_read = {}
    for name, inner in node.value:
        read = _read(loader, name, place, key)
        if isinstance(read, Scalar):
            section.keys_read[name.value] = read.value
        section[name.value] = _read(loader, inner, place, f"{key}{name.value}.")
    return section


def _where(place: str, node: yaml.Node) -> str:
    if place.startswith("override"):
        return place
    return f"{place}:{node.start_mark.line + 1}"


# --- what the recipe wants ---

_BOOLS = ("true", "false", "yes", "no", "on", "off")


def fit(wanted: Any, found: Any, key: str = "") -> tuple[Any, list[str]]:
    """Return `found` with each scalar as the annotation `wanted` has it, and what is wrong, one line a mistake.

    A truth value is no number, a number no truth value, and no number is infinite.
    """
    mistakes: list[str] = []
    return _fit(wanted, found, key, mistakes), mistakes


def _fit(wanted: Any, found: Any, key: str, mistakes: list[str]) -> Any:
    kinds = _kinds(wanted)
    if isinstance(found, dict):
        return {
            _key(found, name, kinds): _fit(_of_key(kinds, name), inner, f"{key}.{name}".lstrip("."), mistakes)
            for name, inner in found.items()
        }
    if isinstance(found, list):
        item = next((get_args(kind)[0] for kind in kinds if get_origin(kind) in (list, tuple, set)), Any)
        return [_fit(item, inner, f"{key}.{number}", mistakes) for number, inner in enumerate(found)]
    value, text = (found.value, found.text) if isinstance(found, Scalar) else (found, found)
    if isinstance(found, Scalar) and _is_text(kinds, value):
        return text
    if wrong := _wrong(kinds, value):
        mistakes.append(f"{key}: {wrong} (is {text})")
    return value


def _is_text(kinds: list[Any], value: Any) -> bool:
    """Is a text wanted where YAML reads another thing?"""
    if value is None:
        return str in kinds and type(None) not in kinds
    return any(kind in (str, Path) for kind in kinds) and not {int, float, bool, Any} & set(kinds)


def _wrong(kinds: list[Any], value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "should be a finite number"
    numbers, truth = {int, float} & set(kinds), bool in kinds
    if Any in kinds or (numbers and truth):
        return ""
    if isinstance(value, bool) and numbers:
        return "should be a number, not true or false"
    is_odd = isinstance(value, str) and value.lower() not in _BOOLS
    if truth and str not in kinds and (is_odd or (isinstance(value, int | float) and not isinstance(value, bool))):
        return "should be true or false"
    return ""


def _kinds(annotation: Any) -> list[Any]:
    """The alternatives that an annotation allows; of a literal, the types of its values."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for inner in get_args(annotation) for kind in _kinds(inner)]
    if origin is Literal:
        return [type(value) for value in get_args(annotation)]
    return [annotation]


def _key(section: dict[str, Any], name: str, kinds: list[Any]) -> Any:
    free = all(kind is Any for kind in kinds)
    return getattr(section, "keys_read", {}).get(name, name) if free else name


def _of_key(kinds: list[Any], name: str) -> Any:
    """The annotation of a section's key; of an unknown one, anything."""
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = next((field for known, field in kind.model_fields.items() if name in (known, field.alias)), None)
            if field:
                return field.annotation
        elif get_origin(kind) is dict:
            return get_args(kind)[1]
    return Any
