"""Clocks and meters of the device: seconds of wall clock and of kernels, and memory at its peak."""

import time
from collections.abc import Callable

import torch

GIB = 1024**3
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Dense bfloat16 operations a second, as the makers state them (SXM versions)."""


def peak_flops(device: str) -> float | None:
    """Return what the card can do at most, None where this table does not know it."""
    if device != "cuda":
        return None
    name = torch.cuda.get_device_name()
    return next((flops for known, flops in PEAK_FLOPS.items() if known in name), None)


def seconds(action: Callable[[], object], device: str) -> float:
    """Return the wall-clock seconds of an action, its kernels included."""
    _synchronize(device)
    started = time.perf_counter()
    action()
    _synchronize(device)
    return time.perf_counter() - started


def kernel_seconds(action: Callable[[], object], device: str) -> float | None:
    """Return how long the GPU's kernels ran in an action, None without a GPU. What is left of the wall clock is the
    host's: Python, launches, copies waited for.
    """
    if device != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        action()
        _synchronize(device)
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6


def peak_gib(action: Callable[[], object], device: str) -> float | None:
    """Return the most GPU memory that was allocated during an action (GiB, all of it), None without a GPU."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    action()
    _synchronize(device)
    return torch.cuda.max_memory_allocated() / GIB if device == "cuda" else None


def allocated_gib(device: str) -> float | None:
    """Return the GPU memory of live tensors."""
    return torch.cuda.memory_allocated() / GIB if device == "cuda" else None


def reserved_gib(device: str) -> float | None:
    """Return the GPU memory that PyTorch's allocator holds, live or not."""
    return torch.cuda.memory_reserved() / GIB if device == "cuda" else None


def difference(new: float | None, old: float | None) -> float | None:
    """Return new − old, None where either is not known."""
    return None if new is None or old is None else new - old


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
