"""From a term of the recipe to the function to call: import it, look at its signature, ask whether it can work here.

Both the workers and `agapo check` come through here, so that both say the same.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agapo.errors import UserError
from agapo.resolve import did_you_mean, resolve

_HANDED_IN = {"prompts", "completions", "prompt", "scores"}
"""Never options: what every call gets."""


@dataclass(frozen=True)
class Reward:
    """A reward function with its fixed arguments."""

    name: str
    """The term's."""
    function: Callable[..., Any]
    args: Mapping[str, Any] = field(default_factory=dict)
    judges_groups: bool = False
    """Its signature is `score_group(prompt, completions, scores, **columns)`."""

    def check(self) -> None:
        """Call the `check(**args)` of the function's module, where there is one. Raises UserError."""
        check = getattr(sys.modules.get(self.function.__module__), "check", None)
        if not callable(check):
            return
        known = _parameters(check)
        takes_all = any(item.kind is item.VAR_KEYWORD for item in known)
        names = {item.name for item in known}
        try:
            check(**{key: value for key, value in self.args.items() if takes_all or key in names})
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"reward '{self.name}': its check raised {one_line(error)}") from error


def load_reward(name: str, function: str, args: Mapping[str, Any]) -> Reward:
    """Import a term's function. Raises UserError when that fails or the function has no option of an arg's name."""
    found = resolve(function, key=f"reward '{name}'")
    parameters = _parameters(found)
    _require_options(name, args, parameters)
    return Reward(name, found, dict(args), any(item.name == "scores" for item in parameters))


def _require_options(name: str, args: Mapping[str, Any], parameters: Iterable[inspect.Parameter]) -> None:
    """An arg that only `**columns` would take is one that nobody reads."""
    by_name = {
        item.name: item
        for item in parameters
        if item.kind in (item.KEYWORD_ONLY, item.POSITIONAL_OR_KEYWORD) and item.name not in _HANDED_IN
    }
    options = [key for key, item in by_name.items() if item.kind is item.KEYWORD_ONLY] or list(by_name)
    for key in args:
        if key not in by_name:
            hint = did_you_mean(key, options) or f"; it has {', '.join(options) or 'none'}"
            raise UserError(f"reward '{name}': args: the function has no option '{key}'{hint}")


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Empty for functions that do not show their signature."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def one_line(error: BaseException, most: int = 500) -> str:
    """Return `Type: message` on one line; an error's own __str__ may fail."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = type(error).__name__
    return " ".join(text.split())[:most]
