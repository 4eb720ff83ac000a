"""Weights to another process by each of `rollout.weight_transport`: whether they arrive, and how long it takes.

`broadcast` goes to a second GPU where there is one; NCCL has no two members on one.
"""

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import multiprocessing

from agapo.model.transports import (
    BroadcastWeights,
    MeetingPlace,
    SharedBuffer,
    SharedWeights,
    broadcast_weights,
    meet,
    place,
)
from agapo.model.weights import empty_buffer, load_weights, pack_into, pack_weights, require_loaded, weight_layout
from benchmarks.gpu.learn import free_port
from benchmarks.gpu.models import Shape, random_model
from benchmarks.gpu.setting import SMALL, Setting

TIMES = 3


def run(setting: Setting) -> None:
    """Send the first shape's weights several times each way; the receiver proves each time that it has them."""
    shape, device = setting.sizes.shapes[0], setting.device
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model: Any = random_model(shape, device, dtype)
    layout = weight_layout(model, dtype)
    gib = sum(layout.sizes) * dtype.itemsize / (1 << 30)
    packed, shared = empty_buffer(layout, pinned=device == "cuda"), SharedBuffer(layout, device)

    def by_host(pipe: Connection) -> None:
        pipe.send(pack_weights(model, layout, flat=packed))

    def by_ipc(pipe: Connection) -> None:
        sums = tuple(pack_into(shared.flat, model, layout).tolist())
        pipe.send(SharedWeights({place(device): shared.handle()}, layout, sums))

    def by_broadcast(pipe: Connection) -> None:
        pipe.send(BroadcastWeights(layout))
        broadcast_weights(model, layout)

    with _Receiver(setting, 0) as receiver:
        for name, send in (("host", by_host), ("ipc", by_ipc)):
            setting.record.add(f"weights by {name}", {"GiB": gib, "s": _least(model, receiver, send)})
    if device == "cuda" and torch.cuda.device_count() < 2:
        setting.record.add("weights by broadcast", note="not tried: it takes two GPUs")
        return
    with _Receiver(setting, 1 if device == "cuda" else 0) as receiver:
        meeting = MeetingPlace("127.0.0.1", free_port(), 2, 60)
        receiver.send(meeting)
        meet(meeting, 0, device)
        _require_well(receiver)
        setting.record.add("weights by broadcast", {"GiB": gib, "s": _least(model, receiver, by_broadcast)})


@torch.no_grad()
def _least(model: Any, receiver: Connection, send: Callable[[Connection], None]) -> float:
    """Return the seconds of the quickest of several hand-overs, each of other weights."""
    seconds = []
    for _ in range(TIMES):
        for parameter in model.parameters():
            parameter.mul_(1.01)
        began = time.monotonic()
        send(receiver)
        _require_well(receiver)
        seconds.append(time.monotonic() - began)
    return min(seconds)


def _require_well(receiver: Connection) -> None:
    if problem := receiver.recv():
        raise RuntimeError(problem)


class _Receiver:
    """Another process with a model of the same shape on a GPU."""

    def __init__(self, setting: Setting, gpu: int):
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        small = setting.sizes == SMALL
        self._process = context.Process(target=_receive, args=(there, small, setting.device, gpu), daemon=True)

    def __enter__(self) -> Connection:
        self._process.start()
        _require_well(self._pipe)
        return self._pipe

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join()


def _receive(pipe: Connection, small: bool, device: str, gpu: int) -> None:
    from benchmarks.gpu.setting import REAL

    shape: Shape = (SMALL if small else REAL).shapes[0]
    if device == "cuda":
        torch.cuda.set_device(gpu)
    model: Any = random_model(shape, device, torch.bfloat16 if device == "cuda" else torch.float32, seed=1)
    pipe.send("")
    for weights in iter(pipe.recv, None):
        try:
            if isinstance(weights, MeetingPlace):
                meet(weights, 1, device)
            else:
                load_weights(model, weights)
                require_loaded(model, weights, 1)
        except Exception as error:  # told to the process that records it
            pipe.send(repr(error))
        else:
            pipe.send("")
