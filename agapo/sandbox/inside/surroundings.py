"""What a program finds in its process beside Python itself, as where a person would run it.

That is the file it is in, the names that `site` gives (`exit`), paths for the standard streams, locks between
processes, of which there is one, and, where they are asked for, the names that LeetCode has imported.
"""

import builtins
import importlib
import io
import linecache
import os
import site
import sys
import threading
import types
from typing import Any

PATH = "/tmp/program.py"
"""Where the program seems to be. There is no such file, which would have to be removed after each program."""
_STREAMS = {f"/dev/{name}": number for number, name in enumerate(("stdin", "stdout", "stderr"))}
_STREAMS |= {f"/dev/fd/{number}": number for number in range(3)}
_open = open

# As LiveCodeBench has them, which has them from LeetCode; of two that have a name (Counter) the later one gives it.
_IMPORTED_WHOLE = (
    *("typing", "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json"),
)
_IMPORTED = ("array", "decimal", "fractions", "numbers", "os", "queue", "time")


def furnish(program: str) -> None:
    """Make this process the program's."""
    site.setquit()
    site.sethelper()
    site.setcopyright()
    builtins.open = io.open = _open_stream  # pyright: ignore[reportAttributeAccessIssue]
    sys.argv = [PATH]
    linecache.cache[PATH] = len(program), None, program.splitlines(keepends=True), PATH
    # The system's own are files that processes share.
    importlib.import_module("_multiprocessing").__dict__["SemLock"] = OneProcessLock


def module(name: str, *, leetcode: bool) -> types.ModuleType:
    """Return an empty module for a program, and make it known under its name (dataclasses and pickle look there).

    Names of LeetCode's are behind Python's own, where a program finds them, but not in the module: a test that asks
    for `gcd` gets the program's or none.
    """
    made = types.ModuleType(name)
    made.__file__ = PATH
    made.__dict__["__builtins__"] = _LEETCODE | vars(builtins) if leetcode else builtins
    sys.modules[name] = made
    return made


def execute(source: str, namespace: dict[str, Any]) -> None:
    """Run a program's text in a module's names."""
    exec(compile(source, PATH, "exec", dont_inherit=True), namespace)


def _open_stream(file: Any, *arguments: Any, **named: Any) -> Any:
    """Like `open`; there is no /proc, to which the paths of the standard streams lead."""
    path = os.fspath(file) if isinstance(file, os.PathLike) else file
    number = _STREAMS.get(path) if isinstance(path, str) else None
    return _open(file if number is None else os.dup(number), *arguments, **named)


def _names_of_leetcode() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for imported in map(importlib.import_module, _IMPORTED_WHOLE):
        public = getattr(imported, "__all__", None) or [name for name in vars(imported) if name[0] != "_"]
        names |= {name: getattr(imported, name) for name in public}
    return names | {name: importlib.import_module(name) for name in (*_IMPORTED_WHOLE, *_IMPORTED)}


_LEETCODE = _names_of_leetcode()


class OneProcessLock:
    """`_multiprocessing.SemLock` for a single process: `multiprocessing` builds its locks and pools of threads on it.

    A semaphore of `maxvalue` places, `value` of them free; of kind 0 a mutex that its owner may take again.
    """

    SEM_VALUE_MAX = 2**31 - 1

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool):
        self.kind, self.maxvalue, self.handle = kind, maxvalue, 0
        self.name = None if unlink else name  # one with a name would be watched over by another process
        self._free = threading.Condition()
        self._value, self._owner, self._depth = value, 0, 0

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take a place; return whether there was one in time."""
        with self._free:
            if not (self.kind == 0 and self._is_mine()):
                if not self._free.wait_for(lambda: self._value > 0, _seconds(block, timeout)):
                    return False
                self._value -= 1
            self._owner, self._depth = threading.get_ident(), self._depth + 1
            return True

    __enter__ = acquire

    def release(self) -> None:
        """Give a place back. Raises ValueError where all are free, AssertionError for another thread's mutex."""
        with self._free:
            if self.kind == 0 and not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self.kind and self._value >= self.maxvalue:
                raise ValueError("semaphore or lock released too many times")
            self._depth -= 1
            if self.kind or not self._depth:
                self._value += 1
                self._free.notify()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._depth

    def _is_mine(self) -> bool:
        return self._depth > 0 and self._owner == threading.get_ident()

    def _get_value(self) -> int:
        return self._value

    def _is_zero(self) -> bool:
        return self._value == 0

    def _after_fork(self) -> None:
        pass


def _seconds(block: bool, timeout: float | None) -> float | None:
    return timeout if block else 0.0
