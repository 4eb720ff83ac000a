"""Under ZeRO-3 the RL learner's models are sharded as they load: no rank ever holds one, and what comes of it is what
whole models give, with the optimizer and the weights in the host's memory too.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from agapo.learner.rl.settings import LearnerSettings
from agapo.model.loading import create_model, export_hf, load_model
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import trained_parameters
from agapo.recipe.learner import LearnerConfig
from agapo.recipe.model import ModelConfig
from tests.stages.test_invariance import NOMINAL, OBJECTIVE, TEMPERATURE, free_port, make_examples

pytestmark = pytest.mark.slow

HOW = {"denominator": NOMINAL, "learning_rate": 1e-3}
WHOLE = (1, "float32", 0, False)
CASES = [WHOLE, (2, "float32", 3, False), (2, "float32", 3, True), (2, "bfloat16", 3, True), (2, "float32", 1, True)]
"""Ranks, type of the weights, ZeRO stage, offloaded or not."""


@dataclass(frozen=True)
class Found:
    loaded: dict[str, torch.Tensor]
    reference: dict[int, Any]
    weights: dict[str, torch.Tensor]
    """After an update."""
    resumed: dict[str, torch.Tensor]
    """After a checkpoint, another update, the checkpoint loaded in a new rank, and the update again."""
    again: dict[str, torch.Tensor]


def run_rank(rank: int, ranks: int, port: int, folder: Path) -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    for case in CASES:
        if case[0] == ranks:
            found = run_case(case, rank, port, folder)
            if rank == 0:
                torch.save(found, folder / f"{case}.pt")
    torch.distributed.destroy_process_group()


def run_case(case: tuple[int, str, int, bool], rank: int, port: int, folder: Path) -> Found:
    from agapo.learner.rl.rank import LearnerRank

    ranks, dtype, stage, offload = case
    section = {"zero_stage": stage, "ranks": ranks, "offload": offload, "micro_batch_tokens": 512}
    settings = LearnerSettings(
        str(folder / "policy"),
        OBJECTIVE,
        temperature=TEMPERATURE,
        model=ModelConfig.model_validate({"dtype": dtype}),
        learner=LearnerConfig.model_validate(section),
    )
    learner = LearnerRank(settings, rank=rank, ranks=ranks, address="127.0.0.1", port=port)
    learner.load_reference()
    examples = torch.load(folder / "examples.pt", weights_only=False)
    loaded = values(learner)
    reference = learner.reference_logprobs(examples)
    learner.update(examples, **HOW)
    weights = values(learner)
    learner.save(folder / f"checkpoint-{case}")
    torch.distributed.barrier()
    learner.update(examples, **HOW)
    again = values(learner)
    other = LearnerRank(settings, rank=rank, ranks=ranks, address="127.0.0.1", port=port)
    other.load(folder / f"checkpoint-{case}")
    other.update(examples, **HOW)
    return Found(loaded, reference, weights, values(other), again)


def load_only(rank: int, port: int, folder: Path) -> None:
    """Load a model in shards; rank 0 writes how much memory of their own the ranks took for it at most, together."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    from agapo.learner.rl.rank import LearnerRank

    class Measured(LearnerRank):
        def _load_model(self) -> Any:
            with peak_growth(grown):
                return super()._load_model()

    grown: list[int] = []
    section = LearnerConfig.model_validate({"zero_stage": 3, "ranks": 2, "layout": "right"})
    settings = LearnerSettings(str(folder), OBJECTIVE, learner=section)
    Measured(settings, rank=rank, ranks=2, address="127.0.0.1", port=port)
    total = torch.tensor(grown[0])
    torch.distributed.all_reduce(total)
    if rank == 0:
        (folder / "grown").write_text(str(int(total)))
    torch.distributed.destroy_process_group()


def values(learner: Any) -> dict[str, torch.Tensor]:
    weights = learner.weights()
    return {name: value.float().clone() for name, value in weights.named()} if weights else {}


@contextmanager
def peak_growth(into: list[int]) -> Iterator[None]:
    """Note how much memory of its own the process took at most inside, files that it maps left out."""
    start, most, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, anonymous() - start)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        into.append(max(most, anonymous() - start))


def anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


# ---- the tests


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of four million parameters, and examples for it."""
    folder = tmp_path_factory.mktemp("sharded")
    tokenizer = build_tokenizer()
    model = create_model(tokenizer, seed=0, hidden_size=256, intermediate_size=1024, heads=8, kv_heads=4)
    torch.save(make_examples(model), folder / "examples.pt")
    export_hf(model, tokenizer, folder / "policy")
    return folder


@pytest.fixture(scope="module")
def found(policy: Path) -> dict[Any, Found]:
    for ranks in (1, 2):
        multiprocessing.spawn(run_rank, args=(ranks, free_port(), policy), nprocs=ranks)
    return {case: torch.load(policy / f"{case}.pt", weights_only=False) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_loaded_is_what_lies_in_the_file(case: Any, found: dict[Any, Found], policy: Path):
    model = load_model(policy / "policy", dtype=case[1])
    expected = {name: value.detach().float() for name, value in trained_parameters(model).items()}
    assert found[case].loaded.keys() == expected.keys()
    assert all(torch.equal(found[case].loaded[name], value) for name, value in expected.items())


@pytest.mark.parametrize("case", [case for case in CASES if case[1] == "float32" and case != WHOLE], ids=str)
def test_reference_and_update_are_those_of_one_rank_with_a_whole_model(case: Any, found: dict[Any, Found]):
    for index, logprobs in found[case].reference.items():
        assert torch.allclose(torch.tensor(logprobs), torch.tensor(found[WHOLE].reference[index]), atol=1e-5)
    moved = found[WHOLE].weights
    start = found[WHOLE].loaded
    assert any(not torch.equal(moved[name], start[name]) for name in moved)
    off = sum(float((found[case].weights[name] - moved[name]).norm() ** 2) for name in moved) ** 0.5
    step = sum(float((start[name] - moved[name]).norm() ** 2) for name in moved) ** 0.5
    # AdamW's first step is the sign of a gradient, which is rounding where the gradient is all but zero.
    assert off < 0.02 * step


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_checkpoint_goes_on_to_the_bit(case: Any, found: dict[Any, Found]):
    assert all(torch.equal(found[case].again[name], value) for name, value in found[case].resumed.items())


def test_ranks_together_take_the_models_size_once_while_they_load_it(tmp_path: Path):
    tokenizer = build_tokenizer()
    model = create_model(
        tokenizer, seed=0, hidden_size=768, intermediate_size=3072, layers=12, heads=8, kv_heads=4, head_dim=96
    )
    export_hf(model, tokenizer, tmp_path)
    multiprocessing.spawn(load_only, args=(free_port(), tmp_path), nprocs=2)
    times = int((tmp_path / "grown").read_text()) / (4 * sum(value.numel() for value in model.parameters()))
    # Each reading all of it for itself takes 2.6 times as much.
    assert times < 1.3, times
