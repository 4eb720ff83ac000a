"""From the learner's flat weights to a Hugging Face folder, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agapo.model.loading import export_hf, load_model, load_tokenizer
from agapo.model.weights import PackedWeights, load_weights, pack_weights, weight_layout


class Exporter:
    """Knows the model's architecture and tokenizer, and puts weights into it."""

    def __init__(self, model_path: str, dtype: str, rope: Mapping[str, Any] | None = None):
        self.dtype = dtype
        self.model = load_model(model_path, dtype=dtype, rope=rope)
        self.tokenizer = load_tokenizer(model_path)
        self.layout = weight_layout(self.model, self.model.dtype)

    def export(self, weights: PackedWeights, folder: Path) -> None:
        """Write a model with these weights to `folder`, whole or not at all."""
        load_weights(self.model, weights)
        export_hf(self.model, self.tokenizer, folder)

    def read(self, folder: Path) -> PackedWeights:
        """Return the weights of an exported model."""
        model = load_model(folder, dtype=self.dtype)
        return pack_weights(model, self.layout)
