"""IFEval's prompts with verifiable constraints (Zhou et al., arXiv 2311.07911), from the hub or local files.

Its relatives are read as they are: M-IFEval in Spanish, KITE in Korean (the prompt is in `instruction` there). Rows
that `rewards.instructions` cannot judge are left out. All of the sets are test data; see `data.constraints` for rows to
train on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from data.files import Row, read
from rewards.instructions import unsupported


def prompts(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = "google/IFEval",
    language: str = "en",
    whole: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the prompts, with `instruction_id_list` and `kwargs`; `language` is that of the set.

    `path`, `name` and `whole`: see `data.files.read` (else one row in eight is for testing). Raises UserError, naming
    file and line.
    """
    rows = read(split, path=path, hub=name, key=("prompt", "instruction"), only_split="train", whole=whole)
    found = (_row(row, language) for row in rows)
    return (row for row in found if unsupported(row["instruction_id_list"], row["kwargs"]) is None)


def _row(row: Row, language: str) -> dict[str, Any]:
    content = row.content if isinstance(row.content, dict) else {}
    prompt = content.get("prompt") or content.get("instruction")
    if not isinstance(prompt, str) or not isinstance(content.get("instruction_id_list"), list):
        raise UserError(f"{row.place}: rows need 'prompt' (or 'instruction'), 'instruction_id_list' and 'kwargs'")
    return {
        "id": f"ifeval/{language}/{row.split}/{row.line}",
        "messages": [{"role": "user", "content": prompt}],
        "domain": "instructions",
        "language": language,
        "instruction_id_list": content["instruction_id_list"],
        "kwargs": content.get("kwargs"),
    }
