"""Log-probabilities of given tokens, without ever holding a [tokens, vocabulary] matrix for long.

Shared by the learner (with gradient) and the reference policy (without). Logits of prompt tokens are never
computed: the head runs on just the positions that predict a response token.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from agapo.errors import UserError

CHUNK_ELEMENTS = 2**25
"""Logits held at once (128 MiB in fp32); above it the head runs in chunks that are recomputed in the backward."""


def logprobs_and_entropy(
    head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return log π(target) [T] with gradient, and the entropy [T] in nats without, both fp32.

    hidden [T, d] the last hidden states at the positions that predict `targets` [T].
    """
    rows = max(1, CHUNK_ELEMENTS // _vocabulary(head))
    if len(targets) <= rows:
        return _dense(head, hidden, targets, temperature)
    pieces = [
        checkpoint(_dense, head, states, chosen, temperature, use_reentrant=False)
        for states, chosen in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat([piece[0] for piece in pieces]), torch.cat([piece[1] for piece in pieces])


def _dense(head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits = head(hidden).float() / temperature
    normaliser = logits.logsumexp(dim=-1)
    chosen = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
    with torch.no_grad():
        entropy = normaliser - ((logits - normaliser[:, None]).exp() * logits).sum(dim=-1)
    return chosen, entropy


def _vocabulary(head: nn.Module) -> int:
    # Under ZeRO-3 the weight is an empty shard, so the shape comes from the module.
    return int(getattr(head, "out_features", 0)) or int(head.get_parameter("weight").shape[0])


class LogProbModel(nn.Module):
    """A causal language model whose forward gives log-probabilities instead of logits.

    DeepSpeed wraps this module, so that the backbone and the head both run inside its forward.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor | None,
        predictors: Tensor,
        targets: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        """Return (log-probabilities [T], entropies [T]) of `targets` [T].

        input_ids, position_ids [R, L]; attention_mask [R, L] or None where position ids mark packed sequences;
        predictors [T] index, in the flattened [R·L] rows, of the position that predicts each target.
        """
        # Without use_cache=False, packed rows are silently wrong in eval mode: the mask ignores position ids.
        states = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        hidden = states.reshape(-1, states.shape[-1])[predictors]
        return logprobs_and_entropy(output_head(self.model), hidden, targets, temperature)


def output_head(model: PreTrainedModel) -> nn.Module:
    """Return the module that turns hidden states into logits."""
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    return head


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Raise UserError when the model, in training mode, does more to its logits than apply the output embedding.

    Some architectures scale or cap their logits inside `forward`; log-probabilities taken from the head alone
    would be silently wrong for them. With dropout they would not be those that the responses were sampled with.
    """
    ids = torch.arange(4, device=next(model.parameters()).device)[None]
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    ours = output_head(model)(hidden).float()
    theirs = model(input_ids=ids, use_cache=False).logits.float()
    if not torch.isfinite(theirs).all():
        raise UserError("model.path: the model's logits are not numbers: its weights are damaged; give another model")
    if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2):
        raise UserError(
            f"model.path: {type(model).__name__} changes its logits after the output embedding "
            "(a scale or a soft cap) or has dropout, and agapo supports neither; "
            "choose another architecture, or set every dropout in its config.json to 0"
        )
