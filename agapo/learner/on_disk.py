"""What DeepSpeed offloads to the host's memory, in files of a fast local disk instead (`offload_folder`).

Such memory is mapped from a file: the kernel keeps it in RAM while there is room, and on the disk where there is none.
The numbers, checkpoints and their resume are those of offloading to the host. DeepSpeed's own way to a disk
(ZeRO-Infinity, arXiv 2104.07857) compiles an extension at run time, is for ZeRO 3 alone, and its checkpoints are read
by as many ranks only.
"""

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from agapo.errors import UserError


@cache
def keep_on_disk(folder: Path) -> None:
    """Have this process keep on a disk what DeepSpeed offloads from now on: call before models are loaded.

    Raises UserError, also later, where the folder cannot be written to or has no room.
    """
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    disk = DiskMemory(folder)
    # Weights, gradients and the optimizer's float32 weights: DeepSpeed asks for pinned memory to hold them ...
    accelerator: Any = get_accelerator()
    accelerator.pin_memory = disk.in_place_of_pinned
    # ... but for the last of them under ZeRO 3, which it has just made when it calls this.
    make_momentum = DeepSpeedZeroOptimizer_Stage3._create_momentum_buffer

    def move_and_make_momentum(self: Any, num_elements: int, i: int, ds_id: Any) -> None:
        weights = self.fp32_partitioned_groups_flat
        weights[i] = disk.copy(weights[i])
        make_momentum(self, num_elements, i, ds_id)

    DeepSpeedZeroOptimizer_Stage3._create_momentum_buffer = move_and_make_momentum
    # The moments are made at the first step, or what a checkpoint holds, mapped from its file.
    register_optimizer_step_pre_hook(disk.make_moments)
    TorchCheckpointEngine.load = mapped(TorchCheckpointEngine.load)
    for kind in (DeepSpeedZeroOptimizer, DeepSpeedZeroOptimizer_Stage3):
        kind.load_state_dict = _moving(kind.load_state_dict, disk)


def mapped(load: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that maps the files that `load` has torch read; others are read as ever (old ones must be)."""
    from torch.utils.serialization import config

    def load_mapped(*given: Any, **named: Any) -> Any:
        with config.patch("load.mmap", True):  # pyright: ignore[reportAttributeAccessIssue]
            return load(*given, **named)

    return load_mapped


def _moving(load: Callable[..., None], disk: "DiskMemory") -> Callable[..., None]:
    def load_and_move(optimizer: Any, *given: Any, **named: Any) -> None:
        load(optimizer, *given, **named)
        disk.move_moments(optimizer.optimizer)

    return load_and_move


class DiskMemory:
    """Memory that is mapped from files of a folder; they have no name, and go with the tensors."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(error) from None

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor of zeros."""
        count = math.prod(shape)
        if not count:
            return torch.zeros(*shape, dtype=dtype)
        try:
            descriptor, name = tempfile.mkstemp(prefix="agapo-", dir=self.folder)
            try:
                # Taken now: on a full disk, writing to the memory later would end the process.
                os.posix_fallocate(descriptor, 0, count * dtype.itemsize)
                return torch.from_file(name, shared=True, size=count, dtype=dtype).view(*shape)
            finally:
                os.close(descriptor)
                Path(name).unlink()
        except OSError as error:
            raise self._refused(error) from None

    def copy(self, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor."""
        return self.zeros(tensor.shape, tensor.dtype).copy_(tensor.detach())

    def in_place_of_pinned(self, tensor: Tensor, make_copy: bool = True, match_shape: bool = True) -> Tensor:
        """As DeepSpeed's accelerators give pinned memory."""
        if make_copy:
            return self.copy(tensor)
        return self.zeros(tensor.shape if match_shape else (tensor.numel(),), tensor.dtype)

    def make_moments(self, optimizer: Optimizer, *_: Any) -> None:
        """Make what the state of an AdamW on the host lacks, which would otherwise be made in memory."""
        if not isinstance(optimizer, AdamW):
            return
        for parameter in (item for group in optimizer.param_groups for item in group["params"]):
            if parameter.device.type == "cpu" and not optimizer.state[parameter]:
                moments = {name: self.zeros(parameter.shape, parameter.dtype) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": torch.zeros((), dtype=torch.float32), **moments}

    def move_moments(self, optimizer: Optimizer) -> None:
        """Move the moments of a state that was loaded, and lies in a checkpoint's file.

        The count of steps too: it alone would hold the room of a checkpoint that is deleted later.
        """
        for state in optimizer.state.values():
            for name, value in state.items():
                if torch.is_tensor(value) and value.device.type == "cpu":
                    state[name] = self.copy(value) if value.ndim else value.clone()

    def _refused(self, error: OSError) -> UserError:
        return UserError(
            f"offload_folder: {self.folder}: {error.strerror or error}; name a folder of a disk with room, "
            "or leave it out"
        )
