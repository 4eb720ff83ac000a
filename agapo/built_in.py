"""The `rewards`, `data` and `recipes` that the toolkit brings, and how one's own folders of these names add to them.

The packages `rewards` and `data` are the working directory's folders, where it has them, then what Python finds by that
name, then the built-in ones: one's own modules come first, and hide none but those of the same name, also from built-in
modules that import them, which a line says. So it is with the packages in them. Every process that looks names up
(`agapo.resolve`) does it in the same way: driver, ranks, verifier workers, forks.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).resolve().parent
BUILT_IN = next(path for path in (_PACKAGE / "carried", _PACKAGE.parent) if (path / "rewards").is_dir())
"""The folder that holds them: the wheel's (`setup.py`), or the clone."""
EXTENDED = ("rewards", "data")
_said: set[str] = set()


class WithBuiltIns:
    """Finds the two packages as Python does, and adds the built-in modules."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return how a package, or a module of a built-in one's name, is loaded; None for others, found as ever."""
        if name.partition(".")[0] not in EXTENDED:
            return None
        if "." in name:
            return _spec_inside(name, path or ())
        # In the working directory first: Python would prefer a package of another project's that is installed.
        spec = PathFinder.find_spec(name, [str(Path.cwd())]) or PathFinder.find_spec(name)
        found = (spec.submodule_search_locations if spec else None) or ()
        if spec is None or spec.loader is None:
            spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = _places(name, found)
        return spec


def find_recipe(path: Path) -> Path:
    """Return a recipe's (or described cluster's) file: as it is named, else the built-in one of that name, if any."""
    built_in = BUILT_IN / path
    return path if path.exists() or not built_in.is_file() else built_in


def add_built_ins() -> None:
    """Let both packages have the built-in modules, also where they are imported already."""
    if WithBuiltIns not in sys.meta_path:
        sys.meta_path.insert(0, WithBuiltIns)
    for name in [name for name in sys.modules if name.partition(".")[0] in EXTENDED]:
        module = sys.modules[name]
        say_if_hidden(module)
        if hasattr(module, "__path__") and (name in EXTENDED or _built_in(name)):
            module.__path__ = _places(name, module.__path__)


def say_if_hidden(module: ModuleType) -> None:
    """Say once, in the driver, that a module of one's own has taken the place of a built-in one."""
    _say_if_other(module.__name__, getattr(module, "__file__", None))


def _spec_inside(name: str, path: Sequence[str]) -> ModuleSpec | None:
    spec = PathFinder.find_spec(name, path) if _built_in(name) else None
    if spec is None:
        return None
    if spec.submodule_search_locations is not None:
        found = [str(Path(place, name.rpartition(".")[2])) for place in path]
        spec.submodule_search_locations = [place for place in found if Path(place).is_dir()]
    # Here, not where a recipe names it: what built-in modules import is hidden as well.
    _say_if_other(name, spec.origin)
    return spec


def _built_in(name: str) -> Path | None:
    """Return the file of the built-in module or package of a name, if there is one."""
    place = BUILT_IN.joinpath(*name.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _say_if_other(name: str, file: str | None) -> None:
    place, hidden = Path(file or "").resolve(), _built_in(name)
    if "AGAPO_VERIFIER" in os.environ or name in _said or hidden in (None, place) or name in EXTENDED:
        return
    _said.add(name)
    print(f"{name}: your own {place}, in place of the built-in one", flush=True)


def _places(name: str, found: Iterable[str]) -> list[str]:
    inside = Path(*name.split("."))
    own = Path.cwd() / inside
    return list(dict.fromkeys([*([str(own)] if own.is_dir() else []), *found, str(BUILT_IN / inside)]))
