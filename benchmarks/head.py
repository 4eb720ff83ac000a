"""The head's log-probabilities and their gradient, beside a dense log-softmax: seconds of the CPU and memory.

Each measurement is a process of its own, so that its peak is its own; both sides get the same numbers.
"""

import argparse
import resource
import time
from multiprocessing import get_context

import torch
from torch import nn
from torch.nn.functional import linear

from agapo.model.logprobs import logprobs_and_entropy

GIB_OF_KIB = 1 / (1 << 20)


def measure(side: str, tokens: int, vocabulary: int, width: int, dtype: torch.dtype, threads: int) -> tuple:
    """Return (seconds, GiB above what was there before) of a forward and backward."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    head = nn.Linear(width, vocabulary, bias=False, dtype=dtype)
    hidden = torch.randn(tokens, width).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    if side == "chunked":
        found, _ = logprobs_and_entropy(head, hidden, targets, entropy=False)
    else:
        table = linear(hidden, head.weight).float().log_softmax(dim=-1)
        found = table.gather(-1, targets[:, None]).squeeze(-1)
    found.sum().backward()
    taken = time.process_time() - begin
    return taken, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * GIB_OF_KIB


def main() -> None:
    """Print a line a pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=102_400)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    size = (args.tokens, args.vocabulary, args.width, getattr(torch, args.dtype), args.threads)
    for _ in range(args.pairs):
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            (old, much), (new, little) = (pool.apply(measure, (side, *size)) for side in ("dense", "chunked"))
        print(f"dense {old:6.1f} s {much:5.2f} GiB   chunked {new:6.1f} s {little:5.2f} GiB   "
              f"time {new / old:.2f}, memory {little / much:.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
