"""What ends a response, its text, and what must not be in it: the same for every engine."""

from collections.abc import Collection
from typing import Any

from transformers import PreTrainedTokenizerBase

from agapo.errors import UserError


def end_token_ids(generation_config: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the token ids that end a response: the generation config's and the tokenizer's."""
    configured = getattr(generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*ids, tokenizer.eos_token_id) if isinstance(token, int))


def response_text(tokenizer: PreTrainedTokenizerBase, end_ids: Collection[int], tokens: list[int]) -> str:
    """Return the text of a response without its end token.

    Special tokens stay in: some models mark thinking with them, and rewards must see it.
    """
    visible = tokens[:-1] if tokens and tokens[-1] in end_ids else tokens
    return str(tokenizer.decode(visible, skip_special_tokens=False))


def not_finite(version: int) -> UserError:
    """Return the error of a model whose log-probabilities are not numbers."""
    return UserError(
        f"the model's log-probabilities are not numbers (weights {version}): its weights are damaged; "
        "give another model, or lower learner.learning_rate and go back to an earlier checkpoint"
    )
