"""A step's figures and warnings: the largest advantage, and a bound on the gradient that every update meets."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agapo.algorithm.sampling import make_batch
from agapo.recipe import RLRecipe, load_recipe
from agapo.schema import Batch
from agapo.stages.rl.clipping import WINDOW, ClipWatch
from agapo.stages.rl.collector import Collector
from agapo.stages.rl.loop import RLLoop
from agapo.stages.rl.metrics import advantage_metrics
from agapo.stages.rl.progress import Progress
from tests.builders import group


def test_largest_advantage_of_one_mixed_group_among_32():
    """One of 256 responses is right: A_loo is 1 and seven times −1/7, of variance (8/7)/256."""
    groups = [group(*[0.0] * 8) for _ in range(31)] + [group(1.0, *[0.0] * 7)]
    batch = make_batch(groups, [], nominal_responses=256)
    assert advantage_metrics(batch) == {"advantage/max": pytest.approx(16 * (7 / 8) ** 0.5)}


def test_largest_advantage_is_an_absolute_value():
    batch = Batch((group(1, 0),), advantages=((0.5, -2.0),), kl_weights=((1.0, 1.0),), nominal_responses=2)
    assert advantage_metrics(batch) == {"advantage/max": 2.0}
    assert advantage_metrics(Batch((), (), (), 2)) == {"advantage/max": 0.0}


class TestClipWatch:
    def said(self, norms: list[float], limit: float = 1.0) -> list[int]:
        """The updates after which it warned."""
        watch = ClipWatch()
        return [number for number, norm in enumerate(norms, 1) if watch.warning(norm, limit)]

    def test_once_when_nearly_all_of_a_window_were_clipped(self):
        assert self.said([5.0] * (3 * WINDOW)) == [WINDOW - 1]
        assert self.said([0.5] * 7 + [5.0] * (3 * WINDOW)) == [7 + WINDOW - 1]

    def test_silent_where_some_were_not(self):
        assert self.said(([5.0] * 9 + [0.5]) * 20) == []
        assert self.said([1.0] * 100) == []

    def test_says_the_norm_and_the_mend(self):
        watch = ClipWatch()
        found = [watch.warning(50.0, 1.0) for _ in range(WINDOW)]
        (said,) = [text for text in found if text]
        assert "max_grad_norm 1 (their norm is 50)" in said
        assert "learner.max_grad_norm=200" in said
        assert "\n" not in said


def test_run_says_once_that_its_updates_are_clipped():
    said, norms = [], iter([5000.0] * 30)
    loop = SimpleNamespace(
        recipe=recipe(),
        learner=SimpleNamespace(update=lambda *_, **__: {"grad_norm": next(norms)}),
        progress=Progress(),
        clipping=ClipWatch(),
        view=SimpleNamespace(announce=said.append),
        timeline=SimpleNamespace(phase=lambda name: nullcontext()),
        learning_rate=1e-6,
    )
    for _ in range(30):
        RLLoop._update(loop, [], 1.0)
    assert loop.progress.clipped_updates == 30
    assert len(said) == 1
    assert "learner.max_grad_norm 1536" in said[0]


def recipe(*overrides: str) -> RLRecipe:
    return load_recipe(RLRecipe, Path("recipes/rl/qwen3_gsm8k.yaml"), list(overrides))


@pytest.mark.parametrize(
    ("overrides", "norm"),
    [
        ((), 1536),
        (("rollout.max_new_tokens=96",), 96),
        (("algorithm.aggregation=token",), 1),
        (("algorithm.preset=grpo",), 1),
        (("algorithm.preset=rloo",), 1536),
        (("learner.max_grad_norm=20",), 20),
        (("learner.max_grad_norm=20", "algorithm.aggregation=token"), 20),
    ],
)
def test_gradients_are_bounded_by_the_aggregation(overrides: tuple[str, ...], norm: float):
    assert recipe(*overrides).max_grad_norm == norm


def test_a_step_without_an_update_sends_no_weights() -> None:
    sent: list[int] = []
    collector = SimpleNamespace(pool=SimpleNamespace(version=3), weight_sync=sent.append, ahead=None)
    for updates in (3, 4):
        collector.progress = SimpleNamespace(updates=updates)
        Collector.bring_weights(cast(Collector, collector))
    assert sent == [4]
