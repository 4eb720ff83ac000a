"""What vLLM's workers can do besides: take weights from our buffer. vLLM mixes this class into its own."""

from typing import Any

import numpy as np

from agapo.model.weights import WeightLayout, named_weights


class WeightReceiver:
    """Mixed into vLLM's worker, which has `model_runner`."""

    model_runner: Any

    def take_weights(self, buffer: np.ndarray, layout: WeightLayout) -> None:
        """Replace the model's weights in place; each worker of a tensor-parallel engine takes its shards."""
        self.model_runner.reload_weights(weights_iterator=named_weights(buffer, layout))
