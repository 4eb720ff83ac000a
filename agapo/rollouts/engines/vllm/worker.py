"""What vLLM's workers can do besides: take weights from our buffer. vLLM mixes this class into its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from agapo.model.adapters import DOWN, module_of
from agapo.model.transports import MeetingPlace, meet
from agapo.model.weights import Weights, bit_sum


class WeightReceiver:
    """Mixed into vLLM's worker, which has `model_runner`."""

    model_runner: Any
    rank: int
    """Which of a tensor-parallel engine's workers this is."""

    def meet(self, meeting: MeetingPlace, member: int) -> None:
        """Meet the learner for broadcasts of weights; `member`: of the engine's first worker."""
        meet(meeting, member + self.rank, next(self.model_runner.get_model().parameters()).device.type)

    def take_weights(self, weights: Weights) -> list[str]:
        """Replace the model's weights in place; each worker of a tensor-parallel engine takes its shards.

        Returns the names of those that did not arrive. vLLM itself only warns of what it did not load.
        """
        model = self.model_runner.get_model()
        damaged: list[str] = []
        with _noting_loads(model) as loaded:
            self.model_runner.reload_weights(weights_iterator=_checked(weights, damaged))
        _refresh_tied_head(model)
        missing = {name for name, _ in model.named_parameters()} - loaded
        return damaged + sorted(missing) or _whole(model, weights)

    def check_adapter(self, weights: Weights, number: int, scaling: float) -> list[str]:
        """Return the names of an adapter's weights that are not those that this worker computes with.

        `number`: vLLM's id of the adapter, which should be in a slot. vLLM holds scaling · B.
        """
        damaged: list[str] = []
        sent = dict(_checked(weights, damaged))
        manager = self.model_runner.lora_manager._adapter_manager
        held = _held(manager, number) if number in manager.lora_index_to_id else {}
        expected = {name: values if DOWN in name else values * scaling for name, values in sent.items()}
        return damaged or [name for name, values in expected.items() if not _same(values, held.get(_key(name)))]


def _checked(weights: Weights, damaged: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield names and values; note those that are not as they were packed.

    The sums of weights that come in parts are known when their values are: `zip` asks for those first.
    """
    for (name, values), expected in zip(weights.named(), weights.sums, strict=True):
        if bit_sum(values) != expected:
            damaged.append(name)
        yield name, values


@contextmanager
def _noting_loads(model: Any) -> Iterator[set[str]]:
    """Note which of its parameters the model fills, by the names that it has for them (fused ones, say)."""
    loaded: set[str] = set()
    load = model.load_weights

    def noting(weights: Any) -> set[str]:
        found = load(weights)
        loaded.update(found)
        return found

    model.load_weights = noting
    try:
        yield loaded
    finally:
        del model.load_weights


def _refresh_tied_head(model: Any) -> None:
    """Pack a head that is tied to the embeddings anew: on CPU its kernel has a copy, which a reload leaves stale."""
    head: Any = getattr(model, "lm_head", None)
    if model.config.get_text_config().tie_word_embeddings and hasattr(head, "quant_method"):
        head.quant_method.process_weights_after_loading(head)


def _whole(model: Any, weights: Weights) -> list[str]:
    """Compare all bits, where the model holds just what was sent: not its own shard, nor (on CPU) packed for a kernel.

    The bits of fused parameters add up, so the sum over all of them is that over those that were sent.
    """
    parameters = [parameter.detach() for parameter in model.parameters()]
    same_type = all(parameter.dtype == weights.layout.dtype for parameter in parameters)
    if not same_type or sum(map(torch.numel, parameters)) != sum(weights.layout.sizes):
        return []
    modulo = 1 << 64
    total = sum(map(bit_sum, parameters)) % modulo
    return [] if total == sum(weights.sums) % modulo else ["(the bits of all of them do not add up)"]


Key = tuple[str, bool]
"""A module's name, and whether it is A."""


def _key(name: str) -> Key:
    return module_of(name), DOWN in name


def _held(manager: Any, number: int) -> dict[Key, Tensor]:
    """Return what vLLM applies of an adapter: of modules that it has wrapped, and fused ones part by part."""
    adapter = manager.get_adapter(number)
    held: dict[Key, Tensor] = {}
    for name in manager.modules:
        if (layer := adapter.get_lora(name)) is None:
            continue
        parts = manager.packed_modules.get(name)
        pairs = zip(layer.lora_a, layer.lora_b, strict=True) if parts else [(layer.lora_a, layer.lora_b)]
        for part, (down, up) in zip(parts or [name], pairs, strict=True):
            held |= {(part, True): down, (part, False): up}
    return held


def _same(sent: Tensor, held: Tensor | None) -> bool:
    return held is not None and torch.equal(sent.to(held.dtype), held.cpu())
