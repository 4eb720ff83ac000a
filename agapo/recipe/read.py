"""How a recipe is read: YAML, then `key.path=value` overrides, then strict validation.

Every mistake becomes one line that names the file, the key and, where there is one, the near name:

    recipes/rl/tiny.yaml: learner.learning_rat: unknown key; did you mean 'learning_rate'?
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agapo.built_in import BUILT_IN
from agapo.errors import UserError
from agapo.recipe.ablation import Ablation
from agapo.recipe.base import Recipe
from agapo.recipe.hardware import DescribedCluster
from agapo.recipe.yaml_text import Scalar, fit, read_override, read_yaml
from agapo.resolve import did_you_mean

R = TypeVar("R", bound=Recipe)
M = TypeVar("M", bound=BaseModel)

MOVED = {"EvalRecipe": {"accuracy": "its parts are the sections 'prompts', 'reward' and 'evaluation' (test_size) now"}}
"""By recipe: keys of before, and what there is instead."""


def load_recipe(kind: type[R], path: Path, overrides: list[str] | None = None) -> R:
    """Read `path`, apply `key.path=value` overrides and validate.

    Raises UserError, one line a mistake, each naming file and key.
    """
    content = _read_yaml(path, "recipe")
    for override in overrides or []:
        _apply(content, override)
    content, mistakes = fit(kind, content)
    run = content.setdefault("run", {})
    if isinstance(run, dict) and run.get("name") in (None, ""):
        run["name"] = path.stem
    stage = kind.model_fields["stage"].default
    if content.setdefault("stage", stage) != stage:
        raise UserError(f"{path}: stage: this is a recipe for '{content['stage']}'; run 'agapo {content['stage']}'")
    return _validated(kind, path, content, mistakes)


def load_cluster(path: Path) -> DescribedCluster:
    """Read a described cluster. Raises UserError as `load_recipe` does."""
    content, mistakes = fit(DescribedCluster, _read_yaml(path, "described cluster"))
    return _validated(DescribedCluster, path, content, mistakes)


def load_ablation(path: Path, overrides: Sequence[str] = ()) -> Ablation:
    """Read what is to be compared. Raises UserError as `load_recipe` does."""
    content = _read_yaml(path, "ablation")
    for override in overrides:
        _apply(content, override)
    fitted, mistakes = fit(Ablation, content)
    return _validated(Ablation, path, fitted, mistakes)


def _validated(kind: type[M], path: Path, content: dict[str, Any], mistakes: list[str]) -> M:
    if mistakes:
        raise UserError("\n".join(f"{path}: {line}" for line in mistakes))
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in _explain(kind, error))) from None


def recipe_stage(path: Path) -> str:
    """Return the stage that a recipe file says it is for (`sft`, `rl`, `dpo` or `eval`)."""
    stage = fit(dict[str, Any], _read_yaml(path, "recipe"))[0].get("stage")
    if stage not in ("sft", "rl", "dpo", "eval"):
        raise UserError(f"{path}: stage: is {stage!r}; should be 'sft', 'rl', 'dpo' or 'eval'")
    return stage


def _read_yaml(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        near = [str(item.relative_to(root)) for root in (Path(), BUILT_IN) for item in root.glob("recipes/*/*.yaml")]
        raise UserError(f"{path}: no such {what}{did_you_mean(str(path), near)}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text in UTF-8 (byte {error.start}); save it as UTF-8") from None
    content = read_yaml(text, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: should be a YAML mapping of keys to values")
    return content


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"override '{override}': should be key.path=value, e.g. learner.learning_rate=1e-4")
    *parents, last = key.split(".")
    section: Any = content
    for parent in parents:
        section = _enter(section, parent, override)
    _assign(section, last, read_override(value, override), override)


def _enter(section: Any, name: str, override: str) -> Any:
    if isinstance(section, list):
        return section[_index(section, name, override)]
    if not isinstance(section, dict):
        raise UserError(f"override '{override}': '{name}' lies inside a plain value")
    held = section.get(name)
    if held is None or (isinstance(held, Scalar) and held.value is None):
        section[name] = {}
    return section[name]


def _assign(section: Any, name: str, value: Any, override: str) -> None:
    if isinstance(section, list):
        section[_index(section, name, override)] = value
    elif isinstance(section, dict):
        section[name] = value
    else:
        raise UserError(f"override '{override}': '{name}' lies inside a plain value")


def _index(section: list[Any], name: str, override: str) -> int:
    if not name.isdigit() or int(name) >= len(section):
        raise UserError(f"override '{override}': '{name}' should be an index below {len(section)}")
    return int(name)


def _explain(kind: type[BaseModel], error: ValidationError) -> list[str]:
    return [_explain_one(kind, item["loc"], item["type"], item["msg"], item.get("input")) for item in error.errors()]


def _explain_one(kind: type[BaseModel], place: tuple[int | str, ...], problem: str, message: str, value: Any) -> str:
    key = ".".join(str(part) for part in place)
    if problem == "extra_forbidden" and key in MOVED.get(kind.__name__, {}):
        return f"{key}: unknown key; {MOVED[kind.__name__][key]}"
    if problem == "extra_forbidden":
        return f"{key}: unknown key{did_you_mean(str(place[-1]), _known_keys(kind, place[:-1]))}"
    if problem == "missing":
        return f"{key}: is required"
    if problem in _NO_SECTION:
        message = "should be a section (keys and values)"  # pydantic names its class, or speaks of a dictionary
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    prefix = f"{key}: " if key else ""
    shown = f" (is {value!r})" if isinstance(value, str | int | float | bool | None) else ""
    return f"{prefix}{message[0].lower()}{message[1:]}{shown}"


_NO_SECTION = ("model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type")


def _known_keys(kind: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    for part in place:
        if isinstance(part, int):
            continue
        field = next((f for name, f in kind.model_fields.items() if part in (name, f.alias)), None)
        section = _section_of(field.annotation) if field else None
        if section is None:
            return []
        kind = section
    return [field.alias or name for name, field in kind.model_fields.items()]


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_of(item) for item in getattr(annotation, "__args__", ()))
    return next((item for item in inner if item), None)
