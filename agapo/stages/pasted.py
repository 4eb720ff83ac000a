"""Overrides that a command prints for the user to paste behind another."""

import shlex
from pathlib import Path


def only_source(source: str, path: Path) -> str:
    """Return the overrides by which a recipe takes its rows from `path` alone, whatever its `data` says."""
    # The recipe's arguments are another source's, and its mixture would be a second way to say where rows are from.
    return shlex.join([f"data.source={source}", f"data.path={path}"]) + " data.args={} data.sources={}"
