"""A rollout actor: one process with one engine."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from agapo.cluster import own_node, which_host
from agapo.errors import UserError
from agapo.model.adapters import add_adapters
from agapo.model.loading import load_model, load_tokenizer
from agapo.model.transports import MeetingPlace
from agapo.model.weights import Weights
from agapo.recipe.lora import LoRAConfig, quantizes
from agapo.recipe.rollout import VLLMConfig
from agapo.rollouts.engine import Engine, Piece, Request, ResponseId, SamplingParams
from agapo.rollouts.thinking import ThinkingBudget

SLICE_S = 0.5
"""How long an actor works before it answers: so soon new requests, new weights or an end reach it."""


@dataclass(frozen=True)
class EngineSettings:
    """What an actor needs to load its engine."""

    model_path: str
    engine: Literal["transformers", "vllm"] = "transformers"
    dtype: str = "float32"
    attention: str = "sdpa"
    rope: Mapping[str, Any] | None = None
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    lora: LoRAConfig | None = None
    """The adapters that the learner trains: they alone are updated."""
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    """What only vLLM reads."""

    @property
    def repeatable(self) -> bool:
        """Whether the engine is (`Engine.repeatable`); the pool asks it without loading one."""
        return self.engine == "transformers"


def make_engine(settings: EngineSettings) -> Engine:
    """Load the engine. Raises UserError where vLLM is wanted and is not there."""
    if settings.engine == "vllm":
        from agapo.rollouts.engines.vllm.engine import load_vllm  # imports vLLM, which few environments have

        return load_vllm(settings)
    from agapo.rollouts.engines.transformers.engine import TransformersEngine

    torch.set_num_threads(settings.threads)
    model = load_model(
        settings.model_path,
        dtype=settings.dtype,
        attention=settings.attention,
        rope=settings.rope,
        quantized=quantizes(settings.lora),
    )
    if settings.lora:
        # Beside the weights, as in the learner, not merged: so the two agree to rounding.
        add_adapters(model, settings.lora)
    return TransformersEngine(model, load_tokenizer(settings.model_path), settings.device)


class RolloutActor:
    """Samples responses with the weights it was given last, a slice of time a call."""

    def __init__(self, settings: EngineSettings):
        """Load nothing yet: `place` is to answer at once, and what `load` raises to reach the driver as it is."""
        self._settings = settings
        self._in_flight: set[ResponseId] = set()

    def place(self) -> str:
        """Return the id of the host that it runs on."""
        return own_node()

    def load(self) -> None:
        """Load the engine. To be called first. Raises UserError where that fails."""
        try:
            self.engine = ThinkingBudget(make_engine(self._settings))
        except UserError as error:
            raise UserError(f"{error}{which_host()}") from None

    def work(self, requests: Sequence[Request], params: SamplingParams, version: int) -> list[Piece]:
        """Take requests, which are to begin with weights `version`; work for a slice; return what finished.

        Returns early where nothing is left to do. Between calls everything in flight stays as it is.
        """
        if requests and self.engine.version != version:
            raise RuntimeError(f"this actor has weights {self.engine.version}, not {version}")
        self.engine.add(requests, params)
        self._in_flight |= {request.id for request in requests}
        pieces: list[Piece] = []
        until = time.monotonic() + SLICE_S
        while self.engine.busy and time.monotonic() < until:
            pieces += self.engine.step()
        self._in_flight -= {piece.id for piece in pieces}
        return pieces

    def pause(self) -> list[Piece]:
        """Take what is in flight out of it; return what there is of it."""
        pieces = self.engine.abort(self._in_flight)
        self._in_flight.clear()
        return pieces

    def drop(self) -> None:
        """Forget what is in flight."""
        self.engine.abort(self._in_flight)
        self._in_flight.clear()

    def meet(self, meeting: MeetingPlace, member: int) -> None:
        """Meet the learner for broadcasts, as this member, or from this one on."""
        self.engine.meet(meeting, member)

    def update_weights(self, weights: Weights, version: int) -> None:
        """Take the weights after `version` optimizer updates; what is in flight goes on with them."""
        self.engine.update_weights(weights, version)

    def sleep(self) -> None:
        """Leave the GPU's memory to others; nothing is in flight."""
        self.drop()
        self.engine.sleep()

    def wake(self) -> None:
        """Come back, with the weights as they were."""
        self.engine.wake()
