"""Whole runs of the RL stage through the command line: what they leave, and that they can be stopped and redone."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agapo.errors import Interrupted
from agapo.evaluation.questions import load_questions
from agapo.learner.rl.group import LearnerGroup
from agapo.recipe import RLRecipe, load_recipe
from agapo.stages.rl.loop import RLLoop
from agapo.stages.running.system import training_stream
from agapo.tracking import is_finished
from tests.stages.conftest import agapo, agapo_here, interrupt_after
from tests.timelines import require_timeline, rows_of

pytestmark = pytest.mark.usefixtures("shared_ray")

WHOLE = ("rollout.actors=2", "tracking.wandb=offline")
NOT_COMPARED = re.compile(r"^time/|tokens_per_s|^rollout/restarts")


def steps_of(run: Path) -> dict[int, dict[str, Any]]:
    """The training metrics of each step, without what depends on the clock. Each step must be there once."""
    found: dict[int, dict[str, Any]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "reward/mean" in row:
            assert row["step"] not in found
            found[row["step"]] = {name: value for name, value in row.items() if not NOT_COMPARED.search(name)}
    return found


def rollouts_of(run: Path) -> list[str]:
    return (run / "rollouts.jsonl").read_text().rstrip("\n").split("\n")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(run / "hf").state_dict()


@pytest.fixture(scope="module")
def whole_run(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps on two actors that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole")
    done = agapo("rl", recipe_file, f"run.output={output}", "run.name=whole", *WHOLE)
    assert done.returncode == 0, done.stderr
    return output / "rl" / "whole"


def test_a_run_leaves_what_it_promises(whole_run: Path, tiny_model: Path) -> None:
    summary = json.loads((whole_run / "summary.json").read_text())
    assert summary["stage"] == "rl"
    assert summary["steps"] == 6
    assert set(summary["before"]) == set(summary["after"]) == {"reasoning", "non_reasoning"}
    assert summary["parent"] == str(tiny_model)
    assert summary["model"] == str(whole_run / "hf")
    assert summary["tokens_generated"] == sum(row["tokens"] for row in map(json.loads, rollouts_of(whole_run)))
    assert summary["reward_errors"] == 0
    assert summary["wall_s"] > 0
    assert (whole_run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert (whole_run / "report.html").read_text().count('id="step-') == 6
    assert list((whole_run / "wandb").glob("offline-run-*"))


def test_every_step_is_logged(whole_run: Path) -> None:
    steps = steps_of(whole_run)
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]
    assert len(rollouts_of(whole_run)) >= 6 * 4 * 4
    assert steps[1]["kl/sequence"] == pytest.approx(0, abs=1e-3)
    assert steps[6]["kl/sequence"] != 0
    assert any(row["group/mixed"] > 0 for row in steps.values())
    assert all(row["policy/ratio_max"] == pytest.approx(1, abs=1e-3) for row in steps.values())


def test_the_timeline_has_the_phases_of_every_process(whole_run: Path) -> None:
    rows = rows_of(require_timeline(whole_run, 6))
    assert {event["name"] for event in rows[1, 0]} == {
        *("generate", "score", "learn", "reference", "update", "sync", "evaluate", "checkpoint")
    }
    assert [event["name"] for event in rows[3, 0]] == ["forward and backward", "optimizer"] * 6
    assert all(event["name"] == "sample" for event in rows[2, 0])
    assert rows[4, 0]


def test_dropped_groups_are_refilled_and_no_prompt_is_lost_or_asked_twice(whole_run: Path, recipe_file: Path) -> None:
    steps = steps_of(whole_run)
    dropped = [row["group/dropped"] for row in steps.values()]
    assert sum(dropped) == sum(row["group/refilled"] for row in steps.values()) > 1
    asked: dict[tuple[str, int], int] = {}
    for row in map(json.loads, rollouts_of(whole_run)):
        asked[row["prompt_id"], row["visit"]] = asked.get((row["prompt_id"], row["visit"]), 0) + 1
    recipe = load_recipe(RLRecipe, recipe_file)
    stream = training_stream(recipe, load_questions(recipe.data, recipe.evaluation))
    expected = [(prompt.id, visit) for prompt, visit in stream.take(0, 6 * 4 + int(sum(dropped)))]
    assert list(asked) == expected
    assert set(asked.values()) == {4}


@pytest.mark.slow
def test_oversampling_learns_from_the_same_responses(recipe_file: Path, tmp_path: Path) -> None:
    """To the bit, where a chunk is one prompt: what a response is follows from its chunk alone."""
    same = (f"run.output={tmp_path}", "steps=4", "rollout.chunk_prompts=1", "rollout.actors=2", "evaluation.every=0")
    for name, oversample in (("rounds", "false"), ("over", "true")):
        done = agapo_here("rl", recipe_file, *same, f"run.name={name}", f"rollout.oversample={oversample}")
        assert done.returncode == 0, done.stderr
    rounds, over = (tmp_path / "rl" / name for name in ("rounds", "over"))
    steps = steps_of(over)
    surplus = [row.pop("group/surplus") for row in steps.values()]
    assert sum(surplus) > 0 and sum(row["group/refilled"] for row in steps.values()) > 0
    assert steps == steps_of(rounds)
    assert rollouts_of(over) == rollouts_of(rounds)
    for name, weight in weights_of(rounds).items():
        assert torch.equal(weight, weights_of(over)[name]), name


def test_the_reference_can_be_asked_while_others_are_sampled(
    whole_run: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun = LearnerGroup.begin_reference, []

    def begin_reference(self: LearnerGroup, examples: Any) -> Any:
        begun.append(len(examples))
        return real(self, examples)

    monkeypatch.setattr(LearnerGroup, "begin_reference", begin_reference)
    early = ("learner.early_reference=true", "learner.micro_batch_tokens=100", "rollout.actors=2", "steps=3")
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=early", *early)
    assert done.returncode == 0, done.stderr
    assert len(begun) > 3, "more than once a step"
    expected = steps_of(whole_run)
    for step, row in steps_of(tmp_path / "rl" / "early").items():
        for name in ("kl/sequence", "kl/k3", "policy/loss", "policy/grad_norm"):
            assert row[name] == pytest.approx(expected[step][name], rel=1e-3, abs=1e-4), (step, name)


def test_it_learns_without_truncated_responses_and_with_the_kl_of_all_groups(recipe_file: Path, tmp_path: Path) -> None:
    learning = ("steps=12", "prompts_per_step=8", "learner.learning_rate=5e-3", "learner.warmup_steps=0")
    rare = ("reward.truncated=masked", "rollout.max_new_tokens=12", "algorithm.kl={coefficient: 1e-3, groups: all}")
    short = ("reward.terms.0.function=tests.fakes.length_reward:short", "evaluation.every=0")
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=learns", *learning, *rare, *short)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "rl" / "learns"
    rows = [json.loads(row) for row in rollouts_of(run)]
    assert {row["finish"] for row in rows} == {"stop", "length"}
    assert all((row["reward"] is None) == (row["finish"] == "length") for row in rows)
    steps = list(steps_of(run).values())
    # Dropped groups have part in the KL alone.
    assert sum(row["group/dropped"] for row in steps) > 0
    assert all(row["kl/sequence"] > 0 for row in steps[3:])
    # Nothing chose another step than the last.
    done = agapo_here("export", run, "--step", 12, "--out", tmp_path / "exported" / "hf")
    assert done.returncode == 0, done.stderr
    exported = weights_of(tmp_path / "exported")
    assert all(torch.equal(exported[name], weight) for name, weight in weights_of(run).items())
    again = agapo_here("export", run, "--out", tmp_path / "exported" / "hf")
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    share = [[row["reward"] or 0.0 for row in rows if row["step"] in when] for when in ((1, 2, 3), (10, 11, 12))]
    assert sum(share[1]) / len(share[1]) > sum(share[0]) / len(share[0]) + 0.15


def test_the_export_answers_in_both_modes(whole_run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(whole_run / "hf")
    tokenizer = AutoTokenizer.from_pretrained(whole_run / "hf")
    for thinking in (True, False):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": "1+1"}],
            add_generation_prompt=True,
            enable_thinking=thinking,
            return_tensors="pt",
            return_dict=True,
        )
        output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert output.shape[1] > inputs["input_ids"].shape[1]
        assert tokenizer.decode(inputs["input_ids"][0]).endswith("<think>\n" if thinking else "</think>\n\n")


def test_a_finished_run_is_not_done_again(whole_run: Path, recipe_file: Path) -> None:
    before = (whole_run / "metrics.jsonl").read_bytes()
    done = agapo_here("rl", recipe_file, f"run.output={whole_run.parents[1]}", "run.name=whole", *WHOLE)
    assert done.returncode == 0
    assert "Held-out accuracy" in done.stdout
    assert (whole_run / "metrics.jsonl").read_bytes() == before


def test_a_run_of_another_recipe_is_refused(whole_run: Path, recipe_file: Path) -> None:
    done = agapo_here("rl", recipe_file, f"run.output={whole_run.parents[1]}", "run.name=whole", "run.seed=1")
    assert done.returncode == 1
    assert "run.seed: 0 → 1" in done.stderr
    assert "run.name=" in done.stderr


def test_interrupted_and_resumed_equals_undisturbed(whole_run: Path, recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "rl" / "cut"
    arguments = ("rl", recipe_file, f"run.output={tmp_path}", "run.name=cut", "tracking.wandb=offline")
    stopped = interrupt_after(2, run / "metrics.jsonl", *arguments)
    assert stopped.returncode == 130, stopped.stdout
    assert "To go on" in stopped.stdout
    checkpoint = run / "checkpoints" / (run / "checkpoints" / "latest").read_text()
    state = json.loads((checkpoint / "state.json").read_text())
    finished = state["step"]
    assert 2 <= finished < 6
    assert sorted(steps_of(run)) == list(range(1, finished + 1))

    resumed = agapo_here(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on from step {finished}" in resumed.stdout
    assert steps_of(run) == steps_of(whole_run)
    assert rollouts_of(run) == rollouts_of(whole_run)
    for name, weight in weights_of(whole_run).items():
        assert torch.equal(weight, weights_of(run)[name]), name
    directories = [path.name for path in (run / "wandb").glob("offline-run-*")]
    assert len(directories) == 2
    require_timeline(run, 6)
    assert all(name.endswith(state["wandb_id"]) for name in directories)


@pytest.mark.slow
@pytest.mark.parametrize("died_at", [0, 3])
def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint(
    whole_run: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, died_at: int
) -> None:
    """Unattended; the run ends as an undisturbed one. Before the first checkpoint it begins anew."""
    real, killed = RLLoop.learn, []

    def learn(self: RLLoop, *arguments: Any) -> Any:
        if self.progress.step == died_at and not killed:
            killed.append(died_at)
            ray.kill(self.learner._ranks[0])
        return real(self, *arguments)

    monkeypatch.setattr(RLLoop, "learn", learn)
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=killed", "checkpoint.every=2")
    assert done.returncode == 0, done.stderr
    saved = died_at - died_at % 2
    place = f"step {saved + 1}" if saved else "the start"
    said = f"starting again from {place} (learner.max_restarts: 2 more"
    assert said in done.stdout.replace("\n", " ")
    run = tmp_path / "rl" / "killed"
    assert steps_of(run) == steps_of(whole_run)
    assert rollouts_of(run) == rollouts_of(whole_run)
    for name, weight in weights_of(whole_run).items():
        assert torch.equal(weight, weights_of(run)[name]), name


def test_one_actor_gives_the_run_of_two_and_a_finished_run_goes_on_for_more_steps(
    whole_run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    arguments = ("rl", recipe_file, f"run.output={tmp_path}", "run.name=longer")
    for steps in (3, 6):
        done = agapo_here(*arguments, f"steps={steps}")
        assert done.returncode == 0, done.stderr
    assert rollouts_of(tmp_path / "rl" / "longer") == rollouts_of(whole_run)
    assert json.loads((tmp_path / "rl" / "longer" / "summary.json").read_text())["steps"] == 6


def test_a_finished_run_that_goes_on_and_is_stopped_is_not_finished(
    whole_run: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train() -> None:
        raise Interrupted

    progress = SimpleNamespace(step=6)
    loop = SimpleNamespace(
        train=train,
        view=SimpleNamespace(close=lambda: None),
        timeline=SimpleNamespace(flush=lambda: None),
        progress=progress,
        wall_s=1.0,
    )
    monkeypatch.setattr("agapo.stages.rl.run.build_rl", lambda *_: loop)
    shutil.copytree(whole_run.parents[1], tmp_path / "copy")
    stopped = agapo_here("rl", recipe_file, f"run.output={tmp_path / 'copy'}", "run.name=whole", "steps=9", *WHOLE)
    assert stopped.returncode == 130
    assert "Stopped after step 6 of 9" in stopped.stdout and "Use the model" not in stopped.stdout
    assert not is_finished(tmp_path / "copy" / "rl" / "whole")


@pytest.mark.slow
def test_two_ranks_learn_the_same(whole_run: Path, recipe_file: Path, tmp_path: Path) -> None:
    overrides = ("learner.ranks=2", "learner.zero_stage=3", "steps=2", "evaluation.every=0")
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=ranks", *overrides)
    assert done.returncode == 0, done.stderr
    one, two = steps_of(whole_run)[1], steps_of(tmp_path / "rl" / "ranks")[1]
    for name in ("policy/grad_norm", "policy/loss", "policy/entropy"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)
    # Of the shards of ZeRO-3, the whole model.
    run = tmp_path / "rl" / "ranks"
    assert agapo_here("export", run, "--out", tmp_path / "exported" / "hf").returncode == 0
    exported = weights_of(tmp_path / "exported")
    assert all(torch.equal(exported[name], weight) for name, weight in weights_of(run).items())


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "zero_stage"), [(2, 0), (2, 3), (4, 2)])
def test_ranks_that_share_sequences_learn_the_same(
    ranks: int, zero_stage: int, whole_run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    sharing = (f"learner.ranks={ranks}", f"learner.zero_stage={zero_stage}", "learner.sequence_parallel=2")
    small = ("steps=2", "evaluation.every=0", "learner.micro_batch_tokens=100")
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=shared", *sharing, *small)
    assert done.returncode == 0, done.stderr
    one, shared = steps_of(whole_run), steps_of(tmp_path / "rl" / "shared")
    for step in (1, 2):
        for name in ("policy/grad_norm", "policy/loss", "policy/entropy", "kl/sequence", "mismatch/mean"):
            assert shared[step][name] == pytest.approx(one[step][name], rel=1e-3, abs=1e-5), (step, name)


def test_a_shaped_reward_exports_what_it_trained_and_says_that_nothing_was_correct(
    recipe_file: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shaped = ("reward.terms.0.function=tests.fakes.length_reward:shaped", "evaluation.every=1", "steps=6")
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=shaped", *shaped)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "rl" / "shaped"
    summary = json.loads((run / "summary.json").read_text())
    rewards = {
        row["step"]: row["eval/reward"]
        for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        if "eval/reward" in row
    }
    best = max(rewards.values())
    # Accuracy is 0 throughout: the mean reward decides, and of equals the later.
    assert summary["exported"]["step"] == max(step for step, reward in rewards.items() if reward == best)
    assert f"hf holds step {summary['exported']['step']}: the best on the validation questions" in done.stdout
    start = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    same = all(torch.equal(value, start[name]) for name, value in weights_of(run).items())
    assert same == (summary["exported"]["step"] == 0)
    assert "no response has counted as correct so far: the verdict's highest value is 0." in done.stdout
    assert "reward.correct_at is 1" in summary["warnings"][0]
    assert f"those of step {summary['exported']['step']}" in (run / "hf" / "README.md").read_text()


def test_a_threshold_makes_a_shaped_reward_a_verdict(recipe_file: Path, tmp_path: Path) -> None:
    shaped = ("reward.terms.0.function=tests.fakes.length_reward:shaped", "reward.correct_at=0.5", "steps=1")
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "run.name=at", *shaped, "evaluation.every=0")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in rollouts_of(tmp_path / "rl" / "at")]
    assert {row["correct"] for row in rows} == {True, False}
    assert all(row["correct"] == (row["reward"] >= 0.5) for row in rows)
    assert json.loads((tmp_path / "rl" / "at" / "summary.json").read_text())["warnings"] == []


@pytest.mark.slow
def test_two_updates_a_batch_in_bfloat16_on_two_ranks_that_go_on(recipe_file: Path, tmp_path: Path) -> None:
    overrides = ("algorithm.updates_per_batch=2", "learner.ranks=2", "learner.zero_stage=1", "model.dtype=bfloat16")
    run = tmp_path / "rl" / "twice"
    large = ("learner.learning_rate=5e-3", "learner.warmup_steps=0", "evaluation.every=0")
    for steps in (1, 2):
        arguments = (f"run.output={tmp_path}", "run.name=twice", f"steps={steps}", *large, *overrides)
        done = agapo_here("rl", recipe_file, *arguments)
        assert done.returncode == 0, done.stderr
    assert "going on from step 1 of 2" in done.stdout
    state = json.loads((run / "checkpoints" / "step-000002" / "state.json").read_text())
    assert state["updates"] == 4
    assert (state["written"]["ranks"], state["written"]["zero_stage"]) == (2, 1)
    assert sum("optim_states" in name for name in state["written"]["files"]) == 2
    # The second update meets a policy that the first has moved; rounding to bfloat16 alone makes a ratio of 1.03.
    assert all(row["policy/ratio_max"] > 1.2 for row in steps_of(run).values())
