"""Turn `rewards.math_answer:score` into the function it names.

Recipes name rewards and data sources this way; they are looked up with the working directory on the
path, as uvicorn and celery do, so a user's own file next to the recipe needs no installation; `agapo.built_in` adds
those that the toolkit brings.
"""

import importlib
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from traceback import extract_tb
from typing import Any

from agapo.built_in import add_built_ins, say_if_hidden
from agapo.errors import UserError, first_line


def resolve(name: str, *, key: str) -> Callable[..., Any]:
    """Return the function that `package.module:function` names.

    `key` is the recipe key that holds the name; it stands in the error. Raises UserError when the module
    does not import (the error names the file and line of a mistake in it) or has no such function.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise UserError(f"{key}: '{name}' should be 'package.module:function', e.g. 'rewards.math_answer:score'")
    _put_working_directory_on_path()
    add_built_ins()
    try:
        module = importlib.import_module(module_name)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a module may raise anything, and a script as well
        raise UserError(f"{key}: cannot import '{module_name}' from {Path.cwd()}: {mistake(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [item for item in vars(module) if callable(getattr(module, item)) and not item.startswith("_")]
        raise UserError(f"{key}: '{module_name}' has no function '{attribute}'{did_you_mean(attribute, known)}")
    say_if_hidden(module)
    return function


def mistake(error: BaseException) -> str:
    """Return what went wrong in somebody's code, in a line, with the file and line that did it."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    text = first_line(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {first_line(error)}"
    # Python's own machinery of imports is not where the mistake is.
    own = (__file__, importlib.__file__)
    frames = [one for one in extract_tb(error.__traceback__) if one.filename not in own and one.filename[0] != "<"]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {text}" if frames else text


def did_you_mean(word: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or an empty string."""
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _put_working_directory_on_path() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
