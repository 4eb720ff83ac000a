"""From the learner's flat weights to a Hugging Face folder, and back."""

from pathlib import Path
from typing import Protocol

import torch
from transformers import PreTrainedConfig

from agapo.model.adapters import merged_model, read_adapter, write_adapter
from agapo.model.loading import export_hf, load_config, load_model, load_tokenizer
from agapo.model.weights import PackedWeights, load_weights, pack_tensors, pack_weights, weight_layout
from agapo.recipe.lora import LoRAConfig
from agapo.recipe.model import ModelConfig
from agapo.tracking import RunDirectory


class Exporter(Protocol):
    """Makes folders of what the learner hands over."""

    config: PreTrainedConfig
    """The model's."""

    def keep(self, weights: PackedWeights, folder: Path) -> None:
        """Write the weights to `folder`, whole or not at all, for `read`."""
        ...

    def read(self, folder: Path) -> PackedWeights:
        """Return the weights that `keep` wrote."""
        ...

    def export(self, weights: PackedWeights, run: RunDirectory) -> None:
        """Write the run's model, whole or not at all."""
        ...


class ModelExporter:
    """Of all weights: knows the model's architecture and tokenizer, and puts them into it."""

    def __init__(self, model_path: str, own: ModelConfig):
        self.dtype = own.dtype
        self.model = load_model(model_path, dtype=own.dtype, rope=own.rope_fields)
        self.config = self.model.config
        self.tokenizer = load_tokenizer(model_path)
        self.layout = weight_layout(self.model, self.model.dtype)

    def keep(self, weights: PackedWeights, folder: Path) -> None:
        """Write a model with these weights to `folder`, whole or not at all."""
        load_weights(self.model, weights)
        export_hf(self.model, self.tokenizer, folder)

    def read(self, folder: Path) -> PackedWeights:
        """Return the weights of an exported model."""
        model = load_model(folder, dtype=self.dtype)
        return pack_weights(model, self.layout)

    def export(self, weights: PackedWeights, run: RunDirectory) -> None:
        """Write the run's model."""
        self.keep(weights, run.hf)


class AdapterExporter:
    """Of LoRA adapters: what is kept is the adapter, and what is exported the starting model with it merged."""

    def __init__(self, model_path: str, own: ModelConfig, lora: LoRAConfig):
        self.model_path, self.own, self.lora = model_path, own, lora
        self.config = load_config(model_path, own.rope_fields)

    def keep(self, weights: PackedWeights, folder: Path) -> None:
        """Write the adapter to `folder`, whole or not at all."""
        write_adapter(folder, dict(weights.named()), self.lora, self.model_path)

    def read(self, folder: Path) -> PackedWeights:
        """Return the weights of an adapter."""
        return pack_tensors(read_adapter(folder), getattr(torch, self.own.dtype))

    def export(self, weights: PackedWeights, run: RunDirectory) -> None:
        """Write the run's adapter, and the model with it."""
        self.keep(weights, run.adapter)
        merged = merged_model(self.model_path, run.adapter, self.own, self.lora)
        export_hf(merged, load_tokenizer(self.model_path), run.hf)


def make_exporter(model_path: str, own: ModelConfig, lora: LoRAConfig | None) -> Exporter:
    """Return what exports a run that starts from `model_path`."""
    return AdapterExporter(model_path, own, lora) if lora else ModelExporter(model_path, own)
