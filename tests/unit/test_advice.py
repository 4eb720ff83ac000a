"""What an error message advises, the run then accepts (DESIGN §7)."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import agapo
from agapo.recipe import DPORecipe, EvalRecipe, Recipe, RLRecipe, SFTRecipe
from agapo.recipe.keys import flatten, resolved
from agapo.tracking import RunDirectory

ROOT = Path(agapo.__file__).parent

KEY = re.compile(r"\b[a-z_]+(?:\.[a-z_]+)+\b")
ABOUT_ITS_KEY = re.compile(r"^(?P<keys>[^:]*): .*\b(?:lower|raise) (?:it|them)\b")
ADVICE = re.compile(r"\b(?:[Ll]ower|[Rr]aise|[Ss]et|accept it with)\b(?P<keys>[^;:()]*)")

BEFORE_WORK = (
    *("preflight", "recipe", "curation", "stages/sft/data.py", "stages/sft/plan.py"),
    *("evaluation/questions.py", "evaluation/rendering.py", "evaluation/needle_prompts.py"),
)
"""Whose messages come before a run has done anything: then every key may change (see the last test)."""

QUESTIONS = {"source": "data.arithmetic:prompts"}
REWARD = {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]}
RECIPES: dict[type[Recipe], dict[str, Any]] = {
    RLRecipe: {"steps": 100, "data": QUESTIONS, "reward": REWARD, "learner": {"ranks": 2}},
    SFTRecipe: {
        "steps": 100,
        "model": {},
        "create": {},
        "data": {"source": "data.files:dialogues"},
        "prompts": QUESTIONS,
        "reward": REWARD,
        "needle": {"lengths": [64]},
    },
    DPORecipe: {"model": {"path": "some/model"}, "data": QUESTIONS, "reward": REWARD},
    EvalRecipe: {"model": {"path": "some/model"}, "needle": {"lengths": [64]}},
}


def texts_of(module: Path) -> Iterator[str]:
    """Every text of a module but docstrings; what an f-string fills in is `{}`."""
    tree = ast.parse(module.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Kind":
            # The keys that the message about memory fills in.
            yield from (f"lower {text.value}" for text in node.args[2:] if isinstance(text, ast.Constant))


def advised() -> list[tuple[str, str]]:
    """Each (module, key) of which a message says to change it."""
    found = set()
    for module in sorted(ROOT.rglob("*.py")):
        for text in texts_of(module):
            named = [key for advice in ADVICE.finditer(text) for key in KEY.findall(advice["keys"])]
            if match := ABOUT_ITS_KEY.search(text):
                named += KEY.findall(match["keys"])
            found |= {(str(module.relative_to(ROOT)), key) for key in named}
    known = {key for kind in RECIPES for key in flatten(resolved(load(kind)))}
    return sorted(item for item in found if item[1] in known)


def load(kind: type[Recipe], **more: Any) -> Recipe:
    return kind.model_validate({"run": {"name": "small"}, **RECIPES[kind], **more})


def changed(recipe: Recipe, key: str) -> Recipe:
    """The recipe with another value of a key, a valid one."""
    content = resolved(recipe)
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        section = section[parent]
    old = section[last]
    section[last] = OTHERS[key] if key in OTHERS else (not old if isinstance(old, bool) else old * 2)
    return type(recipe).model_validate(content)


OTHERS = {
    "reward.max_error_rate": 0.5,
    "learner.max_grad_norm": 5.0,
    "learner.layout": "right",
    "model.attention": "eager",
    "training.micro_batch_rows": 1,
    "training.micro_batch_pairs": 1,
    "rollout.engine": "vllm",
    "rollout.mismatch.stop_above": 0.5,
    "run.name": "other",
    "run.output": "/elsewhere",
}


def begin(recipe: Recipe, *, step: int | None) -> Path:
    """Leave a run of the recipe as a crash after `step` would, None: before the first checkpoint."""
    with RunDirectory.open(recipe, Path("small.yaml")) as run:
        run.metrics.write_text("{}\n")
    if step is not None:
        folder = run.checkpoints / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"step": step}))
        (run.checkpoints / "latest").write_text(folder.name)
    return run.path


def reopen(recipe: Recipe) -> dict[str, Any]:
    """Go on with a run, and return its `provenance.json`."""
    with RunDirectory.open(recipe, Path("small.yaml")) as run:
        assert run.resumed
        assert yaml.safe_load(run.recipe.read_text()) == resolved(recipe)
        return json.loads(run.provenance.read_text())


def stages_with(module: str, key: str) -> list[type[Recipe]]:
    """The recipes that the message can be about. An evaluation that was stopped takes any key."""
    own = {"stages/dpo": DPORecipe, "stages/sft": SFTRecipe}.get(module.rpartition("/")[0])
    kinds = [own] if own else [kind for kind in RECIPES if kind is not EvalRecipe]
    return [kind for kind in kinds if key in flatten(resolved(load(kind)))]


def test_the_messages_are_found() -> None:
    """Else the next test would pass without looking at anything."""
    assert {
        ("cluster.py", "rollout.max_new_tokens"),
        ("learner/rl/group.py", "learner.micro_batch_tokens"),
        ("learner/trl/callbacks.py", "training.learning_rate"),
        ("rewarding/cluster.py", "reward.workers"),
        ("stages/sft/loop.py", "training.micro_batch_rows"),
        ("evaluation/needle.py", "needle.stop"),
    } <= set(advised())


@pytest.mark.parametrize(("module", "key"), [item for item in advised() if not item[0].startswith(BEFORE_WORK)])
def test_a_run_goes_on_with_what_was_advised(module: str, key: str, tmp_path: Path) -> None:
    for kind in stages_with(module, key):
        recipe = load(kind, run={"name": "small", "output": str(tmp_path)})
        before_training = module == "stages/dpo/run.py" and key in ADVISED_BEFORE_TRAINING
        begin(recipe, step=None if before_training else 3)
        if key not in ("run.name", "run.output"):
            reopen(changed(recipe, key))


ADVISED_BEFORE_TRAINING = ("pairs.prompts", "rollout.group_size", "training.pairs_per_step")
"""When there are too few pairs."""


@pytest.mark.parametrize("kind", RECIPES)
def test_before_any_work_every_key_may_change(kind: type[Recipe], tmp_path: Path) -> None:
    recipe = load(kind, run={"name": "small", "output": str(tmp_path)})
    with RunDirectory.open(recipe, Path("small.yaml")) as run:
        (run.path / "start").mkdir()
        (run.path / "data").mkdir()
    other = changed(recipe, "run.seed").model_copy(update={"run": recipe.run.model_copy(update={"seed": 7})})
    with RunDirectory.open(other, Path("small.yaml")) as run:
        assert not run.resumed
        assert yaml.safe_load(run.recipe.read_text())["run"]["seed"] == 7
        assert not (run.path / "start").exists(), "made from the other recipe"
