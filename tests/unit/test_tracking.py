"""Run directories, metrics, progress and the report."""

import io
import json
import logging
import math
import os
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from agapo.errors import UserError
from agapo.recipe import RLRecipe, fingerprint, load_recipe
from agapo.schema import Group, Prompt, Response, Segment
from agapo.tracking import (
    MetricsLogger,
    RunDirectory,
    StepProgress,
    before_after_table,
    final_summary,
    is_finished,
    learning_curve,
    stored_fingerprint,
    write_json_atomic,
)
from agapo.tracking.curves import draw_curves, moving_average, read_curves
from agapo.tracking.logger import choose_wandb_mode
from agapo.tracking.progress import format_duration, print_table
from agapo.tracking.report import this_command

RECIPE = {
    "steps": 100,
    "model": {"path": "some/model"},
    "data": {"source": "data.arithmetic:rows"},
    "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
    "tracking": {"wandb": "disabled", "rollout_rows": 3},
}


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"run": {"output": str(tmp_path / "outputs")}}))
    return path


@pytest.fixture
def recipe(recipe_path: Path) -> RLRecipe:
    return load_recipe(RLRecipe, recipe_path)


@pytest.fixture
def no_wandb_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def open_and_close(recipe: RLRecipe, path: Path) -> RunDirectory:
    with RunDirectory.open(recipe, path) as run:
        return run


def group(identity: str = "p0", rewards: tuple[float | None, ...] = (1.0, 0.0)) -> Group:
    prompt = Prompt(
        id=identity,
        messages=({"role": "user", "content": "1+1="}, {"role": "assistant", "content": "?"}),
        columns={"answer": "2"},
    )
    responses = tuple(
        Response(
            segments=(Segment((1, 2, 3), (-0.1, -0.2, -0.3), weights_version=7),),
            text=f"answer {index}",
            finish="stop",
            reward=reward,
            correct=None if reward is None else reward == 1.0,
            reward_parts={"answer": reward},
            reward_error="timeout" if reward is None else None,
        )
        for index, reward in enumerate(rewards)
    )
    return Group(prompt=prompt, prompt_ids=(5, 6), responses=responses)


class TestRunDirectory:
    def test_new_run_holds_its_recipe_and_provenance(self, recipe: RLRecipe, recipe_path: Path) -> None:
        with RunDirectory.open(recipe, recipe_path) as run:
            assert run.path == recipe.run_directory
            assert run.hf == recipe.hf_directory
            assert not run.resumed
            assert load_recipe(RLRecipe, run.recipe) == recipe
            provenance = json.loads(run.provenance.read_text())
        assert provenance["fingerprint"] == fingerprint(recipe) == stored_fingerprint(run.path)
        assert provenance["seed"] == 0
        assert provenance["history"] == []
        assert {"agapo", "torch", "transformers", "ray", "deepspeed", "trl"} <= set(provenance["packages"])
        assert provenance["recipe"] == str(recipe_path)

    def test_same_recipe_is_reopened_and_recorded(self, recipe: RLRecipe, recipe_path: Path) -> None:
        open_and_close(recipe, recipe_path).metrics.write_text("")
        longer = load_recipe(RLRecipe, recipe_path, ["steps=200"])
        run = open_and_close(longer, recipe_path)
        assert run.resumed
        assert len(json.loads(run.provenance.read_text())["history"]) == 1
        assert yaml.safe_load(run.recipe.read_text())["steps"] == 200

    def test_a_recipe_refused_before_any_work_is_mended_in_place(self, recipe: RLRecipe, recipe_path: Path) -> None:
        open_and_close(recipe, recipe_path)
        mended = load_recipe(RLRecipe, recipe_path, ["run.seed=3"])
        run = open_and_close(mended, recipe_path)
        assert not run.resumed
        assert stored_fingerprint(run.path) == fingerprint(mended)

    def test_another_recipe_is_refused_with_the_keys_that_differ(self, recipe: RLRecipe, recipe_path: Path) -> None:
        open_and_close(recipe, recipe_path).metrics.write_text("")
        other = load_recipe(
            RLRecipe,
            recipe_path,
            [
                "learner.learning_rate=1e-4",
                "run.seed=3",
                "reward.terms.0.weight=2",
                "rollout.top_p=0.9",
                "steps=7",
                "tracking.project=x",
            ],
        )
        with pytest.raises(UserError) as caught:
            RunDirectory.open(other, recipe_path)
        message = str(caught.value)
        assert message == (
            f"{recipe.run_directory}: holds a run of another recipe (run.seed: 0 → 3, "
            "reward.terms.0.weight: 1.0 → 2.0, rollout.top_p: 1.0 → 0.9); "
            "name a new run with run.name=…, or delete the directory"
        )
        assert open_and_close(recipe, recipe_path).resumed, "a refused recipe changes nothing and holds no lock"

    def test_a_folder_that_is_no_run_is_left_alone(self, recipe: RLRecipe, recipe_path: Path) -> None:
        recipe.run_directory.mkdir(parents=True)
        (recipe.run_directory / "thesis.txt").write_text("mine")
        with pytest.raises(UserError, match=r"holds 'thesis.txt' but no run.*run\.name"):
            RunDirectory.open(recipe, recipe_path)
        assert [item.name for item in recipe.run_directory.iterdir()] == ["thesis.txt"]

    def test_a_file_in_the_way_is_named(self, recipe: RLRecipe, recipe_path: Path) -> None:
        recipe.run_directory.parent.mkdir(parents=True)
        recipe.run_directory.write_text("")
        with pytest.raises(UserError, match="is a file"):
            RunDirectory.open(recipe, recipe_path)

    def test_what_a_crash_in_setting_up_left_is_no_obstacle(self, recipe: RLRecipe, recipe_path: Path) -> None:
        recipe.run_directory.mkdir(parents=True)
        (recipe.run_directory / ".lock").write_text("process 1 on nowhere")
        (recipe.run_directory / ".provenance.json.99.tmp").write_text("{")
        assert not open_and_close(recipe, recipe_path).resumed

    def test_one_process_at_a_time(self, recipe: RLRecipe, recipe_path: Path) -> None:
        with (
            RunDirectory.open(recipe, recipe_path),
            pytest.raises(UserError, match=f"in use by process {os.getpid()} on"),
        ):
            RunDirectory.open(recipe, recipe_path)
        assert open_and_close(recipe, recipe_path).resumed

    def test_the_lock_dies_with_its_process(self, recipe: RLRecipe, recipe_path: Path) -> None:
        program = (
            "import sys, time; from pathlib import Path\n"
            "from agapo.recipe import RLRecipe, load_recipe; from agapo.tracking import RunDirectory\n"
            "path = Path(sys.argv[1]); run = RunDirectory.open(load_recipe(RLRecipe, path), path)\n"
            "print('held', flush=True); time.sleep(60)"
        )
        child = subprocess.Popen([sys.executable, "-c", program, str(recipe_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "held"
        with pytest.raises(UserError, match=f"in use by process {child.pid} on"):
            RunDirectory.open(recipe, recipe_path)
        child.kill()
        child.communicate()
        assert open_and_close(recipe, recipe_path).resumed

    def test_finished_follows_the_summary(self, recipe: RLRecipe, recipe_path: Path) -> None:
        run = open_and_close(recipe, recipe_path)
        assert not run.finished
        write_json_atomic(run.summary, {"finished": False})
        assert not run.finished
        run.summary.write_text("{torn")
        assert not run.finished
        write_json_atomic(run.summary, {"finished": True, "loss": math.nan, "model": Path("hf")})
        assert run.finished
        assert is_finished(run.path)
        assert json.loads(run.summary.read_text()) == {"finished": True, "loss": None, "model": "hf"}

    def test_truncate_leaves_each_step_once(self, recipe: RLRecipe, recipe_path: Path) -> None:
        run = open_and_close(recipe, recipe_path)
        for path in (run.metrics, run.rollouts):
            path.write_text("".join(f'{{"step": {step}}}\n' for step in (0, 1, 1, 2, 3, 4)) + '{"step": 2')
        run.truncate_after(2)
        for path in (run.metrics, run.rollouts):
            assert [line["step"] for line in lines(path)] == [0, 1, 1, 2]
        assert not run.reward_errors.exists()
        run.truncate_after(-1)
        assert run.metrics.read_text() == ""

    def test_a_failed_write_keeps_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "summary.json"
        write_json_atomic(path, {"old": 1})
        with pytest.raises(RecursionError):
            endless: list = []
            endless.append(endless)
            write_json_atomic(path, endless)
        assert json.loads(path.read_text()) == {"old": 1}
        assert [item.name for item in tmp_path.iterdir()] == ["summary.json"]


class TestMetricsLogger:
    @pytest.fixture
    def run(self, recipe: RLRecipe, recipe_path: Path):
        with RunDirectory.open(recipe, recipe_path) as run:
            yield run

    def test_metrics_are_there_as_soon_as_logged(self, run: RunDirectory, recipe: RLRecipe) -> None:
        logger = MetricsLogger(run, recipe, None, resume=False)
        logger.log(1, {"reward/mean": 0.25, "kl/sequence": math.nan, "policy/grad_norm": math.inf})
        assert lines(run.metrics) == [{"step": 1, "reward/mean": 0.25, "kl/sequence": None, "policy/grad_norm": None}]
        logger.close(0)
        resumed = MetricsLogger(run, recipe, None, resume=True)
        resumed.log(2, {"reward/mean": 0.5})
        resumed.close(0)
        assert [line["step"] for line in lines(run.metrics)] == [1, 2]

    def test_numbers_of_numpy_are_numbers(self, run: RunDirectory, recipe: RLRecipe) -> None:
        import numpy

        logger = MetricsLogger(run, recipe, None, resume=False)
        logger.log(1, {"a": numpy.float32(0.5), "b": numpy.float32("nan"), "c": numpy.int64(3)})  # pyright: ignore[reportArgumentType]
        logger.close(0)
        assert lines(run.metrics) == [{"step": 1, "a": 0.5, "b": None, "c": 3}]

    def test_every_response_is_a_line(self, run: RunDirectory, recipe: RLRecipe) -> None:
        logger = MetricsLogger(run, recipe, None, resume=False)
        logger.log_rollouts(4, [group("p0"), group("p1", (0.0, None))], [[1.5, -1.5], [-0.1, 0.0]], visits=[0, 2])
        logger.log_rollouts(5, [group("p2")])
        logger.close(0)
        rows = lines(run.rollouts)
        assert rows[0] == {
            "step": 4,
            "prompt_id": "p0",
            "domain": "math",
            "mode": "reasoning",
            "prompt": "1+1=",
            "visit": 0,
            "text": "answer 0",
            "reward": 1.0,
            "correct": True,
            "reward_parts": {"answer": 1.0},
            "reward_error": None,
            "finish": "stop",
            "tokens": 3,
            "weights_versions": [7],
            "advantage": 1.5,
        }
        assert [row["advantage"] for row in rows] == [1.5, -1.5, -0.1, 0.0, None, None]
        assert [row.get("visit") for row in rows] == [0, 0, 2, 2, None, None]
        assert rows[3]["reward_error"] == "timeout"

    def test_errors_are_logged_with_their_sample(self, run: RunDirectory, recipe: RLRecipe) -> None:
        logger = MetricsLogger(run, recipe, None, resume=False)
        assert logger.log_errors(3, [group(rewards=(1.0, None)), group("p1", (None, None))]) == 3
        logger.close(0)
        first = lines(run.reward_errors)[0]
        assert (first["step"], first["reward_error"], first["prompt_id"]) == (3, "timeout", "p0")
        assert (first["text"], first["columns"]) == ("answer 1", {"answer": "2"})

    def test_disabled_imports_no_wandb_and_tracking_no_torch(self, recipe_path: Path) -> None:
        program = (
            "import sys; from pathlib import Path\n"
            "from agapo.recipe import RLRecipe, load_recipe; from agapo.tracking import MetricsLogger, RunDirectory\n"
            "path = Path(sys.argv[1]); recipe = load_recipe(RLRecipe, path)\n"
            "with RunDirectory.open(recipe, path) as run:\n"
            "    logger = MetricsLogger(run, recipe, None, False); logger.log(1, {'a': 1.0}); logger.close(0)\n"
            "print([name for name in ('wandb', 'torch', 'ray', 'matplotlib') if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(recipe_path)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"

    def test_offline_runs_share_an_id(
        self, run: RunDirectory, recipe: RLRecipe, no_wandb_settings: None, capfd: pytest.CaptureFixture[str]
    ) -> None:
        offline = replace_tracking(recipe, wandb="auto")
        first = MetricsLogger(run, offline, None, resume=False)
        first.log(1, {"reward/mean": 0.5, "kl/sequence": math.nan})
        first.log_rollouts(1, [group(rewards=(1.0, 0.0, None, 1.0))], [[1.0, -1.0, 0.0, 1.0]])
        first.close(0)
        time.sleep(1.1)  # W&B names offline folders by the second
        second = MetricsLogger(run, offline, first.wandb_id, resume=True)
        second.log(2, {"reward/mean": 0.75})
        second.close(0)
        assert first.wandb_id == second.wandb_id
        folders = sorted((run.path / "wandb").glob("offline-run-*"))
        assert [folder.name.rpartition("-")[2] for folder in folders] == [first.wandb_id] * 2
        tables = list(folders[0].glob("files/media/table/**/*.json"))
        assert len(json.loads(tables[0].read_text())["data"]) == 3, "rollout_rows of the responses"
        assert capfd.readouterr() == ("", ""), "W&B is quiet"

    def test_failing_wandb_costs_a_warning(
        self,
        run: RunDirectory,
        recipe: RLRecipe,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        class Unreachable:
            """W&B that starts, then loses its network."""

            def log(self, *_: object, **__: object) -> None:
                raise ConnectionError("no route\nto host")

            def finish(self, **_: object) -> None:
                raise AssertionError("given up already")

        import wandb

        monkeypatch.setattr(wandb, "init", lambda **_: Unreachable())
        logger = MetricsLogger(run, replace_tracking(recipe, wandb="offline"), "abc", resume=True)
        with caplog.at_level(logging.WARNING, "agapo"):
            for step in (1, 2, 3):
                logger.log(step, {"reward/mean": 0.5})
                logger.log_rollouts(step, [group()])
            logger.close(1)
        assert [record.getMessage() for record in caplog.records] == [
            "W&B could not log step 1 (no route); going on with the files of the run directory"
        ]
        assert len(lines(run.metrics)) == 3
        assert len(lines(run.rollouts)) == 6

    def test_wandb_that_does_not_start_costs_a_warning(
        self,
        run: RunDirectory,
        recipe: RLRecipe,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        import wandb

        def refuse(**_: object) -> None:
            raise wandb.Error("timed out")

        monkeypatch.setattr(wandb, "init", refuse)
        with caplog.at_level(logging.WARNING, "agapo"):
            logger = MetricsLogger(run, replace_tracking(recipe, wandb="online"), "abc", resume=True)
            logger.log(1, {"reward/mean": 0.5})
            logger.close(0)
        assert len(caplog.records) == 1
        assert "W&B could not start (timed out)" in caplog.text
        assert logger.wandb_id == "abc", "the next resume may try again"

    def test_online_resumes_the_same_id(
        self, run: RunDirectory, recipe: RLRecipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import wandb

        calls: list[dict] = []

        class Quiet:
            def finish(self, **_: object) -> None:
                pass

        monkeypatch.setattr(wandb, "init", lambda **arguments: calls.append(arguments) or Quiet())
        MetricsLogger(run, replace_tracking(recipe, wandb="online"), "abc", resume=True).close(0)
        assert (calls[0]["id"], calls[0]["resume"], calls[0]["mode"]) == ("abc", "allow", "online")
        assert calls[0]["dir"] == run.path


@pytest.mark.usefixtures("no_wandb_settings")
class TestWandbMode:
    def test_auto_without_a_key_is_offline(self) -> None:
        assert choose_wandb_mode("auto") == "offline"

    def test_auto_with_a_key_is_online(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        assert choose_wandb_mode("auto") == "online"

    @pytest.mark.parametrize(("host", "expected"), [("api.wandb.ai", "online"), ("github.com", "offline")])
    def test_auto_reads_netrc_for_the_wandb_host(self, tmp_path: Path, host: str, expected: str) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine {host}\n  login user\n  password secret\n")
        netrc.chmod(0o600)
        assert choose_wandb_mode("auto") == expected

    def test_auto_reads_netrc_for_a_server_of_ones_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine wandb.example.org\n  login user\n  password secret\n")
        netrc.chmod(0o600)
        assert choose_wandb_mode("auto") == "offline"
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "settings").write_text("[default]\nbase_url = https://wandb.example.org\n")
        assert choose_wandb_mode("auto") == "online"

    def test_the_environment_wins_over_auto_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_MODE", "disabled")
        assert choose_wandb_mode("auto") == "disabled"
        assert choose_wandb_mode("offline") == "offline"


class TestProgress:
    def test_a_log_file_gets_a_plain_line_now_and_then(self) -> None:
        out = io.StringIO()
        with StepProgress(25, console=Console(file=out, width=40), name="rl", clock=FakeClock()) as progress:
            for step in range(1, 26):
                progress.update(step, {"reward/mean": 0.5, "reward/accuracy": 0.25, "kl/sequence": 0.001})
        printed = out.getvalue().splitlines()
        assert [line.split()[1] for line in printed] == ["1/25", "10/25", "20/25", "25/25"]
        assert printed[1] == "rl 10/25  reward 0.50  acc 25%  kl 0.001  s/step 2  left 30s"

    def test_the_eta_after_a_resume_counts_this_process_only(self) -> None:
        progress = StepProgress(100, done=90, console=Console(file=io.StringIO()), clock=FakeClock())
        assert progress.eta_seconds is None
        progress.update(91, {})
        assert progress.eta_seconds == pytest.approx(9 * 2.0)

    def test_what_came_before_the_first_step_does_not_count(self) -> None:
        progress = StepProgress(11, console=Console(file=io.StringIO()), clock=FakeClock())
        progress.begin(0.5)
        progress.update(1, {})
        assert progress.eta_seconds == pytest.approx(10 * 2.5)

    def test_the_eta_follows_a_change_of_pace(self) -> None:
        clock = FakeClock()
        progress = StepProgress(100, console=Console(file=io.StringIO()), clock=clock)
        for step in range(1, 51):
            clock.seconds = 100.0 if step <= 25 else 1.0
            progress.update(step, {})
        assert progress.eta_seconds == pytest.approx(50 * 1.0)

    def test_the_evaluation_before_training_is_no_step(self) -> None:
        clock = FakeClock()
        progress = StepProgress(10, console=Console(file=io.StringIO()), clock=clock)
        clock.now += 1000
        progress.evaluation(0, {"reasoning": 0.2})
        progress.update(1, {})
        assert progress.eta_seconds == pytest.approx(9 * 2.0)

    def test_a_terminal_gets_a_live_line(self) -> None:
        out = io.StringIO()
        console = Console(file=out, force_terminal=True, width=120, color_system=None)
        with StepProgress(5, console=console, clock=FakeClock()) as progress:
            progress.update(3, {"reward/accuracy": 0.5, "time/step": 1.25})
            progress.announce("[bold]not markup[/bold]")
        printed = out.getvalue()
        assert "3/5 left 1s acc 50%  s/step 1.2" in printed
        assert "[bold]not markup[/bold]" in printed

    @pytest.mark.parametrize(("correct", "mark"), [(True, "✓"), (False, "✗"), (None, "no verdict")])
    def test_samples_show_their_verdict_and_nothing_steers_the_terminal(self, correct: bool | None, mark: str) -> None:
        out = io.StringIO()
        response = replace(group().responses[0], text="[red]so\x1b[2J 2", correct=correct, finish="length")
        StepProgress(5, console=Console(file=out, width=100)).show_sample(3, "1+1=", response)
        printed = out.getvalue()
        assert mark in printed
        assert "step 3" in printed
        assert "cut at the token limit" in printed
        assert "[red]so" in printed
        assert "\x1b" not in printed

    def test_long_samples_keep_start_and_end(self) -> None:
        out = io.StringIO()
        response = replace(group().responses[0], text="start " + "x" * 5000 + " end")
        StepProgress(5, console=Console(file=out, width=100)).show_sample(3, "1+1=", response)
        assert "start" in out.getvalue()
        assert "end" in out.getvalue()
        assert len(out.getvalue()) < 2500

    def test_evaluation_line(self) -> None:
        out = io.StringIO()
        progress = StepProgress(5, console=Console(file=out))
        progress.evaluation(20, {"reasoning": 0.41, "non_reasoning": 0.2256}, best=True)
        assert out.getvalue() == "eval at step 20: reasoning 41.0%  non_reasoning 22.6%  (best so far)\n"

    def test_where_no_answer_was_correct_the_evaluation_line_has_the_reward(self) -> None:
        out = io.StringIO()
        progress = StepProgress(5, console=Console(file=out))
        progress.evaluation(20, {"reasoning": 0.0}, reward=-0.0251, best=True)
        progress.evaluation(40, {"reasoning": 0.25}, reward=0.5)
        progress.evaluation(60, {"reasoning": 0.0}, reward=0.0)
        assert out.getvalue().splitlines() == [
            "eval at step 20: reasoning 0.0%  reward -0.0251  (best so far)",
            "eval at step 40: reasoning 25.0%",
            "eval at step 60: reasoning 0.0%",
        ]

    def test_durations(self) -> None:
        shown = [format_duration(seconds) for seconds in (None, 0.4, 59.7, 200, 7500)]
        assert shown == ["?", "0s", "1m00s", "3m20s", "2h05m"]


class TestReport:
    def test_curves_take_the_last_line_of_a_step_and_skip_gaps(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"step": 2, "a": 1.0}\n{"step": 1, "a": null, "b": 3}\n{"step": 2, "a": 2.0}\n{"step": 3, "a"')
        assert read_curves(path) == {"a": ([2], [2.0]), "b": ([1], [3])}

    def test_moving_average(self) -> None:
        assert moving_average([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]

    def test_a_run_becomes_a_picture(self, tmp_path: Path) -> None:
        metrics = tmp_path / "metrics.jsonl"
        write_run(metrics, steps=60)
        learning_curve(metrics, tmp_path / "curve.png")
        assert png_size(tmp_path / "curve.png") == (1210, 1237)
        figure = draw_curves(read_curves(metrics))
        assert legends(figure) == {
            "Reward a response": ["training", "validation questions"],
            "Accuracy": ["training", "held-out reasoning", "held-out non_reasoning"],
            "Groups sampled": ["all correct", "mixed", "all wrong"],
            "KL to the reference and entropy": ["KL", "entropy"],
            "Response length and truncation": ["length", "truncated"],
            "Gradient norm and learning rate": ["gradient norm", "learning rate"],
        }
        reward: Any = figure.axes[0].get_lines()[-1]
        assert list(reward.get_ydata()) == pytest.approx([-0.4, 0.9, 2.2, 3.5]), "a reward is no share"
        held_out: Any = figure.axes[1].get_lines()[-2]
        assert list(held_out.get_xdata()) == [0, 20, 40, 60]
        assert list(held_out.get_ydata()) == pytest.approx([0.3, 0.3 + 0.55 / 3, 0.3 + 1.1 / 3, 0.85])
        top: Any = figure.axes[2].collections[-1].get_paths()[0].vertices
        assert top[:, 1].max() == pytest.approx(1.0), "shares stack up to the whole"
        assert not any(axes.texts for axes in figure.axes)

    @pytest.mark.parametrize("content", [None, "", '{"step": 1, "reward/mean": 0.5}\n', '{"step": 1, "kl/seq'])
    def test_missing_metrics_are_left_out(self, tmp_path: Path, content: str | None) -> None:
        metrics = tmp_path / "metrics.jsonl"
        if content is not None:
            metrics.write_text(content)
        learning_curve(metrics, tmp_path / "curve.png")
        assert png_size(tmp_path / "curve.png") == (1210, 1237)
        figure = draw_curves(read_curves(metrics))
        reward = ["training"] if content and "reward/mean" in content else []
        assert list(legends(figure).values()) == [reward, [], [], [], [], []]
        assert sum(len(axes.texts) for axes in figure.axes) == (5 if reward else 6), "empty panels say so"

    def test_gain_in_points(self) -> None:
        out = io.StringIO()
        rows = before_after_table(
            {"reasoning": 0.31, "non_reasoning": 0.25}, {"reasoning": 0.585, "x": 0.1}, console=Console(file=out)
        )
        assert rows == [
            ("reasoning", "31.0%", "58.5%", "+27.5 points"),
            ("non_reasoning", "25.0%", "–", "–"),
            ("x", "–", "10.0%", "–"),
        ]
        assert "+27.5 points" in out.getvalue()

    def test_tables_show_brackets_as_they_are(self) -> None:
        out = io.StringIO()
        print_table("t", ("a", "b"), [("[x]", 1)], Console(file=out))
        assert "[x]" in out.getvalue()

    def test_summary_says_where_things_lie_and_how_to_go_on(self, recipe: RLRecipe, recipe_path: Path) -> None:
        run = open_and_close(recipe, recipe_path)
        run.metrics.write_text("{}\n")
        out = io.StringIO()
        final_summary(
            run, steps=12, total_steps=100, wall_s=65, command="agapo rl x.yaml", console=Console(file=out, width=40)
        )
        stopped = out.getvalue()
        assert stopped.startswith("Stopped after step 12 of 100 (1m05s). To go on: agapo rl x.yaml\n")
        assert f"metrics   {run.metrics}\n" in stopped
        assert "rollouts" not in stopped, "what is not there is not named"
        run.hf.mkdir()
        out = io.StringIO()
        final_summary(run, steps=100, total_steps=100, wall_s=65, console=Console(file=out))
        assert "Finished 100 steps in 1m05s." in out.getvalue()
        assert f'from_pretrained("{run.hf}")' in out.getvalue()

    def test_the_command_can_be_typed_again(self) -> None:
        arguments = ["rl", "recipes/rl/tiny.yaml", "run.name=a b"]
        expected = "rl recipes/rl/tiny.yaml 'run.name=a b'"
        assert this_command(["/x/.venv/bin/agapo", *arguments]) == f"agapo {expected}"
        assert this_command(["/x/agapo/__main__.py", *arguments]) == f"python -m agapo {expected}"


class FakeClock:
    """A clock that goes on by `seconds` whenever it is read."""

    def __init__(self) -> None:
        self.now, self.seconds = 0.0, 2.0

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


def replace_tracking(recipe: RLRecipe, **changes: object) -> RLRecipe:
    return recipe.model_copy(update={"tracking": recipe.tracking.model_copy(update=changes)})


def legends(figure: Any) -> dict[str, list[str]]:
    """The labels under each panel, by its title."""
    panels = {axes.get_title(): axes.get_legend() for axes in figure.axes if axes.get_title()}
    return {title: [text.get_text() for text in legend.texts] if legend else [] for title, legend in panels.items()}


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG\r\n")
    return struct.unpack(">II", header[16:24])


def write_run(path: Path, steps: int) -> None:
    """Metrics as the RL loop writes them, of a run that learns."""
    rows = [{"step": 0, "eval/reasoning": 0.3, "eval/non_reasoning": 0.2, "eval/reward": -0.4}]
    for step in range(1, steps + 1):
        done = step / steps
        noise = 0.04 * math.sin(7.3 * step)
        row = {
            "step": step,
            "reward/accuracy": 0.3 + 0.5 * done + noise,
            "reward/mean": 0.3 + 0.5 * done + noise,
            "group/all_correct": 0.4 * done,
            "group/all_wrong": 0.5 * (1 - done),
            "group/mixed": 1 - 0.4 * done - 0.5 * (1 - done),
            "kl/sequence": 2 * done + noise,
            "policy/grad_norm": 1.0 + noise,
            "policy/learning_rate": 1e-4 * (1 - done),
            "policy/entropy": 0.9 - 0.5 * done + noise,
            "rollout/length": 60 - 20 * done + 20 * noise,
            "rollout/truncated": max(0.0, 0.2 - 0.3 * done),
        }
        if step % 20 == 0:
            row |= {"eval/reasoning": 0.3 + 0.55 * done, "eval/non_reasoning": 0.2 + 0.1 * done}
            row |= {"eval/reward": -0.4 + 3.9 * done}
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
