"""Wrong on purpose: a run whose engine is not the policy that learns stops, and says what is likely wrong."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agapo.model.tokenizer import build_tokenizer
from agapo.stages.rl import collector, loop
from tests.stages.conftest import agapo_here, hold_back_first_tensor
from tests.stages.test_rl import steps_of

pytestmark = pytest.mark.usefixtures("shared_ray")


def test_honest_run_reports_the_difference(recipe_file: Path, tmp_path: Path) -> None:
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "steps=2", "run.name=honest")
    assert done.returncode == 0, done.stderr
    for row in steps_of(tmp_path / "rl" / "honest").values():
        assert 0 <= row["mismatch/mean"] < 1e-5
        assert row["mismatch/mean"] <= row["mismatch/max"] < 1e-4
        assert abs(row["mismatch/kl"]) < 1e-6
        assert row["mismatch/ess"] == pytest.approx(1, abs=1e-5)


def test_another_temperature_stops_at_the_first_step(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = collector.sampling_params
    monkeypatch.setattr(collector, "sampling_params", lambda *given: replace(real(*given), temperature=0.9))
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=warm")
    assert done.returncode != 0
    assert "never agreed: likely another temperature" in done.stderr.replace("\n", " ")
    run = tmp_path / "rl" / "warm"
    assert list(steps_of(run)) == [1], "the step is there to be looked at"
    assert not (run / "checkpoints" / "latest").exists(), "and its weights are not"


def test_another_template_stops_at_the_first_step(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner sees the prompts with another generation prompt than the one that was sampled behind."""
    real, closed = loop.examples_of, build_tokenizer().encode("</think>", add_special_tokens=False)
    monkeypatch.setattr(
        loop,
        "examples_of",
        lambda *given: [replace(item, prompt_ids=np.append(item.prompt_ids, closed)) for item in real(*given)],
    )
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=template")
    assert done.returncode != 0
    message = done.stderr.replace("\n", " ")
    assert "never agreed: likely another temperature" in message
    assert "chat template" in message


@pytest.mark.slow
def test_a_tensor_that_is_never_updated_stops_later_and_another_bound_lets_it_go_on(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_back_first_tensor(monkeypatch)
    arguments = ("rl", recipe_file, f"run.output={tmp_path}", "run.name=partial", "learner.learning_rate=0.01")
    done = agapo_here(*arguments)
    assert done.returncode != 0
    assert "so weights are the likely cause: stale" in done.stderr.replace("\n", " ")
    run = tmp_path / "rl" / "partial"
    stopped = max(steps_of(run))
    assert 1 < stopped < 6
    bound = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["mismatch/mean"]
    assert bound > 2e-3
    done = agapo_here(*arguments, "rollout.mismatch.stop_above=50")
    assert done.returncode == 0, done.stderr
