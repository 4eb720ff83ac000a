"""A rollout actor: an engine in a process of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from agapo.model.loading import load_model, load_tokenizer
from agapo.model.weights import WeightLayout
from agapo.rollouts.engine import Engine, PromptRequest, SamplingParams
from agapo.rollouts.engines.transformers.engine import TransformersEngine
from agapo.schema import Group


@dataclass(frozen=True)
class EngineSettings:
    """What an actor needs to load its engine."""

    model_path: str
    dtype: str = "float32"
    attention: str = "sdpa"
    rope: Mapping[str, Any] | None = None
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"


class RolloutActor:
    """Samples chunks of prompts with the weights it was given last."""

    def __init__(self, settings: EngineSettings):
        torch.set_num_threads(settings.threads)
        model = load_model(settings.model_path, dtype=settings.dtype, attention=settings.attention, rope=settings.rope)
        tokenizer = load_tokenizer(settings.model_path)
        self.engine: Engine = TransformersEngine(model, tokenizer, settings.device)
        self.version = 0

    def load_weights(self, buffer: np.ndarray, layout: WeightLayout, version: int) -> None:
        """Take the weights after `version` optimizer updates."""
        self.engine.load_weights(buffer, layout, version)
        self.version = version

    def generate(self, requests: Sequence[PromptRequest], params: SamplingParams, version: int) -> list[Group]:
        """Return the groups of a chunk, sampled with weights `version` and no others."""
        if self.version != version:
            raise RuntimeError(f"this actor has weights {self.version}, not {version}")
        return self.engine.generate(requests, params)

    def ready(self) -> bool:
        """Return once the model is loaded."""
        return True
