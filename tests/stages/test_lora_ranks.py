"""The RL learner's ranks with LoRA, under every ZeRO stage: gradients against the formula, the reference with adapters
off, what travels, and going on from a checkpoint without the frozen weights.

As in `test_invariance.py`, whose examples and formula are taken, all cases of a world size share its processes.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, multiprocessing

from agapo.learner.rl import rank as rank_module
from agapo.learner.rl.batching import Example, with_reference
from agapo.learner.rl.settings import TAG, LearnerSettings
from agapo.model.adapters import add_adapters
from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import trained_parameters
from agapo.recipe.learner import LearnerConfig
from agapo.recipe.lora import LoRAConfig
from agapo.recipe.model import ModelConfig
from tests.builders import tiny_exaone
from tests.stages.test_invariance import (
    NOMINAL,
    OBJECTIVE,
    TEMPERATURE,
    baseline,
    deviation,
    exact_reference,
    free_port,
    full_gradient,
    gather,
    make_examples,
    response_loss,
    sampler_tail,
)

Case = tuple[int, str, int, bool]
"""Ranks, type of the weights, ZeRO stage, gradient checkpointing."""
FAST: list[Case] = [(2, "float32", 0, True), (2, "float32", 2, False)]
SLOW: list[Case] = [
    (1, "float32", 0, False),
    (2, "float32", 3, True),
    (2, "bfloat16", 0, False),
    (2, "bfloat16", 3, False),
]
LORA = LoRAConfig(rank=4, alpha=16)
RATE = 1e-2


@dataclass(frozen=True)
class Found:
    """What one case computed."""

    adapters: dict[str, Tensor]
    """After an update."""
    gradients: dict[str, Tensor]
    """With those."""
    reference: list[np.ndarray]
    """log π_ref [T] of each example, after the update."""
    undisturbed: list[Any]
    """Loss and norm of two updates after the checkpoint, then the adapters."""
    resumed: list[Any]
    in_checkpoint: set[str]


Of = Callable[[Case], Found]


# ---- in processes of their own


def run_rank(rank: int, cases: list[Case], port: int, folder: Path) -> None:
    """Compute cases of as many ranks; rank 0 writes what it found to `folder`."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    keep_nothing_whole()
    examples = torch.load(folder / "examples.pt", weights_only=False)
    found = {case: run_case(case, rank, port, folder, examples) for case in cases}
    if rank == 0:
        torch.save(found, folder / "found.pt")
    torch.distributed.destroy_process_group()


def keep_nothing_whole() -> None:
    """Let ZeRO-3 shard parameters as small as these too."""
    real = rank_module.deepspeed_config

    def sharding_all(**options: Any) -> dict[str, Any]:
        config = real(**options)
        if config["zero_optimization"]["stage"] == 3:
            config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return config

    rank_module.deepspeed_config = sharding_all


def start(case: Case, rank: int, port: int, folder: Path) -> Any:
    ranks, dtype, stage, recomputed = case
    section = {"zero_stage": stage, "ranks": ranks, "learning_rate": RATE, "micro_batch_tokens": 150}
    settings = LearnerSettings(
        str(folder / "policy"),
        OBJECTIVE,
        temperature=TEMPERATURE,
        model=ModelConfig.model_validate({"dtype": dtype, "gradient_checkpointing": recomputed}),
        learner=LearnerConfig.model_validate({**section, "lora": LORA}),
        seed=3,
    )
    learner = rank_module.LearnerRank(settings, rank=rank, ranks=ranks, address="127.0.0.1", port=port)
    learner.load_reference()
    return learner


def run_case(case: Case, rank: int, port: int, folder: Path, examples: list[Example]) -> Found:
    learner = start(case, rank, port, folder)
    update(learner, examples)
    adapters = adapters_of(learner)
    reference = gather(learner.reference_logprobs(examples), learner.ranks)
    learner.accumulate(with_reference(examples, reference, "reward_to_go"), denominator=NOMINAL)
    gradients = {name: full_gradient(learner, value) for name, value in trained_parameters(learner.policy).items()}
    learner.step(0.0)
    place = folder / "-".join(map(str, case))
    learner.save(place)
    torch.distributed.barrier()
    undisturbed = updates(learner, examples)
    again = start(case, rank, port, folder)
    again.load(place)
    saved = torch.load(next((place / TAG).glob("*model_states.pt")), weights_only=False)
    return Found(adapters, gradients, reference, undisturbed, updates(again, examples), set(saved["module"]))


def update(learner: Any, examples: list[Example]) -> tuple[float, float]:
    reference = gather(learner.reference_logprobs(examples), learner.ranks)
    known = with_reference(examples, reference, "reward_to_go")
    sums = learner.update(known, denominator=NOMINAL, learning_rate=RATE)
    return sums["loss"], sums["grad_norm"]


def updates(learner: Any, examples: list[Example]) -> list[Any]:
    return [update(learner, examples), update(learner, examples), adapters_of(learner)]


def adapters_of(learner: Any) -> dict[str, Tensor]:
    weights = learner.weights()
    return {name: values.clone() for name, values in weights.named()} if weights else {}


# ---- what is expected of them


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_exaone(seed=0).double().eval()


@pytest.fixture(scope="module")
def examples(base: Any) -> list[Example]:
    return make_examples(base)[:12]


@pytest.fixture(scope="module")
def found(examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> Of:
    """What a case computed; the first that is asked for computes those that share its processes too."""
    folder = tmp_path_factory.mktemp("ranks")
    export_hf(tiny_exaone(seed=0), build_tokenizer(), folder / "policy")
    torch.save(examples, folder / "examples.pt")
    known: dict[Case, Found] = {}

    def of(case: Case) -> Found:
        if case not in known:
            group = [other for other in (FAST if case in FAST else SLOW) if other[0] == case[0]]
            multiprocessing.spawn(run_rank, (group, free_port(), folder), nprocs=case[0])
            known.update(torch.load(folder / "found.pt", weights_only=False))
        return known[case]

    return of


def policy_with(adapters: dict[str, Tensor]) -> Any:
    policy = tiny_exaone(seed=0)
    add_adapters(policy, LORA)
    assert trained_parameters(policy).keys() == adapters.keys()
    policy.load_state_dict(adapters, strict=False)
    return policy.double().eval()


def exact_gradients(policy: Any, reference: Any, examples: list[Example]) -> dict[str, Tensor]:
    """The objective's of the adapters, in float64."""
    tails = [sampler_tail(reference, item) for item in examples]
    losses = [
        response_loss(policy, reference, item, baseline(examples, tails, index)) for index, item in enumerate(examples)
    ]
    names, parameters = zip(*trained_parameters(policy).items(), strict=True)
    return dict(zip(names, torch.autograd.grad(sum(losses), parameters), strict=True))


def named(case: Case) -> str:
    ranks, dtype, stage, recomputed = case
    return f"ranks{ranks}-{dtype}-zero{stage}{'-checkpointing' if recomputed else ''}"


CASES = [*FAST, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)]
IN_FULL = [*FAST, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW if case[1] == "float32")]


@pytest.mark.parametrize("case", IN_FULL, ids=named)
def test_gradients_are_those_of_the_formula(found: Of, base: Any, examples: list[Example], case: Case) -> None:
    own = found(case)
    assert min(float(value.abs().max()) for value in own.adapters.values()) > RATE / 2, "the update moved them all"
    assert deviation(own.gradients, exact_gradients(policy_with(own.adapters), base, examples)) < 1e-4


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_reference_is_the_model_without_adapters(found: Of, base: Any, examples: list[Example], case: Case) -> None:
    own, slack = found(case), 5e-6 if case[1] == "float32" else 0.1
    policy = policy_with(own.adapters)
    gaps, moved = [], []
    for item, values in zip(examples, own.reference, strict=True):
        gaps.append(np.abs(values - exact_reference(base, item).numpy()).max())
        moved.append(np.abs(values - exact_reference(policy, item).numpy()).max())
    assert max(gaps) < slack
    assert max(moved) > 0.5, "the policy itself is elsewhere"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_resumed_learner_goes_on_to_the_bit(found: Of, case: Case) -> None:
    *undisturbed, adapters = found(case).undisturbed
    *resumed, again = found(case).resumed
    assert resumed == undisturbed
    assert undisturbed[0] != undisturbed[1]
    assert adapters
    assert all(torch.equal(again[name], value) for name, value in adapters.items())


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_checkpoint_has_no_frozen_weights(found: Of, case: Case) -> None:
    own = found(case)
    assert {name.removeprefix("model.") for name in own.in_checkpoint} == set(own.adapters)


@pytest.mark.parametrize("case", IN_FULL[1:], ids=named)
def test_all_ranks_and_stages_make_the_same_update(found: Of, case: Case) -> None:
    for name, value in found(FAST[0]).adapters.items():
        torch.testing.assert_close(found(case).adapters[name], value, rtol=0, atol=RATE / 5)
