"""Ctrl-C and SIGTERM that lose no finished step."""

import signal
from contextlib import ExitStack
from types import FrameType

from agapo.signals import handled_by, note, stop_at_once


class StopRequest:
    """Notes the first Ctrl-C or SIGTERM for the loop to look at; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._stack = ExitStack()

    def __enter__(self) -> "StopRequest":
        self._stack.enter_context(handled_by(self._note))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self) -> bool:
        """Return whether a stop was asked for."""
        return self.requested

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            stop_at_once(number)
        note(number)
        self.requested = True
