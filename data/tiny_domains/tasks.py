"""What the five domains share: the record of a task, its split, and Korean particles."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LANGUAGES = ("en", "ko", "es")
TEST_SHARE = 8
"""One question in so many is for testing."""


@dataclass(frozen=True)
class Task:
    """A chat that waits for the assistant's turn, that turn, and what judges it."""

    task: str
    """What kind of task of its domain this is, such as `sum`."""
    language: str
    messages: Sequence[Mapping[str, Any]]
    """The chat up to the turn to answer."""
    worked: str
    """Thinking in sentences."""
    terse: str
    """The same thinking in as few words as it takes. Both are right."""
    content: str
    """The answer."""
    plain: str = ""
    """The answer in non-reasoning mode, where that is another one: with the working in it."""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What the reward reads."""
    key: str = ""
    """What the split goes by, where that is not the question's text."""

    @property
    def question(self) -> str:
        """The text that makes this task different from others."""
        return "\n".join(str(message.get("content") or message.get("tool_calls")) for message in self.messages)

    @property
    def is_test(self) -> bool:
        """Whether this is for testing: a hash of the question decides, whatever the seed."""
        return hashlib.sha256((self.key or self.question).encode()).digest()[0] % TEST_SHARE == 0


def ask(text: str) -> list[dict[str, Any]]:
    """Return a chat of one question."""
    return [{"role": "user", "content": text}]


def boxed(answer: object) -> str:
    r"""Return `\boxed{answer}`."""
    return f"\\boxed{{{answer}}}"


def gold_text(answer: str) -> dict[str, str]:
    r"""Return the column `answer` for words: as `\text{…}`, lest the verifier read them as products of variables."""
    return {"answer": f"\\text{{{answer}}}"}


def particle(word: str, after_consonant: str, after_vowel: str) -> str:
    """Return a Korean word with the particle that its last syllable asks for: 물+을, 우유+를."""
    has_final = (ord(word[-1]) - ord("가")) % 28 != 0
    return word + (after_consonant if has_final else after_vowel)
