"""Bad input ends a run before training, with one line that names the place and the mend, and exit status 1."""

import re
from pathlib import Path

import pytest

from agapo.errors import UserError
from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe import RLRecipe, load_recipe
from agapo.stages.rl.run import run_rl
from tests.builders import tiny_exaone
from tests.stages.conftest import ROOT, agapo_here

pytestmark = pytest.mark.usefixtures("shared_ray")

CASES = [
    (["learner.learning_rat=1"], "learner.learning_rat: unknown key; did you mean 'learning_rate'?"),
    (["model.path=./nowhere"], "nowhere: no such folder"),
    (["reward.terms.0.function=rewards.nothing:score"], "cannot import 'rewards.nothing'"),
    (["reward.terms.0.function=rewards.math_answer:scor"], "has no function 'scor'; did you mean 'score'?"),
    (["data.source=data.arithmetic:prompt"], "has no function 'prompt'; did you mean 'prompts'?"),
    (["data.args={sise: 3}"], "data.args: data.arithmetic:prompts got an unexpected keyword argument 'sise'"),
    (["data.max_prompt_tokens=3"], "data.max_prompt_tokens: prompt"),
    (["rollout.max_new_tokens=4000"], "exceed the model's context of 256"),
    (["evaluation.validation_size=64"], "evaluation.validation_size: holding out"),
    # Before a cluster is looked for, too.
    (
        ["reward.terms.0.function=tests.fakes.rewards:columns_seen", "cluster.address=127.0.0.1:1"],
        "reads the column 'scale'",
    ),
    (["cluster.address=127.0.0.1:1"], "cluster.address: nothing answers at 127.0.0.1:1"),
]


@pytest.mark.parametrize(("overrides", "message"), CASES)
def test_named_before_anything_starts(
    recipe_file: Path, tmp_path: Path, overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    # As in a process of its own, which is in no cluster yet.
    monkeypatch.setattr("agapo.cluster.ray.is_initialized", lambda: False)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        run_rl(load_recipe(RLRecipe, recipe_file, [f"run.output={tmp_path}", *overrides]), recipe_file)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_mistake_is_one_line_and_status_1(recipe_file: Path, tmp_path: Path) -> None:
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", "model.path=./nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: model.path: ")
    assert done.stderr.count("\n") == 1


def test_a_reward_of_the_wrong_length_stops_before_the_first_step(recipe_file: Path, tmp_path: Path) -> None:
    reward = "reward.terms.0.function=tests.fakes.rewards:two_values"
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", reward)
    assert done.returncode == 1
    assert "reward.max_error_rate" in done.stderr
    assert "bad_return" in done.stderr


def test_a_loss_that_is_not_a_number_stops(recipe_file: Path, tmp_path: Path) -> None:
    overflow = ("reward.terms.0.weight=1e38", "algorithm.advantage.global=none")
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", *overflow)
    assert done.returncode == 1
    assert "error: the loss became" in done.stderr
    assert "lower learner.learning_rate" in done.stderr
    assert not list((tmp_path / "rl").rglob("summary.json"))


def test_a_model_that_samples_nonsense_stops(recipe_file: Path, tmp_path: Path) -> None:
    model, tokenizer = tiny_exaone(), build_tokenizer()
    digits = tokenizer.encode("0123456789", add_special_tokens=False)
    model.model.embed_tokens.weight.data[digits] = float("nan")
    export_hf(model, tokenizer, tmp_path / "nan")
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", f"model.path={tmp_path / 'nan'}")
    assert done.returncode == 1
    assert "log-probabilities are not numbers (weights 0)" in done.stderr


def test_an_empty_data_set_is_named(recipe_file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    source = ("data.source=data.gsm8k:prompts", "data.args={}", f"data.path={empty}")
    done = agapo_here("rl", recipe_file, f"run.output={tmp_path}", *source)
    assert done.returncode == 1
    assert f"{empty}" in done.stderr.replace("\n", "")
    assert "no questions" in done.stderr
