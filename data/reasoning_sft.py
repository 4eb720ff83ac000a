"""Math, code and logic with several different responses a question: a public set, and a generator.

`public` reads `open-thoughts/OpenThoughts3-1.2M` (Apache-2.0; `conversations` with `from` and `value`, `domain`,
`source`, `difficulty`): 16 responses a question, thinking in `<think>` tags. `open-r1/Mixture-of-Thoughts` (`messages`)
is read the same way with `config: math`, `code` or `science`.

`dialogues` and `prompts` make up word problems (en, ko, es), functions on lists (en) and logic puzzles (en), each with
up to three different ways to the answer. `rewards.math_answer:score` judges math and logic, `rewards.unit_tests:score`
the functions.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from agapo.errors import UserError
from data import files
from data.generated import list_functions, logic_puzzles, word_problems
from data.generating import LANGUAGES, Item, UpTo, chosen, dialogue_rows, prompt_rows

PUBLIC = "open-thoughts/OpenThoughts3-1.2M"
KINDS = ("math", "code", "logic")
_DOMAINS = {"math": "math", "code": "code", "science": "world"}
"""What the public set calls a domain, and what it is called here."""


def public(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = PUBLIC,
    config: str | None = None,
    only_split: str = "train",
    kinds: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the public set's chats as rows for SFT, all or those of some domains (`math`, `code`, `science`).

    A question's responses are all in one split. `path`, `name`, `config` and `only_split`: see `data.files.dialogues`.
    Raises UserError for `kinds` where the rows name no domain.
    """
    wanted = chosen("kinds", kinds, tuple(_DOMAINS)) if kinds else None
    rows = files.dialogues(
        split, path=path, name=name, config=config, only_split=only_split, domain="", task="reasoning"
    )
    found = (_placed(row, wanted, config or "") for row in rows)
    return (row for row in found if row is not None)


def _placed(row: dict[str, Any], wanted: Sequence[str] | None, config: str) -> dict[str, Any] | None:
    """Return the row with this project's domain, None where it is not wanted."""
    named = f"{row['domain']} {config} {row.get('source', '')}".lower()
    theirs = next((name for name in _DOMAINS if name in named), None)
    if wanted and theirs is None:
        raise UserError(f"{row['place']}: 'domain' and 'source' name none of {', '.join(_DOMAINS)}; leave kinds out")
    if wanted and theirs not in wanted:
        return None
    return row | {"domain": _DOMAINS[theirs] if theirs else "world", "task": theirs or row["task"]}


def prompts(
    split: str,
    *,
    size: int = UpTo(400),
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield up to `size` different questions of the kinds `math`, `code` and `logic`, with what their reward reads."""
    return prompt_rows("reasoning", _makers(kinds, languages), split, seed, size)


def dialogues(
    split: str,
    *,
    size: int = UpTo(4000),
    seed: int = 0,
    reasoning: float = 0.6,
    responses: int = 2,
    kinds: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield up to `responses` different rows for each of `size` questions; `reasoning` is the share that thinks."""
    return dialogue_rows("reasoning", _makers(kinds, languages), split, seed, size, reasoning, responses)


def _makers(kinds: Sequence[str] | None, languages: Sequence[str] | None) -> dict[str, Callable[[Random], Item]]:
    """Each kind has three makers, so that none outweighs another."""
    spoken = chosen("languages", languages, LANGUAGES)
    makers: dict[str, Callable[[Random], Item]] = {}
    for kind in chosen("kinds", kinds, KINDS):
        if kind == "math":
            makers |= {f"math/{language}": partial(word_problems.item, language) for language in spoken}
        elif "en" in spoken:
            found = list_functions.MAKERS if kind == "code" else logic_puzzles.MAKERS
            makers |= {f"{kind}/{name}": make for name, make in found.items()}
    if not makers:
        raise UserError(f"data.args.kinds: {', '.join(kinds or ())} come in English only; add 'en' to languages")
    return makers
