"""A rank and a rollout actor that hang when told to; imports little, so that its process is there at once."""

import time
from typing import Any


class Worker:
    """Takes what ranks and actors take, and hangs where it is told to."""

    def __init__(self, hangs: bool):
        self.hangs = hangs

    def _work(self) -> None:
        if self.hangs:
            time.sleep(600)

    def update(self, *_: Any) -> dict[str, float]:
        self._work()
        return {"loss": 1.0}

    def place(self) -> str:
        return "host"

    def load(self) -> None:
        pass

    def update_weights(self, *_: Any) -> None:
        self._work()

    def weights(self) -> tuple[str, bool]:
        self._work()
        return "weights", True

    def drop(self) -> None:
        pass
