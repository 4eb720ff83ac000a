"""The candidate's side: runs the program, and does what the judge asks of it over the wire.

Nothing here is trusted once the program has been loaded: it may replace every object of this process, write what it
likes to the wire, or end. It has nothing to find: the tests and the expected values are in the judge's container.

Requests are dicts with `op`; answers are `{"value": …}`, `{"error": type, "text": …}` or `{"end": true}`.
"""

import contextlib
import importlib
import json
import operator
import os
import types
from collections.abc import Callable
from typing import Any

from . import script, surroundings, wire
from .confine import confine

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
    start = wire.receive(requests)
    surroundings.furnish(start["program"])
    _Candidate(start, files).serve(requests, replies)


class _Candidate:
    def __init__(self, start: dict[str, Any], files: tuple[int, int]):
        self._program: str = start["program"]
        self._setup: str = start["setup"]
        self._leetcode: bool = start["leetcode"]
        self._files = files
        self._objects: list[Any] = []
        self._module: types.ModuleType | None = None
        self._operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "name": self._name,
            "import": self._import,
            "call": self._call,
            "make": self._make,
            "attribute": self._attribute,
            "set": self._set,
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
            given = {"h": self._number(value.value)} if type(value) is _Given else None
            return {"value": given or wire.encode(value, self._number)}
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

    def _import(self, request: dict[str, Any]) -> Any:
        """Something of the standard library that a test hands over, by its name."""
        return _Given(operator.attrgetter(request["name"])(importlib.import_module(request["module"])))

    def _loaded(self) -> types.ModuleType:
        """The program as a module, loaded when it is first asked for."""
        if self._module is None:
            module = surroundings.module(_MODULE, leetcode=self._leetcode)
            # It may need what the program gives; the tests run it on their own side as well, where it has to work.
            with contextlib.suppress(Exception):
                surroundings.execute(self._setup, module.__dict__)
            surroundings.execute(self._program, module.__dict__)
            self._module = module
        return self._module

    def _call(self, request: dict[str, Any]) -> Any:
        function = self._objects[request["handle"]]
        return function(*self._values(request["arguments"]), **self._values(request["named"]))

    def _make(self, request: dict[str, Any]) -> Any:
        """An object that the tests hand over: a number whatever it is, since it is the program's from now on."""
        return _Given(self._objects[request["handle"]](*self._values(request["arguments"])))

    def _attribute(self, request: dict[str, Any]) -> Any:
        return getattr(self._objects[request["handle"]], request["name"])

    def _set(self, request: dict[str, Any]) -> None:
        setattr(self._objects[request["handle"]], request["name"], self._values(request["value"]))

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
        return script.run(self._program, request["input"], self._files, leetcode=self._leetcode)


class _Opaque:
    """Makes a value cross as a handle, whatever it is."""

    def __init__(self, value: Any):
        self.value = value


class _Given(_Opaque):
    """Makes a value cross as a handle that stands for the value itself."""


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except Exception:
        return ""
