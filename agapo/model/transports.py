"""Two ways for weights to travel without the host's memory and Ray's object store in between.

    ipc         a rank ──► its flat buffer on the GPU ──► the engine on the same GPU reads it there (CUDA IPC)
    broadcast   the first rank ──► buckets ──► all engines at once (NCCL; gloo between CPUs)

On CPUs `ipc` goes through shared memory of the host. Both are `agapo.model.weights.Weights` at the receiving end.
"""

import os
import pickle
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from mmap import mmap
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
import torch.multiprocessing  # which teaches ForkingPickler about tensors
from torch import Tensor, nn

from agapo.errors import TransferFailed, UserError, first_line
from agapo.model.weights import Gather, WeightLayout, as_tensor, pack_into, whole

BUCKET_BYTES = 256 << 20
"""Of a broadcast: so much room it takes on both sides, or the largest parameter."""


# --- ipc ---


def place(device: str) -> str:
    """Return what two processes have in common that can share a `device`'s memory: the GPU, or the host."""
    return str(torch.cuda.get_device_properties("cuda").uuid) if device == "cuda" else socket.gethostname()


class SharedBuffer:
    """A flat buffer for weights that other processes on its `place` can read, as long as this one lives."""

    def __init__(self, layout: WeightLayout, device: str):
        """Take room for the layout's weights on the device."""
        size = sum(layout.sizes)
        if device == "cuda":
            self.flat = torch.empty(size, dtype=layout.dtype, device=device)
            return
        # Memory without a name goes when its process does, however that ends.
        self._file = os.memfd_create("agapo-weights")
        os.truncate(self._file, size * layout.dtype.itemsize)
        memory = mmap(self._file, size * layout.dtype.itemsize)
        self.flat = torch.frombuffer(memory, dtype=layout.dtype)

    def handle(self) -> bytes | str:
        """Return what another process opens it by (`opened`), as often as it likes."""
        if self.flat.is_cuda:
            return bytes(ForkingPickler.dumps(self.flat))
        return f"/proc/{os.getpid()}/fd/{self._file}"


def opened(handle: bytes | str, dtype: torch.dtype) -> Tensor:
    """Return the flat buffer of another process's `SharedBuffer`, to be read only."""
    if isinstance(handle, bytes):
        return pickle.loads(handle)
    return as_tensor(np.memmap(handle, dtype=np.uint8, mode="r"), dtype)


@dataclass(frozen=True)
class SharedWeights:
    """Weights that lie in the buffers of learner ranks, each on a place of its own."""

    handles: Mapping[str, bytes | str]
    """Of a `SharedBuffer`, by place."""
    layout: WeightLayout
    sums: tuple[int, ...]

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and values, out of the buffer of a rank that shares this process's GPU.

        Raises UserError where there is none.
        """
        devices = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
        handle = next((self.handles[here] for here in map(place, devices) if here in self.handles), None)
        if handle is None:
            raise UserError(
                "rollout.weight_transport: ipc, and no learner rank is where this engine is; "
                "set it to host or broadcast"
            )
        yield from self.layout.pieces(opened(handle, self.layout.dtype))


# --- broadcast ---


@dataclass(frozen=True)
class MeetingPlace:
    """Where the first learner rank (member 0) and the engines meet for broadcasts."""

    address: str
    port: int
    members: int
    timeout_s: float
    """Of meeting, and of each broadcast."""


class _Group:
    """The group that this process is a member of."""

    def __init__(self, meeting: MeetingPlace, member: int, device: str):
        """Meet the others. A group of its own: torch's default one is the learner ranks', or vLLM's."""
        timeout = timedelta(seconds=meeting.timeout_s)
        self.device = device
        distributed: Any = torch.distributed
        self._store = distributed.TCPStore(
            meeting.address,
            meeting.port,
            meeting.members,
            is_master=member == 0,
            timeout=timeout,
            wait_for_workers=False,
        )
        if device == "cuda":
            options = distributed.ProcessGroupNCCL.Options()
            options._timeout = timeout
            self._group = distributed.ProcessGroupNCCL(self._store, member, meeting.members, options)
        else:
            self._group = distributed.ProcessGroupGloo(self._store, member, meeting.members, timeout)

    def broadcast(self, values: Tensor) -> None:
        """Send member 0's values to all; they are written over everywhere else."""
        self._group.broadcast(values, 0).wait()


_group: _Group | None = None


def meet(meeting: MeetingPlace, member: int, device: str) -> None:
    """Make this process a member of the group, in the place of one that it was in. Returns when all are there.

    Raises TransferFailed where some are not there in time.
    """
    global _group
    _group = None
    try:
        group = _Group(meeting, member, device)
        # NCCL connects at the first call.
        group.broadcast(torch.zeros(1, device=device))
    except RuntimeError as error:
        raise TransferFailed(f"meeting of member {member}: {first_line(error)}") from error
    _group = group


@torch.no_grad()
def broadcast_weights(model: nn.Module, layout: WeightLayout, gather: Gather = whole) -> None:
    """Send the weights of a layout to the engines, as member 0. Raises TransferFailed where one is gone, or hangs."""
    if _group is None:
        raise TransferFailed("broadcast of weights before the members have met")
    failed: RuntimeError | None = None
    for bucket in buckets(layout):
        flat = torch.empty(sum(bucket.sizes), dtype=bucket.dtype, device=_group.device)
        sums = pack_into(flat, model, bucket, gather)
        # What is left is gathered all the same: other ranks take part in that.
        if not failed:
            try:
                _group.broadcast(sums)
                _group.broadcast(flat)
            except RuntimeError as error:
                failed = error
    if failed:
        raise TransferFailed(f"broadcast of weights: {first_line(failed)}") from failed


@dataclass(frozen=True)
class BroadcastWeights:
    """Weights that `broadcast_weights` is about to send to this process; they can be read once."""

    layout: WeightLayout
    sums: list[int] = field(default_factory=list)
    """Of the buckets that have come."""

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and values as buckets come. Raises TransferFailed where the sender is gone, or hangs."""
        if _group is None:
            raise TransferFailed("weights are sent to an engine that has not met the others")
        for bucket in buckets(self.layout):
            sums = torch.empty(len(bucket.names), dtype=torch.int64, device=_group.device)
            flat = torch.empty(sum(bucket.sizes), dtype=bucket.dtype, device=_group.device)
            try:
                _group.broadcast(sums)
                _group.broadcast(flat)
            except RuntimeError as error:
                raise TransferFailed(f"arrival of weights: {first_line(error)}") from error
            self.sums.extend(sums.tolist())
            yield from bucket.pieces(flat)


def buckets(layout: WeightLayout) -> Iterator[WeightLayout]:
    """Yield the layout in parts of at most `BUCKET_BYTES`, at least a parameter each; both sides divide it alike."""
    first, held = 0, 0
    for number, size in enumerate(layout.sizes):
        taken = size * layout.dtype.itemsize
        if number > first and held + taken > BUCKET_BYTES:
            yield _part(layout, first, number)
            first, held = number, 0
        held += taken
    yield _part(layout, first, len(layout.names))


def _part(layout: WeightLayout, start: int, end: int) -> WeightLayout:
    return WeightLayout(layout.names[start:end], layout.shapes[start:end], layout.dtype)
