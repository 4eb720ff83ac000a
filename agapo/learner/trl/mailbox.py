"""What passes between a rank and the driver, and how a rank begins. Ray's own processes load this, and no torch."""

import pickle
from collections.abc import Mapping
from typing import Any


class Mailbox:
    """Where rank 0 leaves each step's metrics, and learns whether to stop."""

    def __init__(self) -> None:
        self._news: list[tuple[int, dict[str, float]]] = []
        self._stop = False
        self._problem = ""

    def post(self, step: int, metrics: dict[str, float]) -> bool:
        """Leave metrics; return whether the run should stop."""
        self._news.append((step, metrics))
        return self._stop

    def fail(self, problem: str) -> None:
        """Say what the user has to mend; the first rank's word counts."""
        self._problem = self._problem or problem

    def collect(self, stop: bool) -> tuple[list[tuple[int, dict[str, float]]], str]:
        """Return (what is new, the problem if there is one), and take over whether to stop."""
        self._stop = self._stop or stop
        news, self._news = self._news, []
        return news, self._problem


def begin(config: Mapping[str, Any]) -> None:
    """Be a rank: unpack `job`, (the function to call, its settings and its kind), and call it.

    Packed, since Ray Train's controller reads what the ranks are given, and would import all that it names.
    """
    main, settings, kind = pickle.loads(config["job"])
    main(settings, kind, config["mailbox"])
