"""The form in which a reward reads a chat: TRL's two, messages or texts, and the project's own, a chat and its answer.

              prompts                     completions
    own       [{"role": …}, …]            "…"
    messages  [{"role": …}, …]            [{"role": "assistant", "content": "…"}]      TRL, conversational data
    text      "…"                         "…"                                          TRL, plain texts

A term that names no form is watched: it gets the own form in objects that notice when a text is read as messages
(`completion[0]["content"]`) or a chat as a text (`prompt.strip()`), and is then called again in the form that it reads.
So what decides is how the function reads, never what a response says, and no function is called twice that reads the
own form. What only plain types would tell (a regular expression over `prompts`) is left to the recipe: `form: text`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, SupportsIndex, TypeVar

from agapo.errors import UserError

Form = Literal["auto", "messages", "text"]
T = TypeVar("T")
Chat = Sequence[Mapping[str, Any]]


class Forms:
    """Calls one reward function with chats in the form that it reads."""

    def __init__(self, form: Form = "auto", term: str = ""):
        self._term = term
        self.form: Form = form
        """`auto` until the function has read a chat in one of TRL's forms."""

    def ask(self, call: Callable[[Any, list[Any]], T], prompt: Chat, completions: Sequence[str]) -> T:
        """Return `call(prompt, completions)`; both are in the function's form.

        Raises UserError where the function reads one of TRL's forms, and cannot know which.
        """
        if self.form == "auto":
            watch = Watch()
            try:
                returned, failure = _watched(watch, call, prompt, completions), None
            except BaseException as error:
                returned, failure = None, error
            if watch.at_nothing and not watch.form and _reads_messages(call, prompt, completions):
                watch.messages()
            if not watch.form:
                return self._outcome(returned, failure, watch)
            self.form = watch.form
        return call(*_written(self.form, prompt, completions))

    def _outcome(self, returned: Any, failure: BaseException | None, watch: "Watch") -> Any:
        if watch.unclear:
            raise UserError(
                f"reward '{self._term}' joins prompt and completion, which here are a chat and a text: say with "
                "'form: messages' or 'form: text' in its term which form it takes for both"
            )
        if failure:
            raise failure
        return returned


class Watch:
    """What the objects of one call have noticed."""

    def __init__(self) -> None:
        self.form: Literal["messages", "text"] | None = None
        self.at_nothing = False
        """Whether the first character of an empty text was looked for: it might have been meant as a message."""
        self.unclear = False
        """Whether a prompt and its completion were joined: both are of one form, and nothing says of which."""

    def messages(self) -> None:
        """Note that a completion is read as messages, which outweighs whatever the prompt is read as."""
        self.form = "messages"

    def text(self) -> None:
        """Note that a prompt is read as a text."""
        self.form = self.form or "text"


def _written(form: Literal["messages", "text"], prompt: Chat, completions: Sequence[str]) -> tuple[Any, list[Any]]:
    if form == "messages":
        return [dict(turn) for turn in prompt], [[{"role": "assistant", "content": text}] for text in completions]
    return "\n\n".join(str(turn.get("content") or "") for turn in prompt), list(completions)


def _watched(watch: Watch, call: Callable[[Any, list[Any]], T], prompt: Chat, completions: Sequence[str]) -> T:
    return call(WatchedChat(prompt, watch), [WatchedText(text, watch) for text in completions])


def _reads_messages(call: Callable[[Any, list[Any]], Any], prompt: Chat, completions: Sequence[str]) -> bool:
    """Whether a function that looked into an empty text reads messages: a text that is not empty in its place tells."""
    watch = Watch()
    with contextlib.suppress(BaseException):
        _watched(watch, call, prompt, [text or " " for text in completions])
    return watch.form == "messages"


# --- objects that notice ---


class WatchedText(str):
    """A response's text, which notices when it is read as a list of messages; in all else it is that text."""

    watch: Watch

    def __new__(cls, text: str, watch: Watch) -> "WatchedText":
        """Return the text, watched."""
        own = super().__new__(cls, text)
        own.watch = watch
        return own

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if isinstance(key, slice):
            return super().__getitem__(key)
        self.watch.at_nothing |= not self
        return _Character(super().__getitem__(key), self.watch)

    def __iter__(self) -> Iterator[str]:
        return (_Character(character, self.watch) for character in super().__iter__())

    def __radd__(self, other: Any) -> Any:
        if isinstance(other, list):
            self.watch.messages()
        return NotImplemented

    def __getattr__(self, name: str) -> Any:
        if hasattr(list, name) and not name.startswith("__"):
            self.watch.messages()
        raise AttributeError(f"'str' object has no attribute {name!r}")

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class _Character(WatchedText):
    """A character of a response, which notices when it is read as a message."""

    def __getitem__(self, key: Any) -> str:
        if isinstance(key, str):
            self.watch.messages()
        return str(self)[key]  # pyright: ignore[reportArgumentType]  # as a text refuses it

    def __iter__(self) -> Iterator[str]:
        return iter(str(self))

    def __contains__(self, key: object) -> bool:
        if isinstance(key, str) and len(key) > 1:
            self.watch.messages()
        return str(key) in str(self)

    def __getattr__(self, name: str) -> Any:
        if hasattr(dict, name) and not name.startswith("__"):
            self.watch.messages()
        raise AttributeError(f"'str' object has no attribute {name!r}")


class WatchedChat(list[Any]):
    """A prompt's messages, which notice when they are read as a text; in all else they are that list."""

    def __init__(self, turns: Chat, watch: Watch):
        super().__init__(dict(turn) for turn in turns)
        self.watch = watch

    def __contains__(self, item: object) -> bool:
        if isinstance(item, str):
            self.watch.text()
        return super().__contains__(item)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, WatchedText):
            self.watch.unclear = True
            raise TypeError('can only concatenate list (not "str") to list')
        if isinstance(other, str):
            self.watch.text()
        return list(self) + other  # pyright: ignore[reportOperatorIssue]

    def __radd__(self, other: Any) -> Any:
        if isinstance(other, str):
            self.watch.text()
        return NotImplemented

    def __getattr__(self, name: str) -> Any:
        if hasattr(str, name) and not name.startswith("__"):
            self.watch.text()
        raise AttributeError(f"'list' object has no attribute {name!r}")

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(self),)
