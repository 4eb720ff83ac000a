"""Runs that sample ahead of the learner: the same prompts, bounded staleness, and nothing lost over kills and stops."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from agapo.evaluation.questions import load_questions
from agapo.learner.checkpoint import latest_checkpoint
from agapo.learner.rl.group import LearnerGroup
from agapo.recipe import RLRecipe, load_recipe
from agapo.rollouts.pool import RolloutPool
from agapo.rollouts.waiting import Waiting, load_waiting
from agapo.stages.rl.progress import WAITING
from agapo.stages.running.system import training_stream
from tests.stages.conftest import agapo_here, interrupt_after
from tests.stages.test_rl import rollouts_of, steps_of
from tests.timelines import require_timeline, rows_of

pytestmark = pytest.mark.usefixtures("shared_ray")

AHEAD = ("rollout.max_staleness=2", "rollout.actors=2", "rollout.chunk_prompts=1")


def asked(run: Path) -> list[tuple[str, int]]:
    """(prompt, visit) of every group of the rollouts, in their order."""
    rows = list(map(json.loads, rollouts_of(run)))
    found = list(dict.fromkeys((row["prompt_id"], row["visit"]) for row in rows))
    assert len(rows) == 4 * len(found), "each was sampled four times"
    return found


def require_account(run: Path, recipe_file: Path, steps: int, bound: int = 2) -> None:
    """Each prompt of the stream was learned from or dropped, in the stream's order, and none was seen twice."""
    rows = steps_of(run)
    assert sorted(rows) == list(range(1, steps + 1))
    taken = 4 * steps + round(sum(row["group/refilled"] for row in rows.values()))
    recipe = load_recipe(RLRecipe, recipe_file)
    stream = training_stream(recipe, load_questions(recipe.data, recipe.evaluation))
    assert asked(run) == [(prompt.id, visit) for prompt, visit in stream.take(0, taken)]
    assert all(0 <= row["staleness/mean"] <= row["staleness/max"] <= bound for row in rows.values())


def require_learned_from(waiting: Sequence[Waiting], run: Path) -> None:
    """What a checkpoint held was learned from as it was: whole responses by their texts, others with more behind."""
    rows = list(map(json.loads, rollouts_of(run)))
    for item in waiting:
        texts = [row["text"] for row in rows[4 * item.position : 4 * item.position + 4]]
        if item.group:
            assert texts == [response.text for response in item.group.responses]
        for piece in item.pieces:
            assert texts[piece.id.index].startswith(piece.text)


def require_overlap(events: list[dict[str, Any]]) -> None:
    """Some actor worked while the learner learned."""
    rows = rows_of(events)
    assert {(2, 0), (2, 1), (3, 0), (4, 0)} <= rows.keys(), "both actors, the rank and the verifiers"
    learned = [event for event in rows[1, 0] if event["name"] == "learn"]
    sampled = [*rows[2, 0], *rows[2, 1]]
    assert any(
        one["ts"] < other["ts"] + other["dur"] and other["ts"] < one["ts"] + one["dur"]
        for one in learned
        for other in sampled
    )


def test_it_samples_ahead_and_no_staler_than_allowed(recipe_file: Path, tmp_path: Path) -> None:
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=a", "steps=8", *AHEAD)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "rl" / "a"
    require_account(run, recipe_file, 8)
    require_overlap(require_timeline(run, 8))
    rows = list(steps_of(run).values())
    assert max(row["staleness/max"] for row in rows) >= 1, "it did sample ahead"
    for row in map(json.loads, rollouts_of(run)):
        versions = row["weights_versions"]
        assert versions == sorted(versions)
        assert versions[-1] < row["step"], "of no weights that are not there yet"
        assert row["step"] - 1 - versions[0] <= 2
    # What the weights at hand sampled is compared with them; the rest is off-policy by design.
    found = [row["mismatch/mean"] for row in rows if "mismatch/mean" in row]
    assert found
    assert max(found) < 1e-4


def test_actors_that_die_cost_nothing(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, syncs = RolloutPool.set_weights, []

    def set_weights(self: RolloutPool, *arguments: Any, **named: Any) -> None:
        syncs.append(1)
        if len(syncs) in (2, 4):
            ray.kill(self.actors[len(syncs) // 2 - 1])
        real(self, *arguments, **named)

    monkeypatch.setattr(RolloutPool, "set_weights", set_weights)
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=a", *AHEAD, "evaluation.every=0")
    assert done.returncode == 0, done.stderr
    require_account(tmp_path / "rl" / "a", recipe_file, 6)
    lines = map(json.loads, (tmp_path / "rl" / "a" / "metrics.jsonl").read_text().splitlines())
    assert max(row.get("rollout/restarts", 0) for row in lines) == 2


def test_a_rank_that_dies_and_a_stop_close_the_account(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, updates = LearnerGroup.update, []

    def update(self: LearnerGroup, *arguments: Any, **named: Any) -> Any:
        updates.append(1)
        if len(updates) == 4:
            ray.kill(self._ranks[0])
        return real(self, *arguments, **named)

    monkeypatch.setattr(LearnerGroup, "update", update)
    arguments = ("rl", recipe_file, f"run.output={tmp_path}", "run.name=a", *AHEAD, "checkpoint.every=2")
    done = agapo_here(*arguments)
    assert done.returncode == 0, done.stderr
    assert "starting again from step 3" in done.stdout.replace("\n", " ")
    require_timeline(tmp_path / "rl" / "a", 6)
    require_account(tmp_path / "rl" / "a", recipe_file, 6)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_account(recipe_file: Path, tmp_path: Path) -> None:
    arguments = ("rl", recipe_file, f"run.output={tmp_path}", "run.name=a", *AHEAD)
    run = tmp_path / "rl" / "a"
    stopped = interrupt_after(3, run / "metrics.jsonl", *arguments)
    assert stopped.returncode == 130, stopped.stdout
    checkpoint = latest_checkpoint(run / "checkpoints")
    assert checkpoint
    waiting = load_waiting(checkpoint.path / WAITING).waiting
    assert [item.position for item in waiting][:1] == [checkpoint.state["cursor"]]
    done = agapo_here(*arguments)
    assert done.returncode == 0, done.stderr
    require_account(run, recipe_file, 6)
    require_learned_from(waiting, run)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("rollout.sleep_while_learning=true", "actors that sample while ranks learn do not sleep"),
        ("rollout.weight_transport=broadcast", "an actor that comes later would ask a learner"),
        ("algorithm.importance.level=none", "nothing would correct for the older weights"),
        ("algorithm.importance.band=[2, 3]", "band [2.0, 3.0]: should be [low, high] around 1"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: str, message: str, recipe_file: Path) -> None:
    done = agapo_here("check", recipe_file, "rollout.max_staleness=1", overrides)
    assert done.returncode != 0
    assert message in done.stderr.replace("\n", " ")
