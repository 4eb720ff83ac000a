"""Whole runs whose checkpoints are written in the background go on from them as from others."""

from pathlib import Path

import pytest
import torch
import yaml

from agapo.stages.rl.loop import RLLoop
from tests.stages.conftest import agapo_here, interrupt_after
from tests.stages.test_rl import steps_of, weights_of
from tests.stages.test_sft import RECIPE as SFT
from tests.stages.test_sft import losses_of

pytestmark = [pytest.mark.usefixtures("shared_ray"), pytest.mark.slow]
BACKGROUND = ("checkpoint.background=true", "checkpoint.every=1")


def test_rl(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []
    real = RLLoop.complete_save

    def complete(loop: RLLoop, *, wait: bool) -> None:
        under_way = loop.unfinished is not None
        real(loop, wait=wait)
        seen.append((wait, under_way and loop.unfinished is not None))

    monkeypatch.setattr(RLLoop, "complete_save", complete)
    two = ("learner.ranks=2", "learner.zero_stage=2", "model.dtype=bfloat16", "evaluation.every=0")

    def run(name: str, steps: int, *more: str) -> Path:
        done = agapo_here(
            "rl", recipe_file, f"run.output={tmp_path}", f"run.name={name}", f"steps={steps}", *two, *more
        )
        assert done.returncode == 0, done.stderr
        return tmp_path / "rl" / name

    whole = run("whole", 4)
    run("cut", 2, *BACKGROUND)
    cut = run("cut", 4, *BACKGROUND)
    assert (cut / "checkpoints" / "latest").read_text() == "step-000004"
    assert not list((cut / "checkpoints").glob(".*"))
    assert steps_of(cut) == steps_of(whole)
    assert all(torch.equal(weights_of(cut)[name], weight) for name, weight in weights_of(whole).items())
    # At the end it is waited for; before, not.
    assert (True, False) in seen and not any(wait and left for wait, left in seen)


def test_sft(tmp_path: Path) -> None:
    recipe = SFT | {"steps": 8, "training": SFT["training"] | {"ranks": 2, "zero_stage": 2}}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(recipe))
    done = agapo_here("sft", file, f"run.output={tmp_path}", "run.name=whole")
    assert done.returncode == 0, done.stderr + done.stdout
    own, cut = (f"run.output={tmp_path}", "run.name=cut", *BACKGROUND), tmp_path / "sft" / "cut"
    stopped = interrupt_after(3, cut / "metrics.jsonl", "sft", file, *own)
    assert stopped.returncode == 130, stopped.stdout
    assert not list((cut / "checkpoints").glob(".step-*"))
    done = agapo_here("sft", file, *own)
    assert done.returncode == 0 and "going on" in done.stdout, done.stderr + done.stdout
    assert losses_of(cut) == losses_of(tmp_path / "sft" / "whole")
    assert (cut / "checkpoints" / "latest").read_text() == "step-000008"
