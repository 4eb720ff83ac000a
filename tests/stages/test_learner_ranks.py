"""The RL learner's ranks in bfloat16 and float32, under every ZeRO stage: sums of many micro-batches, resuming to the
bit, which files a checkpoint is made of, and later updates of a batch.

As in `test_invariance.py`, whose examples and formula are taken, all cases of a world size share its processes.
"""

import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from agapo.learner.checkpoint import deepspeed_files
from agapo.learner.rl.batching import Example
from agapo.learner.rl.settings import TAG, LearnerSettings
from agapo.learner.universal import universal_form
from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import load_weights
from agapo.recipe.learner import LearnerConfig
from agapo.recipe.model import ModelConfig
from tests.builders import example, tiny_exaone, token_logprobs
from tests.stages.test_invariance import (
    CAP,
    NOMINAL,
    OBJECTIVE,
    TEMPERATURE,
    deviation,
    free_port,
    full_gradient,
    make_examples,
)

Case = tuple[int, str, int]
"""Ranks, type of the weights, ZeRO stage."""
CASES: list[Case] = [
    *[(1, "bfloat16", stage) for stage in (0, 2)],
    *[(2, "bfloat16", stage) for stage in (0, 1, 2, 3)],
    *[(ranks, "float32", stage) for ranks, stage in ((1, 0), (2, 0), (2, 1))],
]
READ_BY_ONE: list[Case] = [(2, "bfloat16", 1), (2, "bfloat16", 3), (2, "float32", 0)]
"""Whose checkpoints one rank goes on from."""
COPIES = 100
RATE = 1e-2


@dataclass(frozen=True)
class Found:
    """What one case computed."""

    once: dict[str, torch.Tensor]
    """The gradient of one copy of an example a rank."""
    summed: dict[str, torch.Tensor]
    """That of COPIES micro-batches of it a rank."""
    weights: dict[str, torch.Tensor]
    """After an update on half of a batch."""
    later: dict[str, torch.Tensor]
    """The gradient of the other half, with those weights."""
    sums: dict[str, float]
    files: list[str]
    undisturbed: list[Any]
    """Loss and norm of the updates after the checkpoint, then the weights."""
    resumed: list[Any]


# ---- in processes of their own


def run_rank(rank: int, ranks: int, port: int, folder: Path) -> None:
    """Compute the cases of `ranks` ranks; rank 0 writes what it found to `folder`."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    examples = torch.load(folder / "examples.pt", weights_only=False)
    found = {
        case: run_case(folder, examples, lambda case=case: start(case, rank, port, folder), case)
        for case in CASES
        if case[0] == ranks
    }
    if ranks == 1:
        found |= {("from two", case): one_from_two(case, port, folder) for case in READ_BY_ONE}
    if rank == 0:
        torch.save(found, folder / f"ranks-{ranks}.pt")
    torch.distributed.destroy_process_group()


def start(case: Case, rank: int, port: int, folder: Path) -> Any:
    from agapo.learner.rl.rank import LearnerRank

    ranks, dtype, stage = case
    settings = LearnerSettings(
        str(folder / "policy"),
        replace(OBJECTIVE, kl_coefficient=0.0),
        temperature=TEMPERATURE,
        model=ModelConfig.model_validate({"dtype": dtype}),
        learner=LearnerConfig.model_validate({"zero_stage": stage, "ranks": ranks, "learning_rate": RATE}),
    )
    return LearnerRank(settings, rank=rank, ranks=ranks, address="127.0.0.1", port=port)


def one_from_two(case: Case, port: int, folder: Path) -> list[Any]:
    """What one rank does after the checkpoint of two."""
    _, dtype, stage = case
    place = folder / "{}-{}-{}".format(*case)
    with universal_form(place / TAG) if stage else nullcontext(TAG) as tag:
        learner = start((1, dtype, stage), 0, port, folder)
        learner.load(place, tag)
    return updates(learner)


def run_case(folder: Path, examples: list[Example], make: Any, case: Case) -> Found:
    ranks, dtype, stage = case
    copies = COPIES if dtype == "bfloat16" else 1
    learner = make()
    once, summed = (gradient(learner, [LIKE_SIGNED] * (count * ranks), LIKE_SIGNED.length) for count in (1, copies))
    half = [item.group % 2 == 0 for item in examples]
    learner.update([item for item, first in zip(examples, half, strict=True) if first], **HOW)
    weights = whole_weights(learner)
    other = [item for item, first in zip(examples, half, strict=True) if not first]
    later = gradient(learner, other, 200)
    sums = learner.accumulate(other, denominator=NOMINAL)
    learner.step(RATE)
    place = folder / f"{ranks}-{dtype}-{stage}"
    learner.save(place)
    torch.distributed.barrier()
    undisturbed = updates(learner)
    again = updates(resumed(make(), place))
    files = sorted(path.name for path in (place / "state").iterdir())
    return Found(once, summed, weights, later, sums, files, undisturbed, again)


LIKE_SIGNED = example([5, 9, 7, 11], [13, 21, 34, 55, 89, 2])
HOW = {"denominator": NOMINAL, "learning_rate": RATE}


def gradient(learner: Any, examples: list[Example], budget: int) -> dict[str, torch.Tensor]:
    """The gradient of the examples in micro-batches of `budget` tokens; no weight changes."""
    section = learner.settings.learner.model_copy(update={"micro_batch_tokens": budget})
    learner.settings = replace(learner.settings, learner=section)
    learner.accumulate(examples, denominator=NOMINAL)
    found = {name: full_gradient(learner, value) for name, value in learner.policy.named_parameters()}
    learner.step(0.0)
    return found


def whole_weights(learner: Any) -> dict[str, torch.Tensor]:
    weights, model = learner.weights(), tiny_exaone(seed=1)
    if weights is None:
        return {}
    load_weights(model, weights)
    return {name: value.detach() for name, value in model.named_parameters()}


def resumed(learner: Any, place: Path) -> Any:
    learner.load(place)
    return learner


def updates(learner: Any) -> list[Any]:
    """Two updates, and the weights after them."""
    made = [learner.update([LIKE_SIGNED] * 4, **HOW) for _ in range(2)]
    return [(sums["loss"], sums["grad_norm"]) for sums in made] + [whole_weights(learner)]


# ---- what is expected of them


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return make_examples(tiny_exaone(seed=0).double().eval())


@pytest.fixture(scope="module")
def found(examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """What each case computed, and one rank that went on from checkpoints of two."""
    folder = tmp_path_factory.mktemp("ranks")
    export_hf(tiny_exaone(seed=0), build_tokenizer(), folder / "policy")
    torch.save(examples, folder / "examples.pt")
    for ranks in (2, 1):
        multiprocessing.spawn(run_rank, (ranks, free_port(), folder), nprocs=ranks)
    paths = [folder / f"ranks-{ranks}.pt" for ranks in (1, 2)]
    return {key: value for path in paths for key, value in torch.load(path, weights_only=False).items()}


def exact_gradients(policy: torch.nn.Module, examples: list[Example]) -> dict[str, torch.Tensor]:
    """Of Σ_i Σ_t −A_i · min(π_θ/π_sampler, cap) · log π_θ(o_t) over the nominal batch, in float64."""
    loss = torch.zeros((), dtype=torch.float64)
    for item in examples:
        current = token_logprobs(policy, item.prompt_ids, item.token_ids, TEMPERATURE)
        weight = (current.detach() - torch.tensor(item.sampler_logprobs)).exp().clamp(max=CAP)
        loss = loss - (item.advantage * weight * current * torch.tensor(item.trained)).sum() / NOMINAL
    names, parameters = zip(*policy.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def named(case: Case) -> str:
    return "ranks{}-{}-zero{}".format(*case)


@pytest.mark.parametrize("case", [case for case in CASES if case[1] == "bfloat16"], ids=named)
def test_many_like_signed_gradients_are_summed_without_loss(found: dict[Any, Any], case: Case) -> None:
    own = found[case]
    expected = {name: COPIES * value.double() for name, value in own.once.items()}
    assert all(value.norm() > 0 for value in expected.values())
    assert deviation(own.summed, expected) < 0.01


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_resumed_learner_goes_on_to_the_bit(found: dict[Any, Any], case: Case) -> None:
    *undisturbed, weights = found[case].undisturbed
    *resumed, again = found[case].resumed
    assert resumed == undisturbed
    assert undisturbed[0] != undisturbed[1]
    assert all(torch.equal(again[name], value) for name, value in weights.items())


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_checkpoint_is_made_of_the_files_that_are_asked_for(found: dict[Any, Any], case: Case) -> None:
    ranks, dtype, stage = case
    run = max(stage, 1) if dtype == "bfloat16" else stage
    assert found[case].files == sorted(deepspeed_files(run, ranks, bfloat16=dtype == "bfloat16"))


@pytest.mark.parametrize("case", READ_BY_ONE, ids=named)
def test_one_rank_goes_on_from_a_checkpoint_of_two(found: dict[Any, Any], case: Case) -> None:
    """The examples are the same, and so are the sums over ranks, but for rounding."""
    *both, weights = found[case].undisturbed
    *alone, again = found["from two", case]
    tolerance = 1e-4 if case[1] == "float32" else 2e-2
    assert [norm for _, norm in alone] == pytest.approx([norm for _, norm in both], rel=tolerance)
    assert all(torch.allclose(again[name], value, atol=tolerance) for name, value in weights.items())


@pytest.mark.parametrize("case", [case for case in CASES if case[1] == "float32"], ids=named)
def test_a_later_update_of_a_batch_is_weighted_by_how_far_the_policy_has_moved(
    found: dict[Any, Any], examples: list[Example], case: Case
) -> None:
    own = found[case]
    policy = tiny_exaone(seed=0).double().eval()
    start = {name: value.clone() for name, value in policy.named_parameters()}
    moved = {name: value.double() for name, value in own.weights.items()}
    assert max(float((moved[name] - value).detach().abs().max()) for name, value in start.items()) > RATE / 2
    policy.load_state_dict(moved)
    other = [item for item in examples if item.group % 2]
    assert deviation(own.later, exact_gradients(policy, other)) < 1e-4
    assert own.sums["ratio_max"] > 1.5
