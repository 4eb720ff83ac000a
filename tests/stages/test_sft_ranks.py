"""Training on Ray actors: across a stop, a killed worker, and what no new start can mend."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from agapo.errors import Interrupted, ProcessDied, UserError
from agapo.learner.trl.callbacks import NAMES
from agapo.learner.trl.fine_tuning import FineTuning, make_trainer
from agapo.learner.trl.ranks import Kind, run_ranks
from agapo.recipe.run import CheckpointConfig
from tests.stages.rank_jobs import STEPS, changed, sft_job

Losses = dict[int, float]


@pytest.fixture(scope="module")
def settings(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> FineTuning:
    """20 steps of 4 packed rows, with warm-up, decay and weight decay, on one rank without DeepSpeed."""
    return changed(sft_job(tiny_model, tmp_path_factory.mktemp("data"))[1], max_restarts=0)


def train(
    settings: FineTuning,
    folder: Path,
    *,
    done: int = 0,
    should_stop: Callable[[Losses], bool] = lambda losses: False,
    rates: Losses | None = None,
) -> Losses:
    """Train in `folder`; return the loss of each step that was reported, and put the learning rates into `rates`."""
    losses: Losses = {}

    def report(step: int, metrics: dict[str, float]) -> None:
        assert step not in losses
        losses[step] = metrics["train/loss"]
        if rates is not None:
            rates[step] = metrics["train/learning_rate"]

    try:
        run_ranks(
            replace(settings, checkpoints=folder / "checkpoints", weights=folder / "hf"),
            Kind(make_trainer, NAMES, "training.row_tokens"),
            done=done,
            report=report,
            should_stop=lambda: should_stop(losses),
        )
    except Interrupted:
        assert max(losses) < STEPS
    return losses


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder / "hf").state_dict()


Run = tuple[Losses, Path]


@pytest.fixture(scope="module")
def whole_run(
    shared_ray: None, settings: FineTuning, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, int, int], Run]:
    """Give (losses, folder) of an undisturbed run by ranks, ZeRO stage and rows a micro-batch; each is made once."""

    @cache
    def make(ranks: int, zero_stage: int, micro_rows: int) -> Run:
        folder = tmp_path_factory.mktemp("whole")
        return train(divided(settings, ranks, zero_stage, micro_rows), folder), folder

    return make


@pytest.fixture(scope="module")
def alone(whole_run: Callable[[int, int, int], Run]) -> Run:
    """One rank, undisturbed, with the whole step as one micro-batch."""
    return whole_run(1, 0, 4)


def divided(settings: FineTuning, ranks: int, zero_stage: int, micro_rows: int) -> FineTuning:
    return changed(settings, ranks=ranks, zero_stage=zero_stage, micro_batch_rows=micro_rows)


def test_learns(alone: Run) -> None:
    losses, _ = alone
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses[STEPS] < 0.7 * losses[1]


@pytest.mark.parametrize(
    ("ranks", "zero_stage", "micro_rows"), [(1, 0, 4), pytest.param(2, 2, 1, marks=pytest.mark.slow)]
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    whole_run: Callable[[int, int, int], Run],
    settings: FineTuning,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ranks: int,
    zero_stage: int,
    micro_rows: int,
) -> None:
    monkeypatch.setattr("agapo.learner.trl.ranks.POLL_S", 0.002)
    undisturbed, whole = whole_run(ranks, zero_stage, micro_rows)
    own = divided(settings, ranks, zero_stage, micro_rows)
    first = train(own, tmp_path, should_stop=lambda losses: len(losses) >= 3)
    stopped = max(first)
    assert 3 <= stopped < STEPS
    state = json.loads((tmp_path / "checkpoints" / f"step-{stopped:06d}" / "state.json").read_text())
    assert state["step"] == stopped
    rest = train(own, tmp_path, done=stopped)
    assert first | rest == undisturbed
    for name, expected in weights(whole).items():
        assert torch.equal(weights(tmp_path)[name], expected), name


@pytest.mark.slow
@pytest.mark.parametrize(("zero_stage", "then", "now"), [(2, 2, 1), (1, 1, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(
    whole_run: Callable[[int, int, int], Run],
    settings: FineTuning,
    tmp_path: Path,
    zero_stage: int,
    then: int,
    now: int,
) -> None:
    """The steps are of the same rows, and their sums the same but for rounding."""
    undisturbed, _ = whole_run(then, zero_stage, 1)
    first = train(
        divided(settings, then, zero_stage, 1), tmp_path, should_stop=lambda losses: len(losses) >= STEPS // 2
    )
    stopped = max(first)
    rest = train(divided(settings, now, zero_stage, 1), tmp_path, done=stopped)
    assert list(rest) == list(range(stopped + 1, STEPS + 1))
    assert list(rest.values()) == pytest.approx([undisturbed[step] for step in rest], rel=1e-3)
    assert not list(tmp_path.rglob("universal")), "gone when it has been read"


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "zero_stage", "micro_rows"), [(1, 0, 4), (2, 2, 1)])
def test_a_run_goes_on_with_another_learning_rate(
    shared_ray: None,
    settings: FineTuning,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ranks: int,
    zero_stage: int,
    micro_rows: int,
) -> None:
    """The checkpoint brings its own, which must not win. A rate of (nearly) 0 leaves the weights where they are."""
    monkeypatch.setattr("agapo.learner.trl.ranks.POLL_S", 0.002)
    own = divided(settings, ranks, zero_stage, micro_rows)
    first = train(own, tmp_path, should_stop=lambda losses: len(losses) >= 3)
    stopped = max(first)
    saved = tmp_path / "checkpoints" / f"step-{stopped:06d}" / "state"
    before = load_file(saved / "model.safetensors") if not zero_stage else None
    rates: Losses = {}
    train(changed(own, learning_rate=1e-20), tmp_path, done=stopped, rates=rates)
    # Logged is the rate of the next step: linear, from the peak after 3 steps to 0 after 20.
    expected = {step: 1e-20 * (STEPS - step) / (STEPS - 3) for step in range(stopped + 1, STEPS + 1)}
    assert rates == pytest.approx(expected, rel=1e-6)
    if before:
        after = weights(tmp_path)
        assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_is_one_line(
    shared_ray: None, settings: FineTuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agapo.learner.trl.ranks.POLL_S", 0.002)

    killed: list[int] = []

    def kill_once(losses: Losses) -> bool:
        if losses and not killed:
            workers = [p for p in psutil.Process().children(recursive=True) if "TrainerRank" in "".join(p.cmdline())]
            killed.append(workers[0].pid)
            workers[0].kill()
        return False

    with pytest.raises(ProcessDied) as caught:
        train(settings, tmp_path, should_stop=kill_once)
    assert str(caught.value) == (
        "training: rank 0 died (it was killed, as the system does where memory runs out), and no new start is left "
        "(training.max_restarts); often memory: lower training.row_tokens"
    )


@pytest.mark.slow
def test_a_killed_worker_costs_the_steps_since_the_last_checkpoint(
    alone: Run, settings: FineTuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are made again by a new one, with the same numbers, and reported once."""
    monkeypatch.setattr("agapo.learner.trl.ranks.POLL_S", 0.002)
    killed: list[int] = []
    as_one = divided(settings, 1, 0, 4)
    often = replace(changed(as_one, max_restarts=2), checkpoint=CheckpointConfig(every=2))

    def kill_once(losses: Losses) -> bool:
        if len(losses) >= 4 and not killed:
            workers = [p for p in psutil.Process().children(recursive=True) if "TrainerRank" in "".join(p.cmdline())]
            killed.append(workers[0].pid)
            workers[0].kill()
        return False

    losses = train(often, tmp_path, should_stop=kill_once)
    assert killed
    assert losses == alone[0]
    for name, expected in weights(alone[1]).items():
        assert torch.equal(weights(tmp_path)[name], expected), name


def test_what_a_new_start_cannot_mend_is_not_tried_again(
    shared_ray: None, settings: FineTuning, tmp_path: Path
) -> None:
    settings = changed(settings, max_restarts=3)
    with pytest.raises(UserError, match=r"loss became (nan|inf)"):
        train(changed(settings, learning_rate=1e30, max_grad_norm=1e30), tmp_path)
    with pytest.raises(UserError, match=r"no such folder"):
        train(replace(settings, model_path="/nowhere/model"), tmp_path)
