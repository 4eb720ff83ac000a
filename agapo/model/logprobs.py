"""Log-probabilities of given tokens, without ever holding a [tokens, vocabulary] matrix for long.

Shared by the learner (with gradient) and the reference policy (without). Logits of prompt tokens are never
computed: the head runs on just the positions that predict a response token.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from agapo.errors import UserError
from agapo.model.sequence_parallel import DividedRows, SequenceGroup, own_part, put_together
from agapo.model.shared_prompts import NO_MASK, SharedPrompts

CHUNK_ELEMENTS = 2**25
"""Logits of a chunk of tokens (128 MiB in fp32), which is what the head holds at once."""


class HeadLogProbs(nn.Module):
    """The output embedding and what follows it, as a module without parameters of its own.

    ZeRO-3 gathers what a module's forward reads once, and once more for its backward. Were the head called chunk by
    chunk instead, its weight would be gathered for each chunk's forward, recomputation and backward.
    """

    def forward(
        self, head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        """See `logprobs_and_entropy`."""
        return logprobs_and_entropy(head, hidden, targets, temperature, entropy=entropy)


def logprobs_and_entropy(
    head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float = 1.0, *, entropy: bool = True
) -> tuple[Tensor, Tensor]:
    """Return log π(target) [T] with gradient, and the entropy [T] in nats without, both fp32.

    hidden [T, d] the last hidden states at the positions that predict `targets` [T]. Without `entropy`, which is a
    second pass over the vocabulary, its tensor is empty [0].
    """
    weight, bias = head.get_parameter("weight"), getattr(head, "bias", None)
    return _HeadLogProbs.apply(weight, bias, hidden, targets, temperature, entropy)  # pyright: ignore[reportReturnType]


class _HeadLogProbs(torch.autograd.Function):
    """log π(target) and the entropy, a chunk of tokens after another, of which no logits are kept.

    d log π(y) / d logit_v = (1[v = y] − π(v)) / temperature, so the backward computes a chunk's logits anew: four
    products with the head where keeping them takes three, and no [tokens, vocabulary] matrix. The gradient cannot be
    made in the forward already: what a token weighs is known once all of its response's log-probabilities are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor | None,
        hidden: Tensor,
        targets: Tensor,
        temperature: float,
        entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        chosen, entropies, normalisers = [], [], []
        for part in _chunks(weight, targets):
            logits = _logits(weight, bias, hidden[part], temperature)
            normaliser = logits.logsumexp(dim=-1)
            chosen.append(logits.gather(-1, targets[part, None]).squeeze(-1) - normaliser)
            normalisers.append(normaliser)
            if entropy:
                entropies.append(normaliser - torch.linalg.vecdot((logits - normaliser[:, None]).exp_(), logits))
        ctx.save_for_backward(weight, bias, hidden, targets, torch.cat(normalisers))
        ctx.temperature = temperature
        found = torch.cat(entropies) if entropies else chosen[0].new_empty(0)
        ctx.mark_non_differentiable(found)
        return torch.cat(chosen), found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, hidden, targets, normaliser = ctx.saved_tensors
        for_weight, for_bias, for_hidden = ctx.needs_input_grad[:3]
        weight_gradient = torch.zeros_like(weight) if for_weight else None
        bias_gradient = torch.zeros_like(bias) if for_bias else None
        hidden_gradient = torch.empty_like(hidden) if for_hidden else None
        for part in _chunks(weight, targets):
            upstream = gradients[0][part, None]
            logits = _logits(weight, bias, hidden[part], ctx.temperature)
            # In place, from here on the gradient of the logits.
            logits.sub_(normaliser[part, None]).exp_().mul_(-upstream)
            logits.scatter_add_(-1, targets[part, None], upstream).div_(ctx.temperature)
            if bias_gradient is not None:
                bias_gradient += logits.sum(dim=0)
            logits = logits.to(weight.dtype)
            if hidden_gradient is not None:
                hidden_gradient[part] = logits @ weight
            if weight_gradient is not None:
                weight_gradient.addmm_(logits.T, hidden[part])
        return weight_gradient, bias_gradient, hidden_gradient, None, None, None


def _chunks(weight: Tensor, targets: Tensor) -> list[slice]:
    rows = max(1, CHUNK_ELEMENTS // weight.shape[0])
    return [slice(start, start + rows) for start in range(0, max(1, len(targets)), rows)]


def _logits(weight: Tensor, bias: Tensor | None, hidden: Tensor, temperature: float) -> Tensor:
    return F.linear(hidden, weight, bias).float() / temperature


class LogProbModel(nn.Module):
    """A causal language model whose forward gives log-probabilities instead of logits.

    DeepSpeed wraps this module, so that the backbone and the head both run inside its forward.
    """

    def __init__(self, model: PreTrainedModel, sequence_group: SequenceGroup | None = None):
        """`sequence_group`: the ranks that share rows, all given the same ones, which all get the same answer."""
        super().__init__()
        self.model = model
        self.sequence_group = sequence_group
        self.head_logprobs = HeadLogProbs()

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor | None,
        predictors: Tensor,
        targets: Tensor,
        temperature: float,
        entropy: bool = True,
        shared_prompts: SharedPrompts | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (log-probabilities [T], entropies [T], or [0] where not asked for) of `targets` [T].

        input_ids, position_ids [R, L]; attention_mask [R, L] or None where position ids mark packed sequences;
        predictors [T] index, in the flattened [R·L] rows, of the position that predicts each target. shared_prompts:
        of a row whose responses share prompts; the model's attention is then `shared_prompts.ATTENTION`.
        """
        more: dict[str, Any] = {}
        if shared_prompts is not None:
            more["shared_prompts"] = shared_prompts
            attention_mask = torch.empty(NO_MASK, device=input_ids.device)
        if self.sequence_group:
            rows = (input_ids, position_ids, predictors, targets)
            return self._in_parts(self.sequence_group, *rows, temperature, entropy)
        hidden = self._hidden(input_ids, position_ids, attention_mask, predictors, more)
        return self.head_logprobs(output_head(self.model), hidden, targets, temperature, entropy)

    def _hidden(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor | None,
        predictors: Tensor,
        more: dict[str, Any],
    ) -> Tensor:
        # Without use_cache=False, packed rows are silently wrong in eval mode: the mask ignores position ids.
        states = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, attention_mask=attention_mask, use_cache=False, **more
        ).last_hidden_state
        return states.reshape(-1, states.shape[-1])[predictors]

    def _in_parts(
        self,
        group: SequenceGroup,
        input_ids: Tensor,
        position_ids: Tensor,
        predictors: Tensor,
        targets: Tensor,
        temperature: float,
        entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, each rank with its columns of the rows; position ids alone mark what sees what."""
        single = not bool((position_ids[:, 1:] == 0).any())
        ids, positions = group.padded(input_ids), group.padded(position_ids)
        columns = group.columns(input_ids.shape[1])
        places, own = own_part(predictors, input_ids.shape[1], group)
        # One more than there are: a rank with none would leave the head out, where others wait for it.
        own, own_targets = torch.cat([own, own.new_zeros(1)]), torch.cat([targets[places], targets[:1]])
        more = {"divided_rows": DividedRows(group, positions, single)}
        mask = torch.empty(NO_MASK, device=ids.device)
        hidden = self._hidden(ids[:, columns], positions[:, columns], mask, own, more)
        logprobs, entropies = self.head_logprobs(output_head(self.model), hidden, own_targets, temperature, entropy)
        whole = put_together(logprobs[:-1], places, len(targets), group)
        return whole, put_together(entropies[:-1], places, len(targets), group) if entropy else entropies


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
    head = output_head(model)
    ours = F.linear(hidden, head.get_parameter("weight"), getattr(head, "bias", None)).float()
    theirs = model(input_ids=ids, use_cache=False).logits.float()
    if not torch.isfinite(theirs).all():
        raise UserError("model.path: the model's logits are not numbers: its weights are damaged; give another model")
    if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2):
        raise UserError(
            f"model.path: {type(model).__name__} changes its logits after the output embedding "
            "(a scale or a soft cap) or has dropout, and agapo supports neither; "
            "choose another architecture, or set every dropout in its config.json to 0"
        )
