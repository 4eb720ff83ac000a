"""The gradient of a batch is the same for every micro-batch budget, layout, number of ranks and ZeRO stage.

Gradients are compared, not weights: Adam divides by their size and so amplifies differences of tiny ones. The
yardstick is the paper's formula in float64, one response at a time, in this process; the learner runs as it does in
training, in processes of its own that talk over loopback. All settings of a world size share its processes.
"""

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import multiprocessing

from agapo.algorithm.objective import Objective
from agapo.learner.rl.batching import Example, Layout, plan_ranks, with_reference
from agapo.learner.rl.settings import LearnerSettings
from agapo.learner.rl.shared_rows import plan_shared
from agapo.model.loading import export_hf, load_model
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.learner import LearnerConfig
from tests.builders import example, tiny_exaone, token_logprobs

BETA, CAP, NOMINAL, TEMPERATURE = 0.3, 1.05, 32, 0.8
OBJECTIVE = Objective(kl_coefficient=BETA, kl_estimator="reward_to_go", importance="token", importance_cap=CAP)
STAGES = {1: (0, 3), 2: (0, 1, 2, 3)}
"""By the number of ranks: the ZeRO stages."""
ROWS = (
    ("shared", 10**6, "sdpa"),
    ("shared", 70, "sdpa"),
    ("packed", 10**6, "sdpa"),
    ("packed", 70, "sdpa"),
    ("packed", 150, "flash_attention_2"),
    ("left", 90, "sdpa"),
    ("right", 300, "sdpa"),
    ("left", 10**6, "sdpa"),
)
"""Layout (`shared`: packed, with `shared_prompts`), budget in tokens, and the attention whose rows are planned.

The model's own is the one that shares prompts, which is SDPA in all other rows.
"""
UNEVEN: dict[Layout, int] = {"packed": 70, "left": 90}
"""Budgets that give ranks different numbers of micro-batches."""
SETTINGS = [(ranks, stage, *row) for ranks in STAGES for stage in STAGES[ranks] for row in ROWS]


@dataclass(frozen=True)
class Found:
    """What one setting computed: the gradient by parameter, its norm as the learner saw it, and more."""

    gradients: dict[str, torch.Tensor]
    norm: float
    sums: dict[str, float]
    reference: list[np.ndarray]


def make_examples(policy: torch.nn.Module) -> list[Example]:
    """Six groups of four, of very different lengths; a tool's result in some, and some without a verdict."""
    random = np.random.default_rng(0)
    examples = []
    for index in range(24):
        if index % 4 == 0:
            prompt = random.integers(3, 200, random.integers(3, 12)).tolist()
        tokens = random.integers(3, 200, random.integers(3, 30)).tolist()
        trained = random.random(len(tokens)) > (0.3 if index % 5 == 0 else 0)
        with torch.no_grad():
            sampler = token_logprobs(policy, prompt, tokens, TEMPERATURE).numpy()
        changes = {
            "sampler_logprobs": tuple((sampler + 0.1 * random.normal(size=len(tokens))).tolist()),
            "trained": tuple(map(bool, trained)),
            "advantage": float(random.normal()),
            "kl_weight": 0.0 if index == 7 else 0.75,
            "group": index // 4,
        }
        examples.append(example(prompt, tokens, **changes))
    return examples


# ---- the yardstick: one response at a time, in float64, with the formula written out


def exact_gradients(policy, reference, examples) -> dict[str, torch.Tensor]:
    loss = torch.zeros((), dtype=torch.float64)
    tails = [sampler_tail(reference, item) for item in examples]
    for index, item in enumerate(examples):
        loss = loss + response_loss(policy, reference, item, baseline(examples, tails, index))
    names, parameters = zip(*policy.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def response_loss(policy, reference, item, baselines):
    """Σ_t w_t · (−A + β κ (Σ_{s≥t} log π/π_ref − b_t)) · log π(o_t) over the trained tokens, over the nominal batch."""
    current = token_logprobs(policy, item.prompt_ids, item.token_ids, TEMPERATURE)
    mask = torch.tensor(item.trained)
    ratio = (current.detach() - exact_reference(reference, item)) * mask
    weight = (current.detach() - torch.tensor(item.sampler_logprobs)).exp().clamp(max=CAP)
    to_go = torch.stack([ratio[t:].sum() for t in range(len(ratio))])
    penalty = BETA * item.kl_weight * (to_go - baselines)
    return ((penalty - item.advantage) * weight * current * mask).sum() / NOMINAL


def exact_reference(reference, item):
    with torch.no_grad():
        return token_logprobs(reference, item.prompt_ids, item.token_ids, TEMPERATURE)


def sampler_tail(reference, item):
    ratio = (torch.tensor(item.sampler_logprobs) - exact_reference(reference, item)) * torch.tensor(item.trained)
    return [float(ratio[t:].sum()) for t in range(len(ratio))]


def baseline(examples, tails, index):
    """At each t, the mean reward to go of the group's other responses that have a verdict; 0 once one has ended."""
    item = examples[index]
    others = [
        tails[place]
        for place, other in enumerate(examples)
        if other.group == item.group and place != index and other.kl_weight > 0
    ]
    values = [[tail[t] if t < len(tail) else 0.0 for tail in others] for t in range(len(item.token_ids))]
    return torch.tensor(values, dtype=torch.float64).mean(dim=1)


# ---- the learner, in processes of its own


def run_rank(rank: int, ranks: int, port: int, folder: Path) -> None:
    """Compute every setting of `ranks` ranks; rank 0 writes what it found to `folder`."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    examples = torch.load(folder / "examples.pt", weights_only=False)
    found = {}
    for stage in STAGES[ranks]:
        learner = start(rank, ranks, stage, port, folder)
        for row in ROWS:
            layout, budget, attention = row
            own = learner.settings
            rows = {"layout": "packed" if layout == "shared" else layout, "shared_prompts": layout == "shared"}
            section = own.learner.model_copy(update={**rows, "micro_batch_tokens": budget})
            model = own.model.model_copy(update={"attention": attention})
            learner.settings = replace(own, learner=section, model=model)
            found[ranks, stage, *row] = accumulate(learner, examples)
    if rank == 0:
        torch.save(found, folder / f"ranks-{ranks}.pt")
    torch.distributed.destroy_process_group()


def start(rank: int, ranks: int, stage: int, port: int, folder: Path):
    from agapo.learner.rl.rank import LearnerRank

    settings = LearnerSettings(
        str(folder / "policy"),
        OBJECTIVE,
        temperature=TEMPERATURE,
        learner=LearnerConfig(zero_stage=stage, shared_prompts=True),
    )
    learner = LearnerRank(settings, rank=rank, ranks=ranks, address="127.0.0.1", port=port)
    # A reference that differs from the policy, or every log-ratio would be 0.
    learner.settings = replace(settings, model_path=str(folder / "reference"))
    learner.load_reference()
    return learner


def accumulate(learner, examples: list[Example]) -> Found:
    reference = gather(learner.reference_logprobs(examples), learner.ranks)
    known = with_reference(examples, reference, "reward_to_go")
    sums = gather_sums(learner.accumulate(known, denominator=NOMINAL), learner.ranks)
    gradients = {name: full_gradient(learner, value) for name, value in learner.policy.named_parameters()}
    # A step of length 0 changes no weight, clears the gradients, and tells their norm.
    return Found(gradients, learner.step(0.0), sums, reference)


def full_gradient(learner, parameter: torch.nn.Parameter) -> torch.Tensor:
    from deepspeed.utils import safe_get_full_grad

    gradient = parameter.grad if learner.settings.zero_stage == 0 else safe_get_full_grad(parameter)
    return gradient.detach().float().clone()


def gather(mine: dict[int, np.ndarray], ranks: int) -> list[np.ndarray]:
    shares = [None] * ranks
    torch.distributed.all_gather_object(shares, mine)
    merged = {index: values for share in shares for index, values in share.items()}
    return [merged[index] for index in range(len(merged))]


def gather_sums(mine: dict[str, float], ranks: int) -> dict[str, float]:
    shares = [None] * ranks
    torch.distributed.all_gather_object(shares, mine)
    return {name: sum(share[name] for share in shares) for name in ("loss", "tokens", "kl", "entropy")}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def models():
    """(policy, reference) in float64."""
    return tiny_exaone(seed=0).double().eval(), tiny_exaone(seed=1).double().eval()


@pytest.fixture(scope="module")
def examples(models):
    return make_examples(models[0])


@pytest.fixture(scope="module")
def found(models, examples, tmp_path_factory) -> dict[tuple, Found]:
    """What each setting computed."""
    folder = tmp_path_factory.mktemp("invariance")
    for name, model in zip(("policy", "reference"), models, strict=True):
        export_hf(tiny_exaone(seed=0 if name == "policy" else 1), build_tokenizer(), folder / name)
        assert torch.equal(load_model(folder / name).lm_head.weight.double(), model.lm_head.weight)
    torch.save(examples, folder / "examples.pt")
    worlds = [
        multiprocessing.spawn(run_rank, (ranks, free_port(), folder), nprocs=ranks, join=False, daemon=True)
        for ranks in STAGES
    ]
    for world in worlds:
        while not world.join():
            pass
    paths = [folder / f"ranks-{ranks}.pt" for ranks in STAGES]
    return {key: value for path in paths for key, value in torch.load(path, weights_only=False).items()}


@pytest.fixture(scope="module")
def exact(models, examples):
    return exact_gradients(*models, examples)


def deviation(gradients, expected) -> float:
    """The largest relative difference over the parameters, each by its norm."""
    return max(float((gradients[name] - value).norm() / value.norm()) for name, value in expected.items())


def test_all_settings_ran(found):
    assert set(found) == set(SETTINGS)


def test_some_ranks_had_fewer_micro_batches_than_others(examples):
    sizes = [item.length for item in examples]
    planned = {layout: plan_ranks(sizes, ranks=2, budget=budget, layout=layout) for layout, budget in UNEVEN.items()}
    planned["shared"] = plan_shared(examples, ranks=2, budget=70)
    for layout, plans in planned.items():
        assert any(plan.dummy for rank in plans for plan in rank), layout


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: "-".join(map(str, setting)))
class TestEverySetting:
    def test_gradient_is_the_formulas(self, setting, found, exact):
        assert deviation(found[setting].gradients, exact) < 1e-5

    def test_gradient_is_the_first_settings(self, setting, found):
        assert deviation(found[setting].gradients, found[SETTINGS[0]].gradients) < 1e-5

    def test_norm_that_clipping_sees(self, setting, found, exact):
        norm = sum(float(value.norm()) ** 2 for value in exact.values()) ** 0.5
        assert found[setting].norm == pytest.approx(norm, rel=1e-5)

    def test_reference_log_probabilities(self, setting, found, models, examples):
        for values, item in zip(found[setting].reference, examples, strict=True):
            expected = exact_reference(models[1], item).numpy()
            assert np.abs(values - expected).max() < 1e-4

    def test_sums_for_the_metrics(self, setting, found, examples):
        assert found[setting].sums["tokens"] == sum(sum(item.trained) for item in examples)
        assert found[setting].sums == pytest.approx(found[SETTINGS[0]].sums, rel=1e-5)
