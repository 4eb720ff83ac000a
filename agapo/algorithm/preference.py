"""Losses of preference learning, pair by pair. All log-probabilities are in nats and summed over a response's tokens,
the end-of-turn token included where the response came to its end.
"""

from torch import Tensor
from torch.nn import functional as F


def simper_loss(chosen: Tensor, rejected: Tensor, chosen_lengths: Tensor, rejected_lengths: Tensor) -> Tensor:
    """Return SimPER's loss [N] (arXiv 2502.00883): inverse perplexity of the rejected minus that of the chosen.

        exp(log π(y_l | x) / |y_l|) − exp(log π(y_w | x) / |y_w|)

    chosen, rejected [N] log-probabilities of the responses under the policy; lengths [N] their tokens. Values lie
    between −1 and 1. No reference policy, and nothing to tune: a response that is unlikely already gets little push.
    """
    return (rejected / rejected_lengths).exp() - (chosen / chosen_lengths).exp()


def dpo_loss(chosen: Tensor, rejected: Tensor, start_chosen: Tensor, start_rejected: Tensor, *, beta: float) -> Tensor:
    """Return DPO's loss [N] (arXiv 2305.18290, Eq. 7).

        −log σ(β · ((log π(y_w) − log π_ref(y_w)) − (log π(y_l) − log π_ref(y_l))))

    All [N] log-probabilities: of the policy, and of the reference, which is the policy at the start.
    """
    return -F.logsigmoid(beta * ((chosen - start_chosen) - (rejected - start_rejected)))
