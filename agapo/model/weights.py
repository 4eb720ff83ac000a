"""The trained weights of a model as one flat buffer: what travels from the learner to the rollout actors.

All of them, or under LoRA the adapters alone (`adapters.py`): what is trained, on either side, is what travels.

One buffer costs one object-store entry and one copy; a message per tensor costs milliseconds each. Who packs it notes
a sum of each parameter's bits, and who loads it compares: that the weights have arrived is seen, not believed.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from agapo.errors import UserError

Gather = Callable[[nn.Parameter], AbstractContextManager[object]]
"""What makes a sharded parameter whole while it is read (ZeRO-3)."""
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class WeightLayout:
    """Where each parameter lies in the flat buffer."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    @property
    def sizes(self) -> list[int]:
        """Elements of each parameter."""
        return [int(np.prod(shape)) for shape in self.shapes]

    def pieces(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's name and values out of the flat buffer."""
        for name, shape, piece in zip(self.names, self.shapes, flat.split(self.sizes), strict=True):
            yield name, piece.view(shape)


class Weights(Protocol):
    """A model's trained weights, however they come (`transports.py` has other ways than `PackedWeights`)."""

    @property
    def layout(self) -> WeightLayout:
        """Which they are."""
        ...

    @property
    def sums(self) -> Sequence[int]:
        """`bit_sum` of each parameter, taken where it was trained; known of those that `named` has yielded."""
        ...

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's name and values, which are to be read only, and before the next ones are asked for."""
        ...


@dataclass(frozen=True)
class PackedWeights:
    """The trained weights in the host's memory: what goes anywhere, through Ray's object store."""

    buffer: np.ndarray
    """uint8 (numpy has no bfloat16): the parameters one after the other."""
    layout: WeightLayout
    sums: tuple[int, ...]
    """`bit_sum` of each parameter, taken where they were packed."""

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's name and values, which lie in the buffer and are to be read only."""
        return self.layout.pieces(as_tensor(self.buffer, self.layout.dtype))


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name: those that travel."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def weight_layout(model: nn.Module, dtype: torch.dtype) -> WeightLayout:
    """Return the layout of the model's trained parameters (tied ones once) as `dtype`."""
    parameters = trained_parameters(model)
    shapes = tuple(tuple(getattr(parameter, "ds_shape", parameter.shape)) for parameter in parameters.values())
    return WeightLayout(tuple(parameters), shapes, dtype)


def whole(parameter: nn.Parameter) -> AbstractContextManager[object]:
    """What makes a parameter whole that is not sharded: nothing."""
    return nullcontext()


def empty_buffer(layout: WeightLayout, *, pinned: bool = False) -> Tensor:
    """Return a flat tensor for a model's weights; `pinned` where a GPU is to copy into it."""
    return torch.empty(sum(layout.sizes), dtype=layout.dtype, pin_memory=pinned)


@torch.no_grad()
def pack_weights(
    model: nn.Module, layout: WeightLayout, gather: Gather = whole, flat: Tensor | None = None
) -> PackedWeights:
    """Return the parameters of a layout in one buffer: `flat` (`empty_buffer`), which is written over, or a new one."""
    flat = empty_buffer(layout) if flat is None else flat
    sums = pack_into(flat, model, layout, gather)
    return PackedWeights(flat.view(torch.uint8).numpy(), layout, tuple(sums.tolist()))


@torch.no_grad()
def pack_into(flat: Tensor, model: nn.Module, layout: WeightLayout, gather: Gather = whole) -> Tensor:
    """Write the parameters of a layout into `flat` (`empty_buffer`); return their sums, int64, where they lie.

    Who reads the sums on the host has waited for the copies too. Sharded parameters are made whole one at a time, to
    bound the memory.
    """
    parameters = dict(model.named_parameters())
    sums = []
    for name, piece in zip(layout.names, flat.split(layout.sizes), strict=True):
        with gather(parameters[name]):
            values = parameters[name].to(layout.dtype).reshape(-1)
            piece.copy_(values, non_blocking=True)
            sums.append(_bits_added(values))
    return torch.stack(sums)


def pack_tensors(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeights:
    """Return weights that are in no model (an adapter's file, say), packed as `dtype`."""
    values = [tensor.to(dtype).reshape(-1) for tensor in tensors.values()]
    layout = WeightLayout(tuple(tensors), tuple(tuple(tensor.shape) for tensor in tensors.values()), dtype)
    return PackedWeights(torch.cat(values).view(torch.uint8).numpy(), layout, tuple(map(bit_sum, values)))


@torch.no_grad()
def take_part(model: nn.Module, layout: WeightLayout, gather: Gather) -> None:
    """Make each parameter whole in turn, as `pack_weights` on another rank does, and keep nothing."""
    parameters = dict(model.named_parameters())
    for name in layout.names:
        with gather(parameters[name]):
            pass


@torch.no_grad()
def load_weights(model: nn.Module, weights: Weights) -> None:
    """Copy weights into the model's parameters, in place."""
    parameters = dict(model.named_parameters())
    for name, values in weights.named():
        parameters[name].copy_(values)


def require_loaded(model: nn.Module, weights: Weights, version: int) -> None:
    """Raise UserError where the trained parameters are not those that were loaded, or some were not sent at all."""
    parameters = trained_parameters(model)
    wrong = sorted(parameters.keys() - set(weights.layout.names))
    # Of another type than what travels (which tests have, and recipes have not) they cannot have the same bits.
    if all(parameter.dtype == weights.layout.dtype for parameter in parameters.values()):
        sent = zip(weights.layout.names, weights.sums, strict=True)
        wrong += [name for name, expected in sent if bit_sum(parameters[name].detach()) != expected]
    if wrong:
        raise weights_did_not_arrive(version, wrong)


def weights_did_not_arrive(version: int, wrong: Iterable[str]) -> UserError:
    """Return the error for an engine whose parameters `wrong` are not those of the learner."""
    first, *others = wrong
    more = f" and {len(others)} more" if others else ""
    return UserError(
        f"rollout engine: after the hand-over of weights {version} these of its weights are not the learner's: "
        f"{first}{more}. Nothing was sampled with them; run again to go on from the last checkpoint"
    )


def bit_sum(values: Tensor) -> int:
    """Return the sum of the values' bits, taken as integers, modulo 2^64.

    It is the same whatever the order, so the sums of a model's shards, or of parameters that an engine fused, add up.
    """
    return int(_bits_added(values))


def _bits_added(values: Tensor) -> Tensor:
    return values.view(INTEGERS[values.element_size()]).sum(dtype=torch.int64)


def as_tensor(buffer: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Return a buffer of bytes (uint8) as a tensor that is to be read only."""
    with warnings.catch_warnings():
        # Arrays from Ray's object store are read-only, which torch warns of; we only read.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(buffer).view(dtype)
