"""All weights of a model as one flat buffer: what travels from the learner to the rollout actors.

One buffer costs one object-store entry and one copy; a message per tensor costs milliseconds each.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


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


def weight_layout(model: nn.Module, dtype: torch.dtype) -> WeightLayout:
    """Return the layout of the model's parameters (tied ones once) as `dtype`."""
    parameters = dict(model.named_parameters())
    shapes = tuple(tuple(getattr(parameter, "ds_shape", parameter.shape)) for parameter in parameters.values())
    return WeightLayout(tuple(parameters), shapes, dtype)


def whole(parameter: nn.Parameter) -> AbstractContextManager[object]:
    """What makes a parameter whole that is not sharded: nothing."""
    return nullcontext()


@torch.no_grad()
def pack_weights(
    model: nn.Module, layout: WeightLayout, gather: Callable[[nn.Parameter], AbstractContextManager[object]] = whole
) -> np.ndarray:
    """Return the parameters as one uint8 array (numpy has no bfloat16).

    `gather` makes a sharded parameter whole while it is read (ZeRO-3); one at a time, to bound the memory.
    """
    parameters = dict(model.named_parameters())
    flat = torch.empty(sum(layout.sizes), dtype=layout.dtype)
    for name, piece in zip(layout.names, flat.split(layout.sizes), strict=True):
        with gather(parameters[name]):
            piece.copy_(parameters[name].reshape(-1))
    return flat.view(torch.uint8).numpy()


@torch.no_grad()
def take_part(
    model: nn.Module, layout: WeightLayout, gather: Callable[[nn.Parameter], AbstractContextManager[object]]
) -> None:
    """Make each parameter whole in turn, as `pack_weights` on another rank does, and keep nothing."""
    parameters = dict(model.named_parameters())
    for name in layout.names:
        with gather(parameters[name]):
            pass


@torch.no_grad()
def load_weights(model: nn.Module, buffer: np.ndarray, layout: WeightLayout) -> None:
    """Copy a packed buffer into the model's parameters, in place."""
    parameters = dict(model.named_parameters())
    for name, values in named_weights(buffer, layout):
        parameters[name].copy_(values)


def named_weights(buffer: np.ndarray, layout: WeightLayout) -> Iterator[tuple[str, Tensor]]:
    """Yield each parameter's name and values, which lie in the buffer and are to be read only."""
    pieces = _as_tensor(buffer, layout.dtype).split(layout.sizes)
    for name, shape, piece in zip(layout.names, layout.shapes, pieces, strict=True):
        yield name, piece.view(shape)


def _as_tensor(buffer: np.ndarray, dtype: torch.dtype) -> Tensor:
    with warnings.catch_warnings():
        # Arrays from Ray's object store are read-only, which torch warns of; we only read.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(buffer).view(dtype)
