"""The learner's step without DeepSpeed, for machines that have none: the same micro-batches and loss, plain AdamW."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from agapo.algorithm.objective import Objective, policy_loss
from agapo.learner.rl.batching import Example
from agapo.model.logprobs import LogProbModel
from agapo.model.weights import PackedWeights, pack_weights, weight_layout
from benchmarks.gpu.batches import micro_batches


class PlainLearner:
    """One rank: weights and AdamW's moments in the model's own dtype."""

    def __init__(self, model: PreTrainedModel, *, micro_batch_tokens: int, device: str):
        self.model, self.device, self.micro_batch_tokens = model.train(), device, micro_batch_tokens
        self.optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, fused=device == "cuda")

    def update(self, examples: Sequence[Example], *, denominator: float, learning_rate: float) -> dict[str, float]:
        """Make one optimizer update; return its loss."""
        total = 0.0
        learner = LogProbModel(self.model)
        for micro in micro_batches(examples, self.micro_batch_tokens, "packed", self.device):
            values, _ = learner(
                micro.input_ids, micro.position_ids, micro.attention_mask, micro.predictors, micro.targets, 1.0
            )
            loss, _ = policy_loss(values, micro.tokens, Objective(), denominator)
            loss.backward()
            total += float(loss.detach())
        self.optimizer.param_groups[0]["lr"] = learning_rate
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"loss": total}

    def weights(self) -> PackedWeights:
        """Return the weights as they travel."""
        return pack_weights(self.model, weight_layout(self.model, self.model.dtype))
