"""The prompts of the needle test, each fitted to its length in tokens.

A source knows words and a recipe tokens: how many words make a prompt of so many tokens is searched for with the
model's own tokenizer and template, for each prompt by itself, since languages differ.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from agapo.chat import prompt_ids
from agapo.curation.prompts import read_prompts
from agapo.errors import UserError
from agapo.recipe.needle import NeedleConfig
from agapo.rewarding.start import check_rewards
from agapo.schema import Mode, Prompt

CLOSE = 0.95
"""A prompt with this share of the wanted tokens is long enough."""
LEAST = 0.75
"""One with less is no test of that length."""
MOST_TRIES = 12


@dataclass(frozen=True)
class NeedlePrompt:
    """A prompt of a cell, in one mode."""

    prompt: Prompt
    token_ids: tuple[int, ...]
    length: int
    """The recipe's, in tokens; that of `token_ids` is the prompt's own."""
    position: float


def needle_prompts(
    needle: NeedleConfig, tokenizer: PreTrainedTokenizerBase, *, context: int | None, seed: int = 0
) -> list[NeedlePrompt]:
    """Return the prompts of every cell and mode, each fitted to its length. Raises UserError where one cannot be."""
    check_needle(needle, context)
    rates: dict[int, float] = {}
    return [
        found
        for length in needle.lengths
        for position in needle.positions
        for found in _cell_prompts(needle, tokenizer, length, position, _room(needle, length, context), seed, rates)
    ]


def check_needle(needle: NeedleConfig, context: int | None) -> None:
    """Raise UserError where the verdict cannot work here, or a length does not fit the model's context."""
    check_rewards(needle.reward)
    for length in needle.lengths:
        _room(needle, length, context)


def context_of(config: PreTrainedConfig) -> int | None:
    """Return the most tokens that a model takes, None where its config does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _room(needle: NeedleConfig, length: int, context: int | None) -> int:
    """Return the most tokens that a prompt of a length may have."""
    if context is None or length + needle.max_new_tokens <= context:
        return length
    room = context - needle.max_new_tokens
    if length > context or room < LEAST * length:
        raise UserError(
            f"needle.lengths: {length} tokens and needle.max_new_tokens {needle.max_new_tokens} exceed the model's "
            f"context of {context}; lower them, or stretch the context with model.rope"
        )
    return room


def _cell_prompts(
    needle: NeedleConfig,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    position: float,
    room: int,
    seed: int,
    rates: dict[int, float],
) -> list[NeedlePrompt]:
    """`rates`: words a token of the prompts fitted so far, by their number in the cell (they differ by language)."""

    @cache
    def ask(words: int) -> list[Prompt]:
        return _rows(needle, words, position, seed)

    found = []
    for number in range(needle.per_cell):
        start = rates.get(number, rates.get(number - 1, 0.5))
        words, prompt = _fit(lambda words, number=number: ask(words)[number], tokenizer, needle.modes, room, start)
        longest = _tokens(tokenizer, prompt, needle.modes)
        if longest < LEAST * room:
            raise UserError(
                f"needle.source: {needle.source} gives {longest} tokens at most where {room} are wanted; it should "
                "lengthen its context with the words that it is asked for"
            )
        rates[number] = words / longest
        found += [_needle_prompt(tokenizer, prompt, mode, length, position) for mode in needle.modes]
    return found


def _rows(needle: NeedleConfig, words: int, position: float, seed: int) -> list[Prompt]:
    grid = {"lengths": [words], "positions": [position], "per_cell": needle.per_cell, "seed": seed}
    rows = read_prompts(needle.source, "test", {**needle.args, **grid}, None, key="needle")
    if len(rows) != needle.per_cell:
        raise UserError(f"needle.source: {needle.source} gives {len(rows)} rows for per_cell={needle.per_cell}")
    return rows


def _needle_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, mode: Mode, length: int, position: float
) -> NeedlePrompt:
    own = replace(prompt, mode=mode)
    return NeedlePrompt(own, tuple(prompt_ids(tokenizer, own)), length, position)


def _tokens(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, modes: Sequence[Mode]) -> int:
    return max(len(prompt_ids(tokenizer, replace(prompt, mode=mode))) for mode in modes)


def _fit(
    row: Callable[[int], Prompt],
    tokenizer: PreTrainedTokenizerBase,
    modes: Sequence[Mode],
    room: int,
    rate: float,
) -> tuple[int, Prompt]:
    """Return how many words make a prompt that is as long as `room` tokens allow, and that prompt.

    Tokens are about proportional to words, so each try goes where the last one points, and halves what is left where
    that leads out of it. `rate`: words a token, a guess.
    """
    below, above = 0, math.inf
    best: tuple[int, int, Prompt] | None = None
    words = _rounded(rate * room)
    for _ in range(MOST_TRIES):
        prompt = row(words)
        tokens = _tokens(tokenizer, prompt, modes)
        if tokens > room:
            above = min(above, words)
        else:
            below = max(below, words)
            best = max(best or (0, 0, prompt), (tokens, words, prompt), key=lambda item: item[0])
        if CLOSE * room <= tokens <= room or above - below <= 1:
            break
        words = _rounded(words * room / tokens * (1 + CLOSE) / 2)
        if not below < words < above:
            words = below + 1 if above == math.inf else int(below + above) // 2
    if best is None:
        raise UserError(f"needle.lengths: {room} tokens are too few for a needle of the source: raise the shortest")
    return best[1], best[2]


def _rounded(words: float) -> int:
    """Three digits are enough, so that rows which need about as many words are made together."""
    whole = max(1, round(words))
    return round(whole, min(0, 3 - len(str(whole))))
