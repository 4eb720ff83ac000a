"""The judge's side: runs the tests, and reaches the program only by asking for it over the wire.

The tests are the data set's, so they are run as confined as the program, in another container. Results go to the
trusted parent one by one: `{"passed": bool, "detail": str}` each, and at last `{"finished": true}` or
`{"broken": reason}` where the fault is the tests' own, not the program's.
"""

import ast
import builtins
import json
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from . import handing, wire
from .compare import same_output, same_value
from .confine import confine

_MAX_DETAIL = 200


class ProgramError(Exception):
    """The program raised something that is no ordinary exception of Python's."""


class ProgramEnded(BaseException):
    """The program's process is gone, or writes what it should not. Not an Exception: a test must not catch it."""


class BrokenTests(BaseException):
    """The tests cannot be run, whatever the program is."""


def main(confinement: str, control: int, results: int, asks: int, answers: int) -> None:
    """Run one job. `confinement`: what `confine` takes, as JSON; the link to the program is `asks` and `answers`."""
    try:
        confine(**json.loads(confinement))
    except BaseException as error:
        wire.send(results, {"refused": f"{type(error).__name__}: {error}"})
        return
    wire.send(results, {"ready": True})
    job = wire.receive(control)
    judge = _Judge(_Link(asks, answers), results)
    try:
        judge.run(job)
        wire.send(results, {"finished": True})
    except BrokenTests as error:
        wire.send(results, {"broken": str(error)[:_MAX_DETAIL]})
    except BaseException as error:
        judge.record(False, _describe(error))
        wire.send(results, {"finished": True})


class _Link:
    """Asks the candidate's side."""

    def __init__(self, asks: int, answers: int):
        self._asks, self._answers = asks, answers
        self.was_used = False
        """Whether the program has been asked for anything: what fails before is the tests' own fault."""
        self.shared: dict[types.FunctionType | type, str] = {}
        """The set-up's functions and named tuples, with their names: its classes are on the program's side alone."""
        self._ended = ""

    def ask(self, op: str, **request: Any) -> Any:
        self.was_used = True
        if self._ended:
            raise ProgramEnded(self._ended)
        try:
            wire.send(self._asks, {"op": op, **request})
            answer = wire.receive(self._answers)
        except (EOFError, OSError):
            self._end("the program's process ended")
        except wire.WireError as error:
            self._end(str(error))
        return self._value(answer)

    def _value(self, answer: Any) -> Any:
        if not isinstance(answer, dict):
            self._end("not an answer")
        if "error" in answer:
            raise _exception(answer)
        if "end" in answer:
            raise StopIteration
        try:
            return wire.decode(answer["value"], lambda number: Handle(self, number))
        except (wire.WireError, KeyError, MemoryError) as error:
            self._end(f"not a value: {error}")

    def _end(self, reason: str) -> NoReturn:
        self._ended = reason
        raise ProgramEnded(reason)

    def encode(self, value: Any) -> Any:
        """Return a value as JSON. Raises BrokenTests for one that cannot be handed over."""
        try:
            return wire.encode(value, self._number, keep=True)
        except wire.WireError as error:
            raise BrokenTests(str(error)) from None

    def _number(self, value: Any) -> int | None:
        """The number of the program's own object, or of one like this that is made there; None if none can be."""
        if type(value) is Handle:
            return _handle_number(value)
        if name := handing.public_name(value):
            return self._theirs("import", module=name[0], name=name[1])
        if isinstance(value, types.FunctionType | type):
            return self._theirs("name", name=self.shared[value]) if value in self.shared else None
        recipe = handing.recipe(value)
        maker = recipe and self._number(recipe[0])
        if recipe is None or maker is None:
            return None
        return self._theirs("make", handle=maker, arguments=self.encode(recipe[1]))

    def _theirs(self, op: str, **request: Any) -> int:
        """The number that the program's side answers with. Where it gives none, that is the program's fault."""
        number = _handle_number(self.ask(op, **request))
        if number is None:
            raise ProgramError(f"what a test hands over is not there ({request.get('name', op)})")
        return number


def _handle_number(value: Any) -> int | None:
    return object.__getattribute__(value, "_number") if type(value) is Handle else None


def _exception(answer: dict[str, Any]) -> Exception:
    """The program's exception as ours, by name; those that would steer our own loops become RuntimeErrors."""
    name, text = str(answer["error"]), str(answer.get("text", ""))
    kind = getattr(builtins, name, None)
    is_usual = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, StopIteration)
    if not is_usual or name in ("StopAsyncIteration",):
        return ProgramError(f"{name}: {text}")
    try:
        return kind(text)  # pyright: ignore[reportOptionalCall]
    except TypeError:  # UnicodeDecodeError wants five arguments
        return ProgramError(f"{name}: {text}")


class Handle:
    """An object of the program's. It is equal to nothing but itself, whatever the program says."""

    __slots__ = ("_link", "_number")

    def __init__(self, link: _Link, number: int):
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: D102
        link = object.__getattribute__(self, "_link")
        return link.ask(
            "call",
            handle=object.__getattribute__(self, "_number"),
            arguments=link.encode(arguments),
            named=link.encode(named),
        )

    def __getattr__(self, name: str) -> Any:
        link = object.__getattribute__(self, "_link")
        return link.ask("attribute", handle=object.__getattribute__(self, "_number"), name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        link = object.__getattribute__(self, "_link")
        number = object.__getattribute__(self, "_number")
        link.ask("set", handle=number, name=name, value=link.encode(value))

    def _special(self, name: str, *arguments: Any) -> Any:
        link = object.__getattribute__(self, "_link")
        number = object.__getattribute__(self, "_number")
        return link.ask("special", handle=number, name=name, arguments=link.encode(arguments))

    def __iter__(self) -> Iterator[Any]:
        iterator = self._special("iter")
        while True:
            try:
                item = object.__getattribute__(self, "_link").ask("next", handle=_handle_number(iterator))
            except StopIteration:
                return
            yield item

    def __str__(self) -> str:
        return str(self._special("str"))

    def __repr__(self) -> str:
        return str(self._special("repr"))

    def __len__(self) -> int:
        return int(self._special("len"))

    def __bool__(self) -> bool:
        return self._special("bool") is True

    def __int__(self) -> int:
        return int(self._special("int"))

    def __float__(self) -> float:
        return float(self._special("float"))

    def __contains__(self, item: Any) -> bool:
        return self._special("contains", item) is True

    def __getitem__(self, key: Any) -> Any:
        return self._special("item", key)


class _Names(dict[str, Any]):
    """The tests' global names: their own, Python's, and last of all the program's."""

    def __init__(self, link: _Link, theirs: set[str]):
        super().__init__(__builtins__=builtins, __name__="tests")
        self._link, self._theirs = link, theirs

    def __missing__(self, name: str) -> Any:
        # A program that redefines `sorted` must not judge itself, unless the reference solution is called so.
        if hasattr(builtins, name) and name not in self._theirs:
            raise KeyError(name)
        try:
            found = self._link.ask("name", name=name)
        except AttributeError:
            raise NameError(f"name '{name}' is not defined") from None
        return found


class _Judge:
    def __init__(self, link: _Link, results: int):
        self._link, self._results = link, results

    def run(self, job: dict[str, Any]) -> None:
        kinds: dict[str, Callable[[dict[str, Any]], None]] = {
            "asserts": self._asserts,
            "check": self._check,
            "stdio": self._stdio,
            "calls": self._calls,
        }
        kinds[job["kind"]](job)

    def record(self, passed: bool, detail: str = "") -> None:
        wire.send(self._results, {"passed": passed, "detail": "" if passed else detail[:_MAX_DETAIL]})

    def _asserts(self, job: dict[str, Any]) -> None:
        """Each text is a test of its own."""
        names = self._prepared(job, set(job["names"]))
        for text in job["tests"]:
            self._one_assert(text, names)

    def _one_assert(self, text: str, names: _Names) -> None:
        try:
            code = compile(text, "<test>", "exec", dont_inherit=True)
        except SyntaxError as error:
            raise BrokenTests(f"{error.msg} in {text[:80]!r}") from None
        self._link.was_used = False
        try:
            exec(code, names)
        except ProgramEnded as error:
            self.record(False, str(error))
        except BrokenTests:
            raise
        except BaseException as error:
            if not self._link.was_used:
                raise BrokenTests(f"{_describe(error)} in {text[:80]!r}") from None
            self.record(False, f"{text[:80]}: {_describe(error)}")
        else:
            self.record(True)

    def _check(self, job: dict[str, Any]) -> None:
        """A function `check(candidate)`; each assert that it comes by is counted."""
        names = self._prepared(job, set())
        self._execute(job["test"], names)
        if not callable(dict.get(names, "check")):
            raise BrokenTests("the test defines no function 'check'")
        names["check"](self._named(job["entry_point"]))

    def _prepared(self, job: dict[str, Any], theirs: set[str]) -> _Names:
        """Names with the set-up run. Its classes are left to the program, which can be handed its own objects only."""
        names = _Names(self._link, theirs)
        names["__assert__"] = self.record
        self._execute(job["setup"], names, with_classes=False)
        self._link.shared = {
            value: name for name, value in names.items() if isinstance(value, types.FunctionType | type)
        }
        names.pop(job["entry_point"], None)  # HumanEval's set-up has the function's head
        return names

    def _execute(self, source: str, names: _Names, *, with_classes: bool = True) -> None:
        try:
            tree = _CountAsserts().visit(ast.parse(source))
            tree.body = [node for node in tree.body if with_classes or not isinstance(node, ast.ClassDef)]
            exec(compile(ast.fix_missing_locations(tree), "<tests>", "exec", dont_inherit=True), names)
        except ProgramEnded:
            raise
        except BaseException as error:
            if not self._link.was_used:
                raise BrokenTests(_describe(error)) from None
            raise

    def _stdio(self, job: dict[str, Any]) -> None:
        for given, expected in zip(job["inputs"], job["outputs"], strict=True):
            try:
                printed = self._link.ask("run", input=given)
            except (Exception, ProgramEnded) as error:
                self.record(False, _describe(error))
                continue
            self.record(isinstance(printed, str) and same_output(printed, expected), "another output")

    def _calls(self, job: dict[str, Any]) -> None:
        for given, expected in zip(job["inputs"], job["outputs"], strict=True):
            is_text = isinstance(given, str)
            arguments = _lines(given) if is_text else given
            wanted = _value(expected) if is_text and isinstance(expected, str) else expected
            try:
                found = self._function(job["entry_point"])(*arguments)
            except (Exception, ProgramEnded) as error:
                self.record(False, _describe(error))
                continue
            # Some sets (APPS) wrap the value in a list.
            wrapped = not is_text and isinstance(wanted, list) and len(wanted) == 1 and same_value(found, wanted[0])
            self.record(wrapped or same_value(found, wanted), "another value")

    def _function(self, name: str) -> Handle:
        """A function, or, as LeetCode has it, a method of the class `Solution`."""
        try:
            return self._named(name)
        except AttributeError:
            return self._named(f"Solution.{name}")

    def _named(self, name: str) -> Any:
        """A function, or a method of a new object: `Solution().add`, or without the brackets."""
        owner, _, method = name.rpartition(".")
        found = self._link.ask("name", name=owner.removesuffix("()") or method)
        return getattr(found(), method) if owner else found


def _lines(text: str) -> list[Any]:
    """LiveCodeBench's arguments: JSON, one a line."""
    return [_value(line) for line in text.split("\n") if line.strip()]


def _value(text: str) -> Any:
    """JSON, or Python, which some sets wrote where JSON was meant. Raises BrokenTests."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise BrokenTests(f"neither JSON nor a value of Python's: {text[:80]!r}") from None


class _CountAsserts(ast.NodeTransformer):
    """Turns `assert x, y` into a record of whether x held, and goes on to the next."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        outcome = ast.Call(ast.Name("bool", ast.Load()), [node.test], [])
        detail = ast.Constant(ast.unparse(node.test)[:_MAX_DETAIL])
        record = ast.Expr(ast.Call(ast.Name("__assert__", ast.Load()), [outcome, detail], []))
        return ast.copy_location(record, node)


def _describe(error: BaseException) -> str:
    if isinstance(error, ProgramEnded | ProgramError | BrokenTests):
        return str(error)
    return f"{type(error).__name__}: {error}"
