"""Recipes: every shipped one loads, overrides apply, and every mistake is one line that names place and mend."""

from pathlib import Path

import pytest
import yaml

from agapo.errors import UserError
from agapo.recipe import DPORecipe, EvalRecipe, RLRecipe, SFTRecipe, fingerprint, load_recipe

ROOT = Path(__file__).parents[2]
KINDS = {"dpo": DPORecipe, "rl": RLRecipe, "sft": SFTRecipe, "eval": EvalRecipe}
MINIMAL = {
    "stage": "rl",
    "steps": 3,
    "model": {"path": "./model"},
    "data": {"source": "data.arithmetic:prompts"},
    "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
}


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "minimal.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: path.name)
def test_shipped_recipes_fit_their_schema(path: Path) -> None:
    recipe = load_recipe(KINDS[path.parent.name], path)
    assert recipe.run.name == path.stem


def test_overrides_reach_nested_keys_and_lists(minimal: Path) -> None:
    overrides = ["learner.learning_rate=1e-4", "reward.terms.0.weight=2", "algorithm.advantage.global=none"]
    recipe = load_recipe(RLRecipe, minimal, overrides)
    assert recipe.learner.learning_rate == 1e-4
    assert recipe.reward.terms[0].weight == 2
    assert recipe.algorithm.advantage.batch == "none"


def test_local_paths_become_absolute_and_hub_names_stay(minimal: Path) -> None:
    assert load_recipe(RLRecipe, minimal).model.path == str(Path("model").resolve())
    assert load_recipe(RLRecipe, minimal, ["model.path=Qwen/Qwen3-0.6B"]).model.path == "Qwen/Qwen3-0.6B"


MISTAKES = [
    (["learner.learning_rat=1"], "learner.learning_rat: unknown key; did you mean 'learning_rate'?"),
    (["algorithm.advantage.globl=none"], "algorithm.advantage.globl: unknown key; did you mean 'global'?"),
    (["reward.terms.0.wieght=1"], "reward.terms.0.wieght: unknown key; did you mean 'weight'?"),
    (["rollout.group_size=1"], "rollout.group_size: input should be greater than or equal to 2 (is 1)"),
    (["learner.ranks=3"], "learner.ranks: 3 does not divide the batch of 128 responses"),
    (["algorithm.updates_per_batch=5"], "algorithm.updates_per_batch: 5 does not divide prompts_per_step 16"),
    (["algorithm.preset=gropo"], "preset 'gropo' is unknown; did you mean 'grpo'?"),
    (["reward.verdict=answr"], "verdict 'answr' is not one of the terms; did you mean 'answer'?"),
    (["steps=many"], "steps: input should be a valid integer"),
    (["data.modes={reasoning: 0}"], "shares of reasoning, non_reasoning should be ≥ 0 with one above 0"),
    (["steps"], "override 'steps': should be key.path=value"),
    (["steps.deep=1"], "override 'steps.deep=1': 'deep' lies inside a plain value"),
    (["reward.terms.7.weight=1"], "'7' should be an index below 1"),
    (["stage=sft"], "stage: this is a recipe for 'sft'"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES)
def test_mistakes_are_named(minimal: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(RLRecipe, minimal, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_suggests_the_near_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"recipes/rl/tinny.yaml: no such recipe; did you mean 'recipes/rl/tiny.yaml'"):
        load_recipe(RLRecipe, Path("recipes/rl/tinny.yaml"))


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("stage: rl\nsteps: [1\nmodel: x\n")
    with pytest.raises(UserError, match=r"broken\.yaml:3: not YAML"):
        load_recipe(RLRecipe, path)


def test_the_fingerprint_is_of_what_is_computed(minimal: Path) -> None:
    own = fingerprint(load_recipe(RLRecipe, minimal))
    same = ["run.name=other", "steps=9", "tracking.wandb=disabled", "checkpoint.every=1"]
    assert fingerprint(load_recipe(RLRecipe, minimal, same)) == own
    for override in ("run.seed=1", "learner.learning_rate=2e-6", "algorithm.all_wrong_penalty=0.2"):
        assert fingerprint(load_recipe(RLRecipe, minimal, [override])) != own
