"""SFT and preference learning give the same losses and weights on one rank and on two, whatever the ZeRO stage."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from agapo.learner.trl.fine_tuning import FineTuning
from agapo.learner.trl.preference import make_preference_trainer, save_pairs
from agapo.recipe.trainer import PreferenceTrainingConfig
from tests.stages.rank_jobs import STEPS, TRAINING, Job, changed, common, run_jobs, sft_job

pytestmark = pytest.mark.slow

Layout = tuple[int, int, int]
"""Ranks, ZeRO stage, and rows (or pairs) a micro-batch, of 4 a step."""
ALONE: Layout = (1, 0, 4)
LAYOUTS: list[Layout] = [(1, 0, 1), (2, 0, 2), (2, 1, 2), (2, 2, 1), (2, 3, 2)]


def preference_job(model: Path, folder: Path, loss: str) -> Job:
    draw = random.Random(0)
    pairs = [
        {
            name: [draw.randrange(5, 100) for _ in range(draw.randint(1, 24))]
            for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        }
        for _ in range(30)
    ]
    save_pairs(folder, pairs, [draw.randrange(30) for _ in range(4 * STEPS)])
    training = PreferenceTrainingConfig.model_validate({"loss": loss, "beta": 0.3, "pairs_per_step": 4, **TRAINING})
    return make_preference_trainer, FineTuning(data=folder, training=training, **common(model))


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, Layout], tuple[Any, Path]]:
    """(what each step logged, folder of the weights) by kind of training and layout."""
    folder = tmp_path_factory.mktemp("parity")
    kinds: dict[str, Callable[[Path], Job]] = {
        "sft": lambda data: sft_job(tiny_model, data),
        "simper": lambda data: preference_job(tiny_model, data, "simper"),
        "dpo": lambda data: preference_job(tiny_model, data, "dpo"),
    }
    jobs: dict[tuple[str, Layout], Job] = {}
    for kind, make in kinds.items():
        maker, settings = make(folder / kind / "data")
        for layout in (ALONE, *LAYOUTS):
            ranks, zero_stage, micro_rows = layout
            place = folder / kind / "-".join(map(str, layout))
            unit = "rows" if kind == "sft" else "pairs"
            own = changed(settings, ranks=ranks, zero_stage=zero_stage, **{f"micro_batch_{unit}": micro_rows})
            own = replace(own, checkpoints=place, weights=place / "hf")
            jobs[kind, layout] = (maker, own)
    found = {}
    for ranks in (1, 2):
        names = [name for name in jobs if name[1][0] == ranks]
        logs = run_jobs([jobs[name] for name in names], ranks)
        found |= {name: (log, jobs[name][1].weights) for name, log in zip(names, logs, strict=True)}
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "ranks{}-zero{}-micro{}".format(*layout))
@pytest.mark.parametrize("kind", ["sft", "simper", "dpo"])
def test_ranks_stages_and_micro_batches_give_the_same_losses(runs: Any, kind: str, layout: Layout) -> None:
    (alone, weights), (log, ours) = runs[kind, ALONE], runs[kind, layout]
    assert len(log) == len(alone) == STEPS
    for name in ("loss", "learning_rate", *(("margin", "chosen_drift") if kind != "sft" else ())):
        assert [step[name] for step in log] == pytest.approx([step[name] for step in alone], rel=1e-4, abs=2e-6)
    expected = AutoModelForCausalLM.from_pretrained(weights).state_dict()
    for name, value in AutoModelForCausalLM.from_pretrained(ours).state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=2e-3)


@pytest.mark.parametrize(("kind", "most"), [("sft", 0.7), ("dpo", 0.7)])
def test_the_loss_falls(runs: Any, kind: str, most: float) -> None:
    log, _ = runs[kind, ALONE]
    assert log[-1]["loss"] < most * log[0]["loss"]


def test_simper_learns_to_prefer(runs: Any) -> None:
    log, _ = runs["simper", ALONE]
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["margin"] > log[0]["margin"]


def test_deepspeed_really_ran(runs: Any) -> None:
    for kind in ("sft", "simper", "dpo"):
        for layout in LAYOUTS:
            _, weights = runs[kind, layout]
            saved = weights.parent / ".unfinished" / f"checkpoint-{STEPS}" / f"global_step{STEPS}"
            assert saved.is_dir() == (layout[1] > 0)
