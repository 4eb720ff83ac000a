"""Under ZeRO-3 the head's weight is gathered once for a micro-batch's forward, and at most once for its backward.

DeepSpeed runs as it does in training, on one rank in a process of its own.
"""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from agapo.model import logprobs as module
from agapo.model.logprobs import LogProbModel, output_head
from tests.builders import tiny_exaone

PROMPT, TOKENS = [7, 8, 9], [20, 30, 40, 50, 60, 70, 80]
SIZES = (7, 4, 6)
"""Response tokens, and so chunks, of each micro-batch."""


def inputs(size: int) -> tuple:
    ids = PROMPT + TOKENS[:size]
    places = torch.arange(2, 2 + size)
    return torch.tensor([ids]), torch.arange(len(ids))[None], None, places, torch.tensor(TOKENS[:size]), 0.7


def run_rank(port: int, path: Path) -> None:
    """Count the gathers of each micro-batch, and write them and the gradients."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    import deepspeed

    from agapo.learner.deepspeed_config import skip_compiled_extension

    skip_compiled_extension()
    deepspeed.init_distributed("gloo", False, init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    module.CHUNK_ELEMENTS = 1  # a token a chunk
    model = tiny_exaone()
    config = {
        "train_micro_batch_size_per_gpu": 1,
        # Parameters as small as these would stay whole otherwise.
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "optimizer": {"type": "AdamW", "params": {"torch_adam": True}},
    }
    engine, *_ = deepspeed.initialize(model=LogProbModel(model), config=config)
    gathers = [micro_batch(engine, output_head(model).weight, size) for size in SIZES]
    gradients = {name: deepspeed.utils.safe_get_full_grad(value) for name, value in model.named_parameters()}
    torch.save((gathers, gradients), path)
    torch.distributed.destroy_process_group()


def micro_batch(engine, weight, size: int) -> tuple[int, int]:
    """Run a micro-batch; return how often the weight was gathered in its forward and in its backward."""
    counts, coalesced, single = [], weight.all_gather_coalesced, weight.all_gather

    def counted(params, *others, **options):
        counts.append(any(item is weight for item in params))
        return coalesced(params, *others, **options)

    def alone(*others, **options):
        counts.append(True)
        return single(*others, **options)

    for parameter in engine.module.parameters():
        parameter.all_gather_coalesced = counted
    weight.all_gather = alone
    found, _ = engine(*inputs(size))
    forward = sum(counts)
    engine.backward(found.sum())
    weight.all_gather = single
    for parameter in engine.module.parameters():
        parameter.all_gather_coalesced = coalesced
    return forward, sum(counts) - forward


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("gathers") / "found.pt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=run_rank, args=(port, path))
    process.start()
    process.join()
    return torch.load(path, weights_only=False)


def test_once_a_micro_batch(found):
    """Once DeepSpeed knows the order of things, it keeps the weight from the forward for the backward."""
    gathers, _ = found
    assert gathers == [(1, 1), (1, 0), (1, 0)]


def test_gradients_are_those_of_the_plain_model(found):
    _, gradients = found
    model = tiny_exaone()
    for size in SIZES:
        values, _ = LogProbModel(model)(*inputs(size))
        values.sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)
