"""Ctrl-C, and SIGTERM, which SLURM and Kubernetes send before they kill: what a run does about them.

    until a loop begins     `Stopped` is raised where the program is: there is nothing to save
    while a loop runs       `StopRequest` notes them, and the loop stops where no finished step is lost
    while Ray starts        they wait; Ray would put its own handlers over ours, and its C++ one prints a stack

A second Ctrl-C stops at once. A second SIGTERM does not: schedulers send it to every process of a job, and again.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], None]


class Stopped(BaseException):
    """A signal came where nothing can be lost. No Exception: nobody on the way should take it for a failure."""


_received: list[int] = []


def note(number: int) -> None:
    """Remember that a signal came, for the exit status."""
    _received.append(number)


def exit_status() -> int:
    """Return 128 + the signal that stopped this process, as shells and schedulers count: 130 Ctrl-C, 143 SIGTERM."""
    return 128 + (_received[0] if _received else signal.SIGINT)


def stop_at_once(number: int, frame: FrameType | None = None) -> None:
    """Be the handler of both signals where there is nothing to save. Raises Stopped."""
    note(number)
    raise Stopped


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Let `handler` answer both signals inside. Does nothing in other threads, where signals do not arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {number: signal.signal(number, handler) for number in STOPS}
    try:
        yield
    finally:
        _put_back(previous)


@contextmanager
def kept_from_ray() -> Iterator[None]:
    """Keep this process's handlers while Ray starts inside, and SIGTERM from the processes that it starts.

    A scheduler that sends SIGTERM to all of a job's processes would otherwise end Ray, and with it what there is to
    save. They inherit the mask, and so never see the signal: `agapo.cluster` kills them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in STOPS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        _put_back(previous)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _put_back(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        # None: it was not set from Python, and cannot be set again from here.
        if handler is not None:
            signal.signal(number, handler)
