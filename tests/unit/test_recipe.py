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


SHIPPED = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name not in ("cluster", "ablation"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
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


NAMES = ["no", "off", "true", "null", "0", "007", "1e3", "20250101", "2025-01-01", "0x1f", "1_000", "y", "1.10"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_is_written(minimal: Path, name: str) -> None:
    assert load_recipe(RLRecipe, minimal, [f"run.name={name}"]).run.name == name
    minimal.write_text(f"{minimal.read_text()}run: {{name: {name}}}\ntracking: {{project: {name}}}\n")
    recipe = load_recipe(RLRecipe, minimal)
    assert (recipe.run.name, recipe.tracking.project) == (name, name)


@pytest.mark.parametrize("name", ["", '""', "''"])
def test_an_empty_name_is_the_files(minimal: Path, name: str) -> None:
    assert load_recipe(RLRecipe, minimal, [f"run.name={name}"]).run.name == "minimal"
    minimal.write_text(f"{minimal.read_text()}run:\n  name: {name}\n")
    assert load_recipe(RLRecipe, minimal).run.name == "minimal"


def test_texts_are_texts_wherever_they_are_wanted(minimal: Path) -> None:
    overrides = ["rollout.stop=[no, 1, 1:30, 2025-01-01]", "reward.terms.0.domains=[no, 1]", "reward.terms.0.name=1"]
    recipe = load_recipe(RLRecipe, minimal, [*overrides, "reward.verdict={no: 1}", "cluster.address=~"])
    assert recipe.rollout.stop == ["no", "1", "1:30", "2025-01-01"]
    assert (recipe.reward.terms[0].domains, recipe.reward.terms[0].name) == (["no", "1"], "1")
    assert recipe.reward.verdict == {"no": "1"}
    assert recipe.cluster.address is None
    assert load_recipe(RLRecipe, minimal, ["model.path=123"]).model.path == "123"


FREE = {
    "1e-2": 0.01,
    "1E5": 1e5,
    "-.5": -0.5,
    "1.5e3": 1500.0,
    "010": 10,
    "0o17": 15,
    "1_000": 1000,
    "1:30": "1:30",
    "2025-01-01": "2025-01-01",
    "no": "no",
    "true": True,
    "~": None,
    '"1e-2"': "1e-2",
    "1e": "1e",
    "nan": "nan",
    "{a: [1e-2, off], 3: 1}": {"a": [0.01, "off"], 3: 1},
}


@pytest.mark.parametrize(("text", "value"), FREE.items())
def test_free_form_values_are_those_of_yaml_1_2(minimal: Path, text: str, value: object) -> None:
    overridden = load_recipe(RLRecipe, minimal, [f"reward.terms.0.args.x={text}"])
    minimal.write_text(yaml.safe_dump(MINIMAL).replace("- function:", f"- args: {{x: {text}}}\n    function:"))
    written = load_recipe(RLRecipe, minimal)
    for recipe in (overridden, written):
        found = recipe.reward.terms[0].args["x"]
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 1\nsteps: 2\n", ":2: steps: is given twice (first in line 1)"),
        ("run:\n  seed: 1\n  name: x\n  seed: 1\n", ":4: run.seed: is given twice (first in line 2)"),
        (
            "reward:\n  terms:\n  - name: a\n    args: {x: {y: 1, y: 2}}\n",
            ":4: reward.terms.0.args.x.y: is given twice",
        ),
        ('"steps": 1\nsteps: 2\n', ":2: steps: is given twice"),
        ("? [a]\n: 1\n", ":1: : a key should be a name"),
        ("steps: !!python/name:os.system x\n", ":1: steps: the tag"),
        ("steps: &a [*a]\n", ": not YAML"),
        ("steps: *a\n", ":1: not YAML"),
        ("- 1\n", ": should be a YAML mapping"),
        ("", ": should be a YAML mapping"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(RLRecipe, path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_an_override_reaches_into_a_section_that_is_null(minimal: Path) -> None:
    for nothing in ("null", "~", ""):
        minimal.write_text(minimal.read_text() + f"checkpoint: {nothing}\n")
        assert load_recipe(RLRecipe, minimal, ["checkpoint.every=7"]).checkpoint.every == 7
        minimal.write_text(minimal.read_text().replace(f"checkpoint: {nothing}\n", ""))


def test_a_file_that_is_no_text_and_a_key_of_before(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\x7fELF\x02\xff\xfe")
    with pytest.raises(UserError, match="is no text in UTF-8"):
        load_recipe(RLRecipe, path)
    path.write_text("stage: eval\nmodel: {}\nneedle: {lengths: [8]}\naccuracy: {size: 8}\n")
    with pytest.raises(UserError, match="accuracy: unknown key; its parts are the sections 'prompts'"):
        load_recipe(EvalRecipe, path)


def test_merged_keys_are_not_given_twice(minimal: Path) -> None:
    merged = "x: &x {seed: 1, name: a}\nrun: {<<: *x, seed: 2}\n"
    minimal.write_text(minimal.read_text() + merged)
    with pytest.raises(UserError) as caught:
        load_recipe(RLRecipe, minimal)
    assert "x: unknown key" in str(caught.value)
    assert "twice" not in str(caught.value)


def test_truth_values_may_be_written_as_before(minimal: Path) -> None:
    for text, value in (("yes", True), ("on", True), ("True", True), ("no", False), ("off", False), ("FALSE", False)):
        recipe = load_recipe(RLRecipe, minimal, [f"model.gradient_checkpointing={text}"])
        assert recipe.model.gradient_checkpointing is value


MISTAKES = [
    (["steps=true"], "steps: should be a number, not true or false (is true)"),
    (["learner.learning_rate=False"], "learner.learning_rate: should be a number, not true or false (is False)"),
    (["data.modes={reasoning: true}"], "data.modes.reasoning: should be a number, not true or false (is true)"),
    (["model.gradient_checkpointing=1"], "model.gradient_checkpointing: should be true or false (is 1)"),
    (["model.gradient_checkpointing=0.0"], "model.gradient_checkpointing: should be true or false (is 0.0)"),
    (["model.gradient_checkpointing='1'"], "model.gradient_checkpointing: should be true or false (is 1)"),
    (["learner.learning_rate=.nan"], "learner.learning_rate: should be a finite number (is .nan)"),
    (["learner.learning_rate=1e999"], "learner.learning_rate: should be a finite number (is 1e999)"),
    (["learner.learning_rate=nan"], "learner.learning_rate: input should be a finite number"),
    (["reward.terms.0.args={x: [1, -.inf]}"], "reward.terms.0.args.x.1: should be a finite number (is -.inf)"),
    (["steps=~"], "steps: input should be a valid integer (is None)"),
    (["learner=abc"], "learner: should be a section (keys and values) (is 'abc')"),
    (["data=[1]"], "data: should be a section (keys and values)"),
    (["data.modes=1"], "data.modes: should be a section (keys and values) (is 1)"),
    (["model.rope=1"], "model.rope: should be a section (keys and values) (is 1)"),
    (["reward.terms=[abc]"], "reward.terms.0: should be a section (keys and values) (is 'abc')"),
    (["reward.terms.0.args=~"], "reward.terms.0.args: should be a section (keys and values) (is None)"),
    (["run.output=null"], "run.output: "),
    (["run.name=1:30"], "run.name: string should match pattern"),
    (["data.modes={reasoning: 1, reasoning: 0}"], "reasoning: is given twice; keep one"),
    (["learner.learning_rat=1"], "learner.learning_rat: unknown key; did you mean 'learning_rate'?"),
    (["algorithm.advantage.globl=none"], "algorithm.advantage.globl: unknown key; did you mean 'global'?"),
    (["reward.terms.0.wieght=1"], "reward.terms.0.wieght: unknown key; did you mean 'weight'?"),
    (["rollout.group_size=1"], "rollout.group_size: input should be greater than or equal to 2 (is 1)"),
    (["learner.ranks=3"], "learner.ranks: 3 does not divide the batch of 128 responses"),
    (["algorithm.updates_per_batch=5"], "algorithm.updates_per_batch: 5 does not divide prompts_per_step 16"),
    (
        ["rollout.weight_transport=ipc", "rollout.gpus_per_actor=1"],
        "weight_transport: ipc, but learner.gpus_per_rank is 0 and rollout.gpus_per_actor 1; set it to host",
    ),
    (
        ["rollout.weight_transport=ipc", "rollout.gpus_per_actor=1", "learner.gpus_per_rank=1"],
        "weight_transport: ipc, but with 1 of a GPU a rank and 1 an actor, no two share one; set it to host",
    ),
    (
        ["rollout.weight_transport=broadcast", "rollout.gpus_per_actor=0.5", "learner.gpus_per_rank=0.5"],
        "weight_transport: broadcast, but NCCL has one member a GPU",
    ),
    (
        ["rollout.weight_transport=ipc", "cluster.address=auto"],
        "weight_transport: ipc, but hosts of a cluster share no memory",
    ),
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
    assert "Config" not in str(caught.value)


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
