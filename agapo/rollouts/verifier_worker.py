"""A verifier worker: the process that calls the reward functions, one sample at a time.

Started by `agapo.rollouts.verifier_process` as `python -m agapo.rollouts.verifier_worker PARENT_PID`. Frames are a
length (8 bytes, big-endian) and a pickle. On standard input: first the functions, `{term: 'module:function'}`, then
one sample a frame, `(prompt, completion, columns)`. On what was standard output: `("importing", term)` before each
import, then `("ready",)` or `("failed", message)`; for each sample one `(term, value, error, detail)` a term, as soon
as it is known, so that a term that hangs takes no finished one with it.

The sandbox for model-written code is elsewhere (`agapo.sandbox`): a reward itself is trusted, but it may hang or die.
"""

import contextlib
import ctypes
import math
import numbers
import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agapo.errors import UserError
from agapo.resolve import resolve

LENGTH = struct.Struct(">Q")
_PR_SET_PDEATHSIG = 1
_MAX_DETAIL = 500

Reward = Callable[..., Any]
Outcome = tuple[str, float | None, str | None, str]
"""(term, value, error, detail)."""


def main() -> None:
    """Serve samples until the parent closes the pipe."""
    _die_with_parent(int(sys.argv[1]))
    requests, replies = _take_standard_streams()
    functions = _import_functions(_read(requests), replies)
    while functions:
        frame = _read_bytes(requests)
        if frame is None:
            return
        for outcome in _score(functions, frame):
            _write(replies, outcome)


def _die_with_parent(parent: int) -> None:
    """Ask Linux for SIGKILL when the parent's thread ends: a reward that hangs never sees the end of the input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit()


def _take_standard_streams() -> tuple[int, int]:
    """Move the frames to private descriptors, so that a reward that prints or reads cannot corrupt them."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return requests, replies


def _import_functions(names: Mapping[str, str], replies: int) -> dict[str, Reward]:
    """Resolve every function; empty when one cannot be."""
    functions: dict[str, Reward] = {}
    for term, name in names.items():
        _write(replies, ("importing", term))
        try:
            functions[term] = resolve(name, key=f"reward '{term}'")
        except UserError as error:
            _write(replies, ("failed", _one_line(str(error))))
            return {}
        except BaseException as error:
            _write(replies, ("failed", f"reward '{term}': importing '{name}' raised {_name(error)}"))
            return {}
    _write(replies, ("ready",))
    return functions


def _score(functions: Mapping[str, Reward], frame: bytes) -> Iterable[Outcome]:
    """Return each term's outcome, as soon as it is asked for."""
    try:
        prompt, completion, columns = pickle.loads(frame)
    except BaseException as error:
        return [(term, None, "infrastructure", f"cannot unpickle the sample: {_name(error)}") for term in functions]
    arguments = {name: [value] for name, value in columns.items()}
    arguments.update(prompts=[prompt], completions=[completion])
    return (_call(term, function, arguments) for term, function in functions.items())


def _call(term: str, function: Reward, arguments: Mapping[str, list[Any]]) -> Outcome:
    try:
        returned = function(**arguments)
    except BaseException as error:
        return term, 0.0, "exception", _name(error)
    try:
        return term, _checked(returned), None, ""
    except (ValueError, OverflowError) as error:  # an int may be too large for a float
        return term, None, "bad_return", _one_line(str(error))


def _checked(returned: Any) -> float | None:
    """Return the one value in `returned`. Raises ValueError when that is not a list of one finite number or None."""
    if not isinstance(returned, list) or len(returned) != 1:
        raise ValueError(f"should return a list with one value for one completion, got {_shape(returned)}")
    value = returned[0]
    if value is None:
        return None
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"should return finite numbers or None, got {_shape(value)}")
    return float(value)


def _shape(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value) if isinstance(value, float) else f"a {type(value).__name__}"


def _name(error: BaseException) -> str:
    with contextlib.suppress(Exception):  # an error's own __str__ may fail
        return _one_line(f"{type(error).__name__}: {error}")
    return type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MAX_DETAIL]


# --- frames ---


def frame(message: Any) -> bytes:
    """Return the message as bytes to send."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(content)) + content


def _write(descriptor: int, message: Any) -> None:
    view = memoryview(frame(message))
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int) -> Any:
    content = _read_bytes(descriptor)
    return {} if content is None else pickle.loads(content)


def _read_bytes(descriptor: int) -> bytes | None:
    """Return one frame's content; None when the parent has closed the pipe."""
    header = _read_exactly(descriptor, LENGTH.size)
    return None if header is None else _read_exactly(descriptor, LENGTH.unpack(header)[0])


def _read_exactly(descriptor: int, size: int) -> bytes | None:
    content = bytearray()
    while len(content) < size:
        chunk = os.read(descriptor, min(size - len(content), 1 << 20))
        if not chunk:
            return None
        content += chunk
    return bytes(content)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        main()
