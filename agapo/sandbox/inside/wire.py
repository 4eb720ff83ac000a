"""Frames and values on the wire between the candidate's container and the judge's.

A frame is a length (4 bytes, big-endian) and JSON. Values cross as plain data, so nothing that the candidate made can
answer for itself on the judge's side: subclasses arrive as the plain type, and what is not data (a function, an object
with a lying `__eq__`) stays where it is and crosses as a numbered handle. Only `decode` meets what is not trusted.
"""

import json
import math
import os
import struct
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

LENGTH = struct.Struct(">I")
MAX_FRAME = 16 << 20
_PLAIN_BITS = 64
"""Larger integers cross in hexadecimal, which takes linear time."""
_CONTAINERS: tuple[tuple[type, str], ...] = (
    (tuple, "t"),
    (set, "s"),
    (frozenset, "z"),
    (deque, "q"),
)
_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(bool, int, float, complex, str, bytes, bytearray, range),
        *(list, tuple, set, frozenset, dict, type(None)),
    )
}
_TIMES: dict[type, Callable[[str], Any]] = {kind: kind.fromisoformat for kind in (date, datetime, time)}


class WireError(Exception):
    """A value that cannot cross, or bytes that are none."""


def send(descriptor: int, message: Any) -> None:
    """Write a frame. Raises WireError when the message is too large, OSError when nobody listens."""
    content = json.dumps(message, check_circular=False).encode()
    if len(content) > MAX_FRAME:
        raise WireError(f"a message of {len(content)} bytes is too large")
    view = memoryview(LENGTH.pack(len(content)) + content)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int, wait: Callable[[int], None] = lambda descriptor: None) -> Any:
    """Read a frame; `wait` is called before each read, and may raise.

    Raises EOFError when the other side is gone, WireError when it wrote something else.
    """
    size = LENGTH.unpack(_exactly(descriptor, LENGTH.size, wait))[0]
    if size > MAX_FRAME:
        raise WireError("not a frame")
    content = _exactly(descriptor, size, wait)
    try:
        return json.loads(content)
    except (ValueError, RecursionError, MemoryError) as error:
        raise WireError(f"not a frame: {type(error).__name__}") from None


def _exactly(descriptor: int, size: int, wait: Callable[[int], None]) -> bytes:
    content = bytearray()
    while len(content) < size:
        wait(descriptor)
        chunk = os.read(descriptor, min(size - len(content), 1 << 20))
        if not chunk:
            raise EOFError
        content += chunk
    return bytes(content)


def encode(value: Any, handle: Callable[[Any], int | None], *, keep: bool = False) -> Any:
    """Return a value as JSON; `handle` gives the number of what is not data, or None where that may not cross.

    With `keep` it is asked about subclasses of tuples and dicts first, which else cross as what they are based on.
    Raises WireError for what may not cross.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int.__int__(value)
        return number if number.bit_length() <= _PLAIN_BITS else {"i": hex(number)}
    if isinstance(value, float):
        number = float.__float__(value)
        return number if math.isfinite(number) else {"f": repr(number)}
    if keep and isinstance(value, tuple | dict) and type(value) not in (tuple, dict):
        number = handle(value)
        if number is not None:
            return {"h": number}
    return _encode_container(value, handle, keep)


def _encode_container(value: Any, handle: Callable[[Any], int | None], keep: bool) -> Any:
    def inner(item: Any) -> Any:
        return encode(item, handle, keep=keep)

    if isinstance(value, list):
        return list(map(inner, list.__iter__(value)))
    if isinstance(value, dict):
        return {"d": [[inner(key), inner(item)] for key, item in dict.items(value)]}
    for kind, tag in _CONTAINERS:
        if isinstance(value, kind):
            return {tag: list(map(inner, kind.__iter__(value)))}
    return _encode_rare(value, handle)


def _encode_rare(value: Any, handle: Callable[[Any], int | None]) -> Any:
    if isinstance(value, bytes | bytearray):
        return {"b" if isinstance(value, bytes) else "a": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [repr(value.real), repr(value.imag)]}
    if type(value) is range:
        return {"r": [value.start, value.stop, value.step]}
    if type(value) is Decimal:
        return {"D": str(value)}
    if type(value) is Fraction:
        return {"F": [hex(value.numerator), hex(value.denominator)]}
    if type(value) is timedelta:
        return {"l": [value.days, value.seconds, value.microseconds]}
    if type(value) in _TIMES and getattr(value, "tzinfo", None) is None:
        return {"m": [type(value).__name__, value.isoformat()]}
    for name, kind in _TYPES.items():
        if value is kind:
            return {"T": name}
    number = handle(value)
    if number is None:
        raise WireError(f"a value of type {type(value).__name__} cannot be handed to the program")
    return {"h": number}


def decode(content: Any, handle: Callable[[int], Any]) -> Any:
    """Return the value of some JSON; `handle` gives what a number stands for. Raises WireError."""
    try:
        return _decode(content, handle)
    except WireError:
        raise
    except Exception as error:
        raise WireError(f"not a value: {type(error).__name__}") from None


def _decode(content: Any, handle: Callable[[int], Any]) -> Any:
    if isinstance(content, list):
        return [_decode(item, handle) for item in content]
    if not isinstance(content, dict):
        return content
    ((tag, inner),) = content.items()
    if tag == "d":
        return {_decode(key, handle): _decode(item, handle) for key, item in inner}
    if tag in ("t", "s", "z", "q"):
        kind: Callable[[list[Any]], Any] = {"t": tuple, "s": set, "z": frozenset, "q": deque}[tag]
        return kind([_decode(item, handle) for item in inner])
    if tag == "h":
        return handle(int(inner))
    return _RARE[tag](inner)


_RARE: dict[str, Callable[[Any], Any]] = {
    "i": lambda text: int(text, 16),
    "f": float,
    "b": bytes.fromhex,
    "a": bytearray.fromhex,
    "c": lambda parts: complex(float(parts[0]), float(parts[1])),
    "r": lambda parts: range(*map(int, parts)),
    "D": Decimal,
    "F": lambda parts: Fraction(int(parts[0], 16), int(parts[1], 16)),
    "l": lambda parts: timedelta(*map(int, parts)),
    "m": lambda parts: {kind.__name__: parse for kind, parse in _TIMES.items()}[parts[0]](parts[1]),
    "T": lambda name: _TYPES[name],
}
