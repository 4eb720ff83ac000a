"""The candidate's side: runs the program, and does what the judge asks of it over the wire.

Nothing here is trusted once the program has been loaded: it may replace every object of this process, write what it
likes to the wire, or end. It has nothing to find: the tests and the expected values are in the judge's container.

Requests are dicts with `op`; answers are `{"value": …}`, `{"error": type, "text": …}` or `{"end": true}`.
"""

import io
import json
import operator
import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from . import wire
from .confine import confine

_MAX_OUTPUT = 8 << 20
_MODULE = "candidate"


def main(confinement: str, requests: int, replies: int) -> None:
    """Serve the judge until it hangs up. `confinement`: what `confine` takes, as JSON."""
    files = os.memfd_create("input"), os.memfd_create("output")  # before the filter forbids new ones
    try:
        confine(**json.loads(confinement))
    except BaseException as error:
        wire.send(replies, {"refused": f"{type(error).__name__}: {error}"})
        return
    wire.send(replies, {"ready": True})
    _Candidate(wire.receive(requests), files).serve(requests, replies)


class _Candidate:
    def __init__(self, start: dict[str, Any], files: tuple[int, int]):
        self._source: str = start["program"]
        self._files = files
        self._objects: list[Any] = []
        self._module: types.ModuleType | None = None
        self._operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "name": self._name,
            "call": self._call,
            "attribute": self._attribute,
            "special": self._special,
            "next": self._next,
            "run": self._run,
        }

    def serve(self, requests: int, replies: int) -> None:
        while True:
            try:
                request = wire.receive(requests)
            except EOFError:
                return
            wire.send(replies, self._answer(request))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            value = self._operations[request["op"]](request)
            return {"value": wire.encode(value, self._number)}
        except StopIteration:
            return {"end": True} if request["op"] == "next" else {"error": "RuntimeError", "text": "StopIteration"}
        except BaseException as error:
            return {"error": type(error).__name__, "text": _text(error)}

    def _number(self, value: Any) -> int:
        self._objects.append(value)
        return len(self._objects) - 1

    def _values(self, content: Any) -> Any:
        return wire.decode(content, self._objects.__getitem__)

    def _name(self, request: dict[str, Any]) -> Any:
        return getattr(self._loaded(), request["name"])

    def _loaded(self) -> types.ModuleType:
        """The program as a module, loaded when it is first asked for."""
        if self._module is None:
            module = types.ModuleType(_MODULE)
            sys.modules[_MODULE] = module  # dataclasses and pickle look there
            exec(compile(self._source, "<program>", "exec", dont_inherit=True), module.__dict__)
            self._module = module
        return self._module

    def _call(self, request: dict[str, Any]) -> Any:
        function = self._objects[request["handle"]]
        return function(*self._values(request["arguments"]), **self._values(request["named"]))

    def _attribute(self, request: dict[str, Any]) -> Any:
        return getattr(self._objects[request["handle"]], request["name"])

    def _special(self, request: dict[str, Any]) -> Any:
        function = {"str": str, "repr": repr, "len": len, "bool": bool, "iter": iter, "item": operator.getitem}
        function |= {"contains": operator.contains, "float": float, "int": int}
        found = function[request["name"]](self._objects[request["handle"]], *self._values(request["arguments"]))
        # Some iterators are their own data type (a list's is not): the judge asks for their items one by one.
        return _Opaque(found) if request["name"] == "iter" else found

    def _next(self, request: dict[str, Any]) -> Any:
        return next(self._objects[request["handle"]].value)

    def _run(self, request: dict[str, Any]) -> str:
        """Run the program as a script with a text on standard input; return what it printed."""
        source, sink = self._files
        _refill(source, request["input"].encode())
        _refill(sink, b"")
        os.dup2(source, 0)
        os.dup2(sink, 1)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        try:
            exec(compile(self._source, "<program>", "exec", dont_inherit=True), main.__dict__)
        except SystemExit:
            pass  # a usual way to end a script
        finally:
            _join_threads()
            sys.stdout.flush()
        return os.pread(sink, _MAX_OUTPUT, 0).decode("utf-8", errors="replace")


class _Opaque:
    """Makes a value cross as a handle, whatever it is."""

    def __init__(self, value: Any):
        self.value = value


def _refill(descriptor: int, content: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)


def _join_threads() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except Exception:
        return ""
