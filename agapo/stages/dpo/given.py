"""Pairs that exist already (`pairs.rows`), as tokens: nothing is sampled, the rest of the stage is the same.

source ──row──► prompt, chosen, rejected ──chat template──► tokens ──► pairs.jsonl
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerBase

from agapo.curation.dialogues import normal_dialogue, row_examples
from agapo.curation.pairs import Paired
from agapo.curation.prompts import read_rows
from agapo.curation.text import completion
from agapo.errors import UserError
from agapo.recipe.pairs import PairRowsConfig
from agapo.stages.running.dialogues import SHOWN_MISTAKES

Rows = list[dict[str, Any]]


def given_pairs(
    own: PairRowsConfig, tokenizer: PreTrainedTokenizerBase, *, most: int | None = None
) -> tuple[Rows, Paired]:
    """Return the pairs of the recipe's rows (the first `most` of them) as rows, and why other rows give none.

    Raises UserError naming file and line of rows that are no pairs (the first few), unless the recipe drops them.
    """
    rows, without, mistakes = [], {}, []
    for number, row in enumerate(islice(_read(own), most), start=1):
        place = str(row.get("place") or f"{own.source}: row {number}")
        try:
            found = pair_tokens(row, tokenizer, place, number)
        except UserError as error:
            if own.malformed == "drop":
                without["malformed"] = without.get("malformed", 0) + 1
                continue
            mistakes.append(str(error))
            if len(mistakes) == SHOWN_MISTAKES:
                break
            continue
        if reason := _unfit(found, own):
            without[reason] = without.get(reason, 0) + 1
        else:
            rows.append(found)
    if mistakes:
        raise UserError("\n".join([*mistakes, "mend these rows, or leave them out with pairs.rows.malformed=drop"]))
    return rows, Paired([], without)


def _read(own: PairRowsConfig) -> Iterator[dict[str, Any]]:
    return read_rows(own.source, "train", own.args, own.path, "pairs.rows")


def _unfit(row: Mapping[str, Any], own: PairRowsConfig) -> str:
    """Why a pair teaches nothing; empty where it does."""
    if row["chosen_ids"] == row["rejected_ids"]:
        return "chosen and rejected alike"
    longest = len(row["prompt_ids"]) + max(row["chosen_tokens"], row["rejected_tokens"])
    return f"longer than pairs.rows.max_tokens {own.max_tokens}" if longest > own.max_tokens else ""


def _followed(turn: Any) -> Any:
    """Earlier turns of the assistant are what both responses follow: neither is preferred. What is no turn is said of
    the dialogue.
    """
    return {**turn, "train": False} if isinstance(turn, Mapping) and turn.get("role") == "assistant" else turn


def pair_tokens(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, place: str, number: int) -> dict[str, Any]:
    """Return a row of `pairs.jsonl` for a source's row. Raises UserError where it is no pair."""
    if row.get("malformed"):
        raise UserError(f"{place}: {row['malformed']}")
    if missing := [name for name in ("prompt", "chosen", "rejected") if not row.get(name)]:
        raise UserError(f"{place}: column '{missing[0]}' is missing; rows need 'prompt', 'chosen' and 'rejected'")
    prompt = [_followed(turn) for turn in row["prompt"]]
    about = {name: row[name] for name in ("mode", "domain", "language", "tools") if name in row}
    columns: dict[str, Any] = {}
    for name in ("chosen", "rejected"):
        dialogue = normal_dialogue({**about, "messages": [*prompt, row[name]]}, f"{place}: {name}")
        ((ids, mask),) = row_examples(tokenizer, dialogue, f"{place}: {name}")
        start = mask.index(1)
        columns |= {name: completion(dialogue), f"{name}_tokens": len(ids) - start, f"{name}_ids": ids[start:]}
        columns["prompt_ids"] = ids[:start]
    return {
        "id": str(row.get("id") or number),
        "mode": row["mode"],
        "domain": row["domain"],
        "language": row["language"],
        "kind": "given",
        "margin": None,
        "prompt": list(row["prompt"]),
        **({"tools": row["tools"]} if row.get("tools") else {}),
        **columns,
    }
