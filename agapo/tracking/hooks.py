"""What is called after each step: `run.on_step` of the recipe, and what a program has given (`agapo.run`)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from agapo.recipe import Recipe
from agapo.resolve import resolve

Hook = Callable[[int, Mapping[str, float]], Any]
"""Called with the step (from 1; 0 before training) and its numbers, by the names of `metrics.jsonl`."""
_given: ContextVar[tuple[Hook, ...]] = ContextVar("given", default=())


@contextmanager
def calling(hook: Hook | None) -> Iterator[None]:
    """Have a run that starts inside call a hook as well."""
    token = _given.set((hook,) if hook else ())
    try:
        yield
    finally:
        _given.reset(token)


def hooks_of(recipe: Recipe) -> list[Hook]:
    """Return what a run calls. Raises UserError where `run.on_step` names nothing."""
    named = [resolve(recipe.run.on_step, key="run.on_step")] if recipe.run.on_step else []
    return [*named, *_given.get()]
