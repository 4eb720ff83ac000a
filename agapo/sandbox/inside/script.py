"""Runs a program as a script: a text on standard input, and what it has written to standard output when it ends.

All that Python does at the end of a process is done here, since the process goes on: threads are waited for, functions
of `atexit` called, files that were left open written out.
"""

import atexit
import contextlib
import io
import os
import sys
import threading
from typing import Any, NoReturn

from . import surroundings

_MAX_OUTPUT = 8 << 20


class _Left(BaseException):
    """The program called `os._exit`, with this status."""


def run(program: str, given: str, files: tuple[int, int], *, leetcode: bool) -> str:
    """Return what the program prints; `files` are descriptors of files in memory. Raises what the program raises,
    which is SystemExit where its status says that it failed.
    """
    source, sink = files
    _refill(source, given.encode())
    _refill(sink, b"")
    os.dup2(source, 0)
    os.dup2(sink, 1)
    # Under both names, as Python has it: a program that wraps one of them would else close what it wraps.
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(_raw(0, "r", "<stdin>")), encoding="utf-8")
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(io.BufferedWriter(_raw(1, "w", "<stdout>")), encoding="utf-8")
    leave, os._exit = os._exit, _leave
    names = surroundings.module("__main__", leetcode=leetcode).__dict__
    try:
        surroundings.execute(program, names)
    except SystemExit as end:
        if isinstance(end.code, int) and end.code:  # without a number it is a usual way to end a script
            raise
    except _Left as left:
        if left.args[0]:
            raise
        return _printed(sink)  # without what is still in the buffer
    finally:
        _finish(names)
        os._exit = leave
    return _printed(sink)


def _raw(descriptor: int, mode: str, name: str) -> io.FileIO:
    raw = io.FileIO(descriptor, mode, closefd=False)
    raw.name = name  # pyright: ignore[reportAttributeAccessIssue]
    return raw


def _leave(status: int) -> NoReturn:
    raise _Left(status)


def _printed(sink: int) -> str:
    return os.pread(sink, _MAX_OUTPUT, 0).decode("utf-8", errors="replace")


def _refill(descriptor: int, content: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)


def _finish(names: dict[str, Any]) -> None:
    _end_pools()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    _flush()
    names.clear()  # closes files that the program left open
    _flush()


def _end_pools() -> None:
    """Let the threads of pools that nobody shut down come to their end; the next run may have pools again."""
    pools = sys.modules.get("concurrent.futures.thread")
    if pools is not None:
        pools._python_exit()
        pools.__dict__["_shutdown"] = False


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(Exception):  # closed, detached, or no stream at all
            stream.flush()  # pyright: ignore[reportOptionalMemberAccess]
