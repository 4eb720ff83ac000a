"""agapo: post-training for language models (SFT, AGAPO reinforcement learning, preference learning).

Importing this package loads neither torch nor Ray, so that `agapo --help` and recipe checks are instant. What it offers
to programs (docs/library.md) is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agapo.errors import Interrupted, UserError
    from agapo.library import load_recipe, reward, run, sample, score

__version__ = "0.1.0"
__all__ = ["Interrupted", "UserError", "__version__", "load_recipe", "reward", "run", "sample", "score"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'agapo' has no attribute '{name}'")
    home = "agapo.errors" if name in ("Interrupted", "UserError") else "agapo.library"
    return getattr(importlib.import_module(home), name)
