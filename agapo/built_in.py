"""The `rewards`, `data` and `recipes` that the toolkit brings, and how one's own folders of these names add to them.

The packages `rewards` and `data` are the working directory's folders, where it has them, then what Python finds by that
name, then the built-in ones: one's own modules come first, and hide none but those of the same name. Every process that
looks names up (`agapo.resolve`) does it in the same way: driver, ranks, verifier workers, forks.
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
        """Return how a package is loaded; None for every other module, which is looked for as ever."""
        if name not in EXTENDED:
            return None
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
    for name in EXTENDED:
        if package := sys.modules.get(name):
            package.__path__ = _places(name, getattr(package, "__path__", ()))


def say_if_hidden(module: ModuleType) -> None:
    """Say once, in the driver, that a module of one's own has taken the place of a built-in one."""
    place = Path(getattr(module, "__file__", None) or "").resolve()
    hidden = BUILT_IN.joinpath(*module.__name__.split(".")).with_suffix(".py")
    if "AGAPO_VERIFIER" in os.environ or module.__name__ in _said or place == hidden or not hidden.is_file():
        return
    _said.add(module.__name__)
    print(f"{module.__name__}: your own {place}, in place of the built-in one", flush=True)


def _places(name: str, found: Iterable[str]) -> list[str]:
    own = Path.cwd() / name
    return list(dict.fromkeys([*([str(own)] if own.is_dir() else []), *found, str(BUILT_IN / name)]))
