"""What a line of `responses.jsonl` and of `pairs.jsonl` holds, and reading them with every mistake named by line."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agapo.errors import UserError
from agapo.schema import Finish, Mode

Kind = Literal["incorrect", "longer", "preferred", "given"]
TokenIds = Annotated[list[int], Field(min_length=1)]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    id: str
    mode: Mode
    domain: str
    language: str
    prompt: list[dict[str, Any]]
    tools: list[Any] | None = None


class ResponseRow(_Row):
    """A sampled response with what the rewards say of it. More columns are for people and other programs."""

    visit: int
    response: str
    correct: bool | None
    reward: float | None
    reward_parts: dict[str, float | None]
    reward_error: str | None
    finish: Finish
    token_ids: TokenIds


class PairRow(_Row):
    """Two responses to a prompt, as texts and as the tokens to train on. More columns, as above."""

    kind: Kind
    chosen: str
    rejected: str
    chosen_tokens: int
    rejected_tokens: int
    prompt_ids: TokenIds
    chosen_ids: TokenIds
    rejected_ids: TokenIds


def is_row(kind: type[_Row], value: Any) -> bool:
    """Return whether a value is a row of this kind."""
    try:
        kind.model_validate(value)
    except ValidationError:
        return False
    return True


def read_rows(kind: type[_Row], path: Path, key: str, mend: str = "make it anew") -> list[dict[str, Any]]:
    """Return the rows of a JSON lines file, all columns kept.

    Raises UserError naming `key`, file, line, field and `mend` where the file is missing, or a line is torn or no such
    row.
    """
    if not path.is_file():
        raise UserError(f"{key}: {path}: no such file")
    rows = []
    # Not `splitlines`, which also splits at separators that a text may hold.
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(json.loads(line))
                kind.model_validate(rows[-1])
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(map(str, first["loc"])) or "the line"
                raise UserError(f"{key}: {path}:{number}: {field}: {_lower(first['msg'])}; {mend}") from None
            except ValueError:
                raise UserError(f"{key}: {path}:{number}: not JSON, so cut off or changed; {mend}") from None
    return rows


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
