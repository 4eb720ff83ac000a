"""How what is no plain data goes from the tests to the program: by its public name, or by how it can be made anew.

Functions and classes that the tests define have neither: they would be the judge's own, called by the program.
"""

import copyreg
import operator
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from itertools import islice
from typing import Any

_MAX_ITEMS = 100_000


def public_name(value: Any) -> tuple[str, str] | None:
    """Module and name of something of the standard library: a function, a class, a method as `str.upper`."""
    module, name = getattr(value, "__module__", None) or "builtins", getattr(value, "__qualname__", None)
    if not isinstance(name, str) or str(module).partition(".")[0] not in sys.stdlib_module_names:
        return None
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except (KeyError, AttributeError):
        return None
    return (module, name) if found is value else None


def recipe(value: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """Return a function and the arguments with which it makes a value like this; None where there is none."""
    if isinstance(value, Iterator):
        items = list(islice(value, _MAX_ITEMS + 1))
        return (iter, (items,)) if len(items) <= _MAX_ITEMS else None
    if isinstance(value, KeysView | ValuesView | ItemsView):
        return list, (list(value),)
    if isinstance(value, tuple | dict):
        return _of_subclass(value)
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        made: Any = reduce(value) if reduce else value.__reduce_ex__(4)
    except TypeError:
        return None
    if isinstance(made, str) or any(part is not None for part in made[2:]):  # with a state beyond its arguments
        return None
    return made[0], made[1]


def _of_subclass(value: Any) -> tuple[Any, tuple[Any, ...]] | None:
    kind = type(value)
    if kind is defaultdict:
        return kind, (value.default_factory, dict(value))
    if kind in (Counter, OrderedDict):
        return kind, (list(value.items()) if kind is OrderedDict else dict(value),)
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return kind, tuple(value)
    return None
