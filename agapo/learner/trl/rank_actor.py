"""The two Ray actors of a TRL training: a rank, and what passes between rank 0 and the driver.

Nothing heavy is imported here: an actor's process imports this file whole, and the mailbox's needs no torch.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agapo.cluster import free_endpoint, sees


class Mailbox:
    """Where rank 0 leaves each step's metrics, and learns whether to stop. It outlives a rank that dies."""

    def __init__(self) -> None:
        self._news: list[tuple[int, dict[str, float]]] = []
        self._stop = False

    def post(self, step: int, metrics: dict[str, float]) -> bool:
        """Leave metrics; return whether the run should stop."""
        self._news.append((step, metrics))
        return self._stop

    def collect(self, stop: bool) -> list[tuple[int, dict[str, float]]]:
        """Return what is new, and take over whether to stop."""
        self._stop = self._stop or stop
        news, self._news = self._news, []
        return news


class TrainerRank:
    """A process for one rank."""

    def endpoint(self) -> tuple[str, int]:
        """Return an address and a free port on this host, for the ranks to meet at."""
        return free_endpoint()

    def sees(self, mark: Path) -> str | None:
        """See `agapo.cluster`."""
        return sees(mark)

    def fit(self, group: Mapping[str, str], main: Callable[..., str], *given: Any) -> str:
        """Be the rank: `main(*given)` trains to the last step, and returns what the user has to mend, if anything.

        `group` has the variables by which a process group is joined (`group_variables`).
        """
        os.environ |= group
        return main(*given)
