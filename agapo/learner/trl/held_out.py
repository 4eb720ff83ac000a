"""The loss on examples that are not trained on: what tells whether training helps where nothing judges answers.

Each example is a sequence of its own, so the loss does not depend on rows, micro-batches or ranks. Left out on purpose:
models that no single GPU (or host) holds.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from agapo.learner.trl.packing import Example
from agapo.model.loading import load_model
from agapo.recipe.model import ModelConfig

LOGITS = 2**27
"""Logits held at once (512 MiB in fp32); above it the model runs once more for each further part."""


def example_nats(path: str, own: ModelConfig, examples: Sequence[Example], *, gpu: bool, threads: int) -> list[float]:
    """Return the negative log-likelihood [N], in nats, of each example's trained tokens under the model at `path`.

    Raises UserError where the model cannot be loaded.
    """
    torch.set_num_threads(threads)
    model = load_model(path, dtype=own.dtype, attention=own.attention, rope=own.rope_fields)
    torch.nn.Module.to(model, "cuda" if gpu else "cpu").eval()
    return [_nats(model, example) for example in examples]


@torch.no_grad()
def _nats(model: PreTrainedModel, example: Example) -> float:
    ids = torch.tensor([list(example.token_ids)], device=model.device)
    mask = torch.tensor(list(example.mask[1:]), device=model.device, dtype=torch.bool)
    predictors = mask.nonzero().squeeze(-1)
    size = max(1, LOGITS // model.config.get_text_config().vocab_size)
    # Through the model's own head: some scale or cap their logits after it.
    return sum(_part(model, ids, part) for part in predictors.split(size))


def _part(model: PreTrainedModel, ids: Tensor, predictors: Tensor) -> float:
    """The nats of the tokens after the positions `predictors` [T] of `ids` [1, L]."""
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=predictors).logits[0].float()
    return float(torch.nn.functional.cross_entropy(logits, ids[0, predictors + 1], reduction="sum"))
