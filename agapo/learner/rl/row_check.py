"""Whether a packed micro-batch gives what each of its sequences gives alone, tried on the loaded model.

Sequences of a row are told apart by their position ids alone. An attention that does not look at them, or looks only
in a single row, lets them see each other, and every gradient is silently wrong. Responses behind a shared prompt are
told apart by an attention of ours, which an architecture may not call, or want to do more.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from agapo.errors import UserError, first_line
from agapo.learner.rl.batching import Example, MicroBatch, MicroPlan, collate, needs_one_row
from agapo.learner.rl.settings import LearnerSettings
from agapo.learner.rl.shared_rows import collate_shared
from agapo.model.loading import load_config, small_twin
from agapo.model.logprobs import LogProbModel, check_head
from agapo.model.sequence_parallel import SequenceGroup

LENGTHS = (24, 21, 20, 17)
"""Tokens of the made-up sequences."""
ROWS, ONE_ROW = ((0, 3), (1, 2)), ((0, 1, 2, 3),)
SLACK = 1e-3
"""Nats that are nobody's fault, even in float32."""
TWIN_WINDOW = 6
"""Of a small model on which windows are tried: less than its sequences."""


def check_model(model: PreTrainedModel, settings: LearnerSettings, group: SequenceGroup | None) -> None:
    """Raise UserError where the model, or its `twin_of`, does more than our log-probabilities or rows take in.

    With a `group` of ranks that share rows: collective over them.
    """
    check_head(model)
    if group:
        # A window is longer than what can be tried on the model itself, here as with shared prompts.
        check_divided_rows(twin_of(settings, TWIN_WINDOW), group)
    elif settings.shares_prompts:
        check_shared_prompts(model)
        check_shared_prompts(twin_of(settings, TWIN_WINDOW))
    elif settings.learner.layout == "packed":
        check_packed_rows(model, settings.model.attention)


def twin_of(settings: LearnerSettings, window: int | None = None) -> PreTrainedModel:
    """Return a small model of the same kind, the same on each rank."""
    own = settings.model
    config = load_config(settings.model_path, own.rope_fields)
    return small_twin(config, dtype=own.dtype, attention=settings.attention, device=settings.device, window=window)


@torch.no_grad()
def check_packed_rows(model: PreTrainedModel, attention: str) -> None:
    """Raise UserError when sequences of a packed micro-batch do not give the log-probabilities that they give alone.

    Nothing can reach the first sequence of a row, so how far that one is off shows what rounding does; the others may
    be off four times as far, or by the dtype's precision. `attention` is the recipe's `model.attention`.
    """
    examples = made_up_examples(model.config.get_text_config().vocab_size)
    rows = ONE_ROW if needs_one_row(attention) else ROWS
    alone = _alone(model, examples)
    together = _logprobs(model, examples, collate(examples, MicroPlan(rows), "packed", str(model.device)))
    order = [index for row in rows for index in row]
    off = {index: float((found - alone[index]).abs().mean()) for index, found in zip(order, together, strict=True)}
    first = max(off[row[0]] for row in rows)
    others = max(off[index] for row in rows for index in row[1:])
    precision = _precision(model, alone)
    if not (first <= max(SLACK, 4 * precision) and others <= max(SLACK, precision, 4 * first)):
        raise UserError(
            f"model.attention: '{attention}' with {type(model).__name__} lets the sequences of a packed row see each "
            f"other (log-probabilities are off by {max(first, others):.2g} nats); set learner.layout=right, which "
            "packs nothing, or model.attention=sdpa"
        )


@torch.no_grad()
def check_shared_prompts(model: PreTrainedModel) -> None:
    """Raise UserError when responses behind a prompt that they share do not give what they give alone.

    The model's attention is that of `shared_prompts.py`.
    """
    _require_sdpa(model, "learner.shared_prompts")
    examples = made_up_examples(model.config.get_text_config().vocab_size)
    # Two groups: the second example takes the first one's prompt, the fourth the third one's.
    examples = [replace(item, prompt_ids=examples[number // 2 * 2].prompt_ids) for number, item in enumerate(examples)]
    micro = collate_shared(examples, MicroPlan(((0, 1), (2, 3))), str(model.device))
    _require_alike(model, examples, micro, partial(_not_shared, model))


@torch.no_grad()
def check_divided_rows(model: PreTrainedModel, group: SequenceGroup) -> None:
    """Raise UserError when ranks that share rows do not compute what one computes alone. Collective over them.

    The model's attention is that of `sequence_parallel.py`.
    """
    config = model.config.get_text_config()
    if config.num_attention_heads % group.ranks:
        raise _not_divided(model, f"its {config.num_attention_heads} heads are not to be divided by {group.ranks}")
    if by_length := _rope_types(config) & {"longrope", "dynamic"}:
        # They look at the longest position that they are given, and ranks have different parts of a row.
        raise _not_divided(model, f"its RoPE is of type {by_length.pop()}, which depends on a sequence's length")
    _require_sdpa(model, "learner.sequence_parallel")
    examples = made_up_examples(config.vocab_size)
    micro = collate(examples, MicroPlan(ROWS), "packed", str(model.device))
    _require_alike(model, examples, micro, partial(_not_divided, model), group)


def _require_alike(
    model: PreTrainedModel,
    examples: Sequence[Example],
    micro: MicroBatch,
    refused: Callable[[str], UserError],
    group: SequenceGroup | None = None,
) -> None:
    """Raise what `refused` makes of a reason unless the micro-batch gives what each of its examples gives alone."""
    alone = _alone(model, examples)
    try:
        together = _logprobs(model, examples, micro, group)
    except (TypeError, RuntimeError, ValueError, KeyError) as error:
        # Of an architecture that hands nothing on to its attention, or wants a mask.
        raise refused(first_line(error)) from error
    off = max(float((found - alone[index]).abs().mean()) for found, index in zip(together, micro.examples, strict=True))
    if not off <= max(SLACK, 4 * _precision(model, alone)):
        raise refused(f"log-probabilities are off by {off:.2g} nats")


def _rope_types(config: Any) -> set[str]:
    given = getattr(config, "rope_parameters", None) or {}
    each = [item for item in given.values() if isinstance(item, dict)] or [given]
    return {str(item.get("rope_type")) for item in each}


def _require_sdpa(model: PreTrainedModel, key: str) -> None:
    """Raise UserError where transformers would: our attention takes SDPA's place, and leaves out what it leaves out."""
    if not model._supports_sdpa:
        raise UserError(
            f"{key}: {type(model).__name__} has no SDPA in transformers, which this is made of; leave it out"
        )


def _not_divided(model: PreTrainedModel, reason: str) -> UserError:
    return UserError(
        f"learner.sequence_parallel: ranks cannot share the sequences of {type(model).__name__} ({reason}); set "
        "learner.sequence_parallel=1"
    )


def _not_shared(model: PreTrainedModel, reason: str) -> UserError:
    return UserError(
        f"learner.shared_prompts: the attention of {type(model).__name__} cannot share a prompt between responses "
        f"({reason}); set learner.shared_prompts=false"
    )


def made_up_examples(vocabulary: int) -> list[Example]:
    """Return examples of random tokens; a prompt is a quarter of each."""
    draw = np.random.default_rng(0)
    return [_made_up(draw.integers(0, vocabulary, size).astype(np.int32)) for size in LENGTHS]


def _made_up(ids: np.ndarray) -> Example:
    prompt, tokens = np.split(ids, [len(ids) // 4])
    return Example(prompt, tokens, np.zeros(len(tokens), np.float32), np.ones(len(tokens), np.bool_), 0.0, 0.0, 0)


def _alone(model: PreTrainedModel, examples: Sequence[Example]) -> list[Tensor]:
    plans = [MicroPlan(((index,),)) for index in range(len(examples))]
    return [_logprobs(model, examples, collate(examples, plan, "packed", str(model.device)))[0] for plan in plans]


def _precision(model: PreTrainedModel, alone: Sequence[Tensor]) -> float:
    """The nats that the model's dtype is good for."""
    return torch.finfo(model.dtype).eps * float(torch.cat(list(alone)).abs().mean())


def _logprobs(
    model: PreTrainedModel, examples: Sequence[Example], micro: MicroBatch, group: SequenceGroup | None = None
) -> list[Tensor]:
    """Return log π [T] of each example of a micro-batch, in its order."""
    inputs = (micro.input_ids, micro.position_ids, micro.attention_mask, micro.predictors, micro.targets)
    found, _ = LogProbModel(model, group)(*inputs, 1.0, entropy=False, shared_prompts=micro.shared_prompts)
    return list(found.split([len(examples[index].token_ids) for index in micro.examples]))
