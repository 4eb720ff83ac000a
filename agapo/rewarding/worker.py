"""A verifier worker: the process that calls the reward functions, one sample at a time.

Started by `agapo.rewarding.process` as `python -m agapo.rewarding.worker PARENT_PID`. Frames are a
length (8 bytes, big-endian) and a pickle.

On standard input: first the terms, `{name: ('module:function', args, form)}`; then for each request two frames, the
names of the terms that are asked, and the sample: `(prompt, completion, columns)`, or `(prompt, completions, scores,
columns)` for the terms that judge a group. On what was standard output: `("importing", term)` before each import, then
`("ready", group terms)` or `("failed", message)`; for each request one `(term, value, error, detail)` a term, as soon
as it is known, so that a term that hangs takes no finished one with it.

The sandbox for model-written code is elsewhere (`agapo.sandbox`): a reward itself is trusted, but it may hang or die.
"""

import contextlib
import ctypes
import inspect
import math
import numbers
import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agapo.errors import UserError
from agapo.resolve import did_you_mean, resolve
from agapo.rewarding.forms import Form, Forms

LENGTH = struct.Struct(">Q")
_PR_SET_PDEATHSIG = 1
_MAX_DETAIL = 500

Value = float | list[float | None] | None
"""What a term returns: one value, or one for each response of a group."""
Outcome = tuple[str, Value, str | None, str]
"""(term, value, error, detail)."""


@dataclass(frozen=True)
class _Reward:
    function: Callable[..., Any]
    args: Mapping[str, Any]
    judges_groups: bool
    forms: Forms

    def __call__(self, sample: tuple[Any, ...]) -> Value:
        if self.judges_groups:
            prompt, completions, scores, columns = sample
            named = {**columns, **self.args}
            returned = self.forms.ask(
                lambda chat, texts: self.function(chat, texts, scores, **named), prompt, completions
            )
            return _checked(returned, len(completions))
        prompt, completion, columns = sample
        named = {**{name: [value] for name, value in columns.items() if self._takes(name)}, **self.args}
        returned = self.forms.ask(
            lambda chat, texts: self.function(**{**named, "prompts": [chat], "completions": texts}),
            prompt,
            [completion],
        )
        return _checked(returned, 1)[0]

    def _takes(self, column: str) -> bool:
        """Token ids are no column of the data: a function that lists its columns need not list them."""
        return column != "completion_ids" or column in inspect.signature(self.function).parameters


def main() -> None:
    """Serve samples until the parent closes the pipe."""
    _die_with_parent(int(sys.argv[1]))
    requests, replies = _take_standard_streams()
    rewards = _import_rewards(_read(requests), replies)
    while rewards:
        names, sample = _read_bytes(requests), _read_bytes(requests)
        if names is None or sample is None:
            return
        for outcome in _score(rewards, pickle.loads(names), sample):
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


def _import_rewards(terms: Mapping[str, tuple[str, Mapping[str, Any], Form]], replies: int) -> dict[str, _Reward]:
    """Resolve every function; empty when one cannot be."""
    rewards: dict[str, _Reward] = {}
    for term, (name, args, form) in terms.items():
        _write(replies, ("importing", term))
        try:
            rewards[term] = _reward(term, name, args, form)
        except UserError as error:
            _write(replies, ("failed", _one_line(str(error))))
            return {}
        except BaseException as error:
            _write(replies, ("failed", f"reward '{term}': importing '{name}' raised {_name(error)}"))
            return {}
    _write(replies, ("ready", [term for term, reward in rewards.items() if reward.judges_groups]))
    return rewards


def _reward(term: str, name: str, args: Mapping[str, Any], form: Form) -> _Reward:
    function = resolve(name, key=f"reward '{term}'")
    require_arguments(term, name, function, args)
    if makes_reward(function):
        function, args = made_reward(term, name, function, args), {}
    return _Reward(function, args, "scores" in inspect.signature(function).parameters, Forms(form, term))


def makes_reward(function: Callable[..., Any]) -> bool:
    """Whether a function makes a reward from its arguments, as TRL's `get_…`.

    It takes neither prompts nor completions, and so could not be called as a reward.
    """
    parameters = inspect.signature(function).parameters.values()
    names = {parameter.name for parameter in parameters}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    return not takes_any and not names & {"prompts", "completions", "prompt", "scores"}


def made_reward(term: str, name: str, maker: Callable[..., Any], args: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the reward that a function makes. Raises UserError where it makes none."""
    try:
        reward = maker(**args)
    except Exception as error:  # a maker may raise anything
        raise UserError(f"reward '{term}': args: '{name}' makes no reward of them: {_name(error)}") from None
    if not callable(reward):
        raise UserError(f"reward '{term}': '{name}' takes neither prompts nor completions, and makes no function")
    return reward


def require_arguments(term: str, name: str, function: Callable[..., Any], args: Mapping[str, Any]) -> None:
    """Raise UserError where a recipe gives a reward an argument that it does not name."""
    parameters = inspect.signature(function).parameters.values()
    own = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    for given in args:
        if given not in own:
            raise UserError(f"reward '{term}': args.{given}: '{name}' takes no such argument{did_you_mean(given, own)}")


def _score(rewards: Mapping[str, _Reward], names: Sequence[str], frame: bytes) -> Iterable[Outcome]:
    """Return each term's outcome, as soon as it is asked for."""
    try:
        sample = pickle.loads(frame)
    except BaseException as error:
        return [(term, None, "infrastructure", f"cannot unpickle the sample: {_name(error)}") for term in names]
    return (_call(term, rewards[term], sample) for term in names)


def _call(term: str, reward: _Reward, sample: tuple[Any, ...]) -> Outcome:
    try:
        return term, reward(sample), None, ""
    except _BadReturn as error:
        return term, None, "bad_return", _one_line(str(error))
    except ConnectionError as error:  # a judge that is down, a sandbox that cannot be made
        return term, None, "infrastructure", _name(error)
    except UserError as error:
        return term, None, "user_error", _one_line(str(error))
    except BaseException as error:
        return term, None if reward.judges_groups else 0.0, "exception", _name(error)


class _BadReturn(Exception):
    """The reward returned something else than a value for each completion."""


def _checked(returned: Any, count: int) -> list[float | None]:
    """Return the values in `returned`. Raises _BadReturn when that is not a list of `count` finite numbers or None."""
    if not isinstance(returned, list) or len(returned) != count:
        values = "one value for one completion" if count == 1 else f"{count} values for {count} completions"
        raise _BadReturn(f"should return a list with {values}, got {_shape(returned)}")
    return [_finite(value) for value in returned]


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, numbers.Real) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an int may be too large for a float
        pass
    raise _BadReturn(f"should return finite numbers or None, got {_shape(value)}")


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
