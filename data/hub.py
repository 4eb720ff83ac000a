"""Any data set of questions for RL, by its name on the Hugging Face hub: no Python where a built-in reward fits.

The recipe names subset, splits and columns. A folder that `datasets.load_dataset` reads is a name as well.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read
from data.layouts import Unreadable, chat_of, with_system


def prompts(
    split: str,
    *,
    name: str = "",
    path: str | Path | None = None,
    config: str | None = None,
    splits: Mapping[str, str] | None = None,
    streaming: bool = False,
    limit: int | None = None,
    whole: bool = False,
    prompt: str = "prompt",
    columns: Mapping[str, str] | None = None,
    system: str = "",
    instruction: str = "",
    domain: str = "math",
    language: str = "en",
) -> Iterator[dict[str, Any]]:
    """Yield the questions of a split, `train` or `test`, of the hub's data set `name` (or of local files in `path`).

    config: the subset, where the set has several. splits: what the set calls its splits, {ours: theirs}; where only
    `train` is named, a hash of the question gives one row in eight to `test`. streaming: read rows as they come,
    without downloading the set; `limit` takes the first so many of a split. whole: all of a local file is for testing,
    as a benchmark is. prompt: the column with the question, a
    text or a list of turns. columns: renames others, {theirs: ours}, for the reward to find (`answer`). `system` is the
    first turn, `instruction` follows the question; `domain` and `language` are for rows without such a column.

    Raises UserError naming set or file, row and column.
    """
    if path is None and not name:
        raise UserError("data.args: data.hub:prompts needs the name of a data set (args: {name: …})")
    named = dict(splits or {"train": "train", "test": "test"})
    if not set(named) <= {"train", "test"} or "train" not in named:
        raise UserError(f"data.args.splits: is {named}; should name the set's splits, {{train: …, test: …}}")
    rows = read(
        split,
        path=path,
        hub=name,
        config=config,
        only_split=named["train"] if "test" not in named else "",
        splits=named,
        streaming=streaming,
        whole=whole,
        key=prompt,
    )
    about = {"domain": domain, "language": language}
    return (_question(row, prompt, dict(columns or {}), system, instruction, about) for row in islice(rows, limit))


def _question(
    row: Row, prompt: str, renamed: Mapping[str, str], system: str, instruction: str, about: Mapping[str, str]
) -> dict[str, Any]:
    content = row.content if isinstance(row.content, dict) else {}
    if missing := [name for name in (prompt, *renamed) if content.get(name) is None]:
        key = "prompt" if missing[0] == prompt else "columns"
        there = ", ".join(f"'{name}'" for name in content) or "none"
        raise UserError(f"{row.place}: no column '{missing[0]}' (data.args.{key}); the row has {there}")
    asked = content[prompt]
    try:
        messages = (chat_of({"prompt": asked, "completion": "…"}) or [])[:-1]
        messages = with_system(messages, {"system": system})
    except Unreadable as reason:
        raise UserError(f"{row.place}: {reason}") from None
    if not messages or not all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in messages):
        raise UserError(f"{row.place}: column '{prompt}' is {str(asked)[:40]!r}; should be a text or a list of turns")
    if instruction:
        messages[-1] = {**messages[-1], "content": f"{messages[-1]['content'].strip()}\n\n{instruction}"}
    others = {renamed.get(name, name): value for name, value in content.items() if name != prompt and value is not None}
    return {**about, **others, "messages": messages}
