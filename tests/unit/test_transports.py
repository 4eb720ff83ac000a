"""Weights by shared memory and by broadcast, between two processes: to the bit, or a failure that says so."""

from multiprocessing.connection import Connection

import pytest
import torch
from torch import multiprocessing

from agapo.errors import TransferFailed, UserError
from agapo.learner.rl.group import TRANSFER_TIMEOUT_S
from agapo.model import transports
from agapo.model.transports import (
    BroadcastWeights,
    MeetingPlace,
    SharedBuffer,
    SharedWeights,
    broadcast_weights,
    buckets,
    meet,
    place,
)
from agapo.model.weights import WeightLayout, load_weights, pack_into, require_loaded, weight_layout
from tests.builders import tiny_exaone, tiny_qwen
from tests.stages.test_invariance import free_port

BUCKET = 20_000
"""Bytes: less than the model, more than most of its parameters, less than its largest."""


def engine(pipe: Connection) -> None:
    """Another process with a model: takes weights as it is told, and says what came of it."""
    transports.BUCKET_BYTES = BUCKET
    model = tiny_exaone(seed=1)
    for weights in iter(pipe.recv, None):
        try:
            if isinstance(weights, MeetingPlace):
                meet(weights, 1, "cpu")
            else:
                load_weights(model, weights)
                require_loaded(model, weights, 1)
            pipe.send({name: value.detach().numpy() for name, value in model.named_parameters()})
        except (UserError, TransferFailed) as error:
            pipe.send(error)


@pytest.fixture
def other():
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=engine, args=(there,))
    process.start()
    yield here, process
    here.send(None)
    process.join()


def require_same(model: torch.nn.Module, found: object) -> None:
    assert isinstance(found, dict), found
    parameters = dict(model.named_parameters())
    assert found.keys() == parameters.keys()
    assert all(torch.equal(torch.from_numpy(found[name]), value) for name, value in parameters.items())


def test_shared_weights_arrive_and_can_be_taken_again(other):
    here, _ = other
    model = tiny_exaone(seed=0)
    layout = weight_layout(model, torch.float32)
    buffer = SharedBuffer(layout, "cpu")
    sums = tuple(pack_into(buffer.flat, model, layout).tolist())
    for _ in range(2):
        weights = SharedWeights({"elsewhere": b"", place("cpu"): buffer.handle()}, layout, sums)
        # A handle is not used up: there may be several engines on a place, and an engine may come later.
        for _ in range(2):
            here.send(weights)
            require_same(model, here.recv())
        # The buffer is the one that the other process reads: nothing was copied on the way.
        with torch.no_grad():
            model.get_parameter(layout.names[0]).add_(1)
        sums = tuple(pack_into(buffer.flat, model, layout).tolist())
    here.send(SharedWeights({place("cpu"): buffer.handle()}, layout, (sums[0] + 1, *sums[1:])))
    error = here.recv()
    assert isinstance(error, UserError)
    assert layout.names[0] in str(error)
    here.send(SharedWeights({"elsewhere": buffer.handle()}, layout, sums))
    assert "no learner rank is where this engine is" in str(here.recv())


def test_broadcast_weights_arrive_until_the_other_is_gone(other, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transports, "BUCKET_BYTES", BUCKET)
    here, process = other
    model = tiny_exaone(seed=0)
    layout = weight_layout(model, torch.float32)
    assert len(list(buckets(layout))) > 3
    meeting = MeetingPlace("127.0.0.1", free_port(), 2, 60)
    here.send(meeting)
    meet(meeting, 0, "cpu")
    assert isinstance(here.recv(), dict)
    for _ in range(2):
        here.send(BroadcastWeights(layout))
        broadcast_weights(model, layout)
        require_same(model, here.recv())
        with torch.no_grad():
            model.get_parameter(layout.names[0]).add_(1)
    process.kill()
    process.join()
    gathered: list[torch.nn.Parameter] = []

    def gather(parameter: torch.nn.Parameter):
        gathered.append(parameter)
        return transports.whole(parameter)

    with pytest.raises(TransferFailed, match="broadcast of weights"):
        broadcast_weights(model, layout, gather)
    # Other ranks take part in that to the end.
    assert len(gathered) == len(layout.names)


def test_who_does_not_come_is_not_waited_for_for_ever():
    with pytest.raises(TransferFailed, match="meeting of member 0"):
        meet(MeetingPlace("127.0.0.1", free_port(), 2, 1), 0, "cpu")
    assert TRANSFER_TIMEOUT_S < 300


def test_weights_before_a_meeting_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transports, "_group", None)
    model = tiny_qwen()
    layout = weight_layout(model, torch.float32)
    with pytest.raises(TransferFailed, match="has not met"):
        load_weights(model, BroadcastWeights(layout))
    with pytest.raises(TransferFailed, match="before"):
        broadcast_weights(model, layout)


@pytest.mark.parametrize("bound", [1, 60, 100, 250])
def test_buckets_are_the_layout_in_parts(bound: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transports, "BUCKET_BYTES", bound)
    layout = WeightLayout(("a", "b", "c", "d"), ((5, 5), (10,), (15,), (70,)), torch.bfloat16)
    found = list(buckets(layout))
    assert tuple(name for part in found for name in part.names) == layout.names
    assert tuple(shape for part in found for shape in part.shapes) == layout.shapes
    assert all(len(part.names) == 1 or 2 * sum(part.sizes) <= bound for part in found)
    assert len(found) == {1: 4, 60: 3, 100: 2, 250: 1}[bound]
