"""Which keys of a recipe may change while its run is stopped: all are in a class, and the run keeps to it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from agapo.errors import UserError
from agapo.recipe import DPORecipe, EvalRecipe, Recipe, RLRecipe, SFTRecipe, fingerprint
from agapo.recipe.filtering import FilterRecipe
from agapo.recipe.keys import CLASSES, classes_of, key_class, resolved, section_at
from agapo.tracking import RunDirectory, write_json_atomic
from tests.unit.test_advice import begin, load, reopen

KINDS = (RLRecipe, SFTRecipe, DPORecipe, EvalRecipe, FilterRecipe)


def sections_below(section: type[BaseModel]) -> set[type[BaseModel]]:
    names = [field.alias or name for name, field in section.model_fields.items()]
    inner = {found for name in names if (found := section_at(section, name)[0])}
    return {section}.union(*map(sections_below, inner))


def test_every_key_is_in_a_class() -> None:
    for section in set().union(*map(sections_below, KINDS)):
        names = {field.alias or name for name, field in section.model_fields.items()}
        leaves = {name for name in names if section_at(section, name)[0] is None}
        assert leaves <= set(classes_of(section)), f"{section.__name__}: give these a class in agapo/recipe/keys.py"
        assert set(classes_of(section)) <= names, f"{section.__name__} has no such keys"


def test_every_section_of_the_table_is_of_a_recipe() -> None:
    known = set().union(*map(sections_below, KINDS))
    assert all(any(issubclass(section, named) for section in known) for named in CLASSES)


@pytest.mark.parametrize(
    ("kind", "key", "expected"),
    [
        (RLRecipe, "reward.terms.0.weight", "identity"),
        (RLRecipe, "reward.terms.1.deadline_s", "later"),
        (RLRecipe, "algorithm.advantage.global", "identity"),
        (RLRecipe, "steps", "later"),
        (SFTRecipe, "steps", "identity"),
        (SFTRecipe, "data.sources.math.weight", "identity"),
        (SFTRecipe, "data.sources.math.limit", "identity"),
        (SFTRecipe, "training.micro_batch_rows", "free"),
        (SFTRecipe, "training.lora", "identity"),
        (RLRecipe, "learner.lora.alpha", "identity"),
        (SFTRecipe, "needle.reward.workers", "free"),
        (DPORecipe, "training.learning_rate", "later"),
        (EvalRecipe, "evaluation.chunk_prompts", "later"),
        (RLRecipe, "learner.gone", "identity"),
    ],
)
def test_a_key_is_found_in_its_section(kind: type[Recipe], key: str, expected: str) -> None:
    assert key_class(kind, key) == expected


def rl(folder: Path, **sections: Any) -> Recipe:
    return load(RLRecipe, run={"name": "small", "output": str(folder)}, **sections)


def test_a_later_key_counts_from_the_next_step_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = begin(rl(tmp_path), step=40)
    slower = rl(tmp_path, learner={"learning_rate": 5e-7, "micro_batch_tokens": 64})
    *_, last = reopen(slower)["history"]
    assert last["from_step"] == 41
    assert last["changes"] == [{"key": "learner.learning_rate", "old": 1e-6, "new": 5e-7}]
    assert "from step 41 on: learner.learning_rate: 1e-06 → 5e-07" in capsys.readouterr().out
    assert json.loads((path / "provenance.json").read_text())["fingerprint"] == fingerprint(slower)
    reopen(slower)
    assert "from step" not in capsys.readouterr().out, "said once"


def test_identity_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    path = begin(rl(tmp_path), step=40)
    before = (path / "recipe.yaml").read_text()
    with pytest.raises(UserError, match=r"run of another recipe \(rollout.temperature: 1.0 → 0.5\)"):
        reopen(rl(tmp_path, rollout={"temperature": 0.5}, learner={"learning_rate": 1e-3}))
    assert (path / "recipe.yaml").read_text() == before


def test_what_a_finished_run_was_made_with_does_not_change(tmp_path: Path) -> None:
    path = begin(rl(tmp_path), step=100)
    write_json_atomic(path / "summary.json", {"finished": True, "steps": 100})
    slower = {"learner": {"learning_rate": 5e-7}}
    with pytest.raises(UserError, match=r"a finished run of another recipe \(learner.learning_rate"):
        reopen(rl(tmp_path, **slower))
    with RunDirectory.open(rl(tmp_path, steps=50), Path("small.yaml")) as run:
        assert yaml.safe_load(run.recipe.read_text())["steps"] == 100
    reopen(rl(tmp_path, steps=200, **slower))


@pytest.mark.parametrize(
    ("before", "after", "fits"),
    [
        ({"ranks": 2}, {"ranks": 1}, True),
        ({"ranks": 2, "zero_stage": 1}, {"ranks": 1, "zero_stage": 1}, True),
        ({"ranks": 2, "zero_stage": 3}, {"ranks": 4, "zero_stage": 3}, True),
        ({"ranks": 2, "zero_stage": 1}, {"ranks": 4, "zero_stage": 2}, True),
        ({"ranks": 2, "zero_stage": 1}, {"ranks": 2, "zero_stage": 3}, False),
        ({"ranks": 2, "zero_stage": 1}, {"ranks": 2, "zero_stage": 0}, False),
        ({"ranks": 2, "zero_stage": 1}, {"ranks": 2, "zero_stage": 1, "offload": True}, False),
    ],
)
def test_a_sharded_checkpoint_goes_on_with_ranks_that_can_read_it(
    tmp_path: Path, before: Any, after: Any, fits: bool
) -> None:
    begin(rl(tmp_path, learner=before), step=None)
    reopen(rl(tmp_path, learner=after))
    reopen(rl(tmp_path, learner=before))
    begin(rl(tmp_path, learner=before), step=40)
    if fits:
        reopen(rl(tmp_path, learner=after))
        return
    with pytest.raises(UserError, match=r"checkpoint of step 40 .* go on with learner\.(zero_stage=1|offload=False)"):
        reopen(rl(tmp_path, learner=after))


def test_pairs_may_change_until_something_is_trained(tmp_path: Path) -> None:
    def dpo(**sections: Any) -> Recipe:
        return load(DPORecipe, run={"name": "small", "output": str(tmp_path)}, **sections)

    begin(dpo(), step=None)
    begin(dpo(pairs={"prompts": 99}, rollout={"group_size": 9}, training={"beta": 0.2}), step=3)
    with pytest.raises(UserError, match=r"pairs.prompts: 99 → 1024"):
        reopen(dpo(rollout={"group_size": 9}, training={"beta": 0.2}))


def test_a_stopped_evaluation_takes_any_recipe_and_a_finished_one_its_own(tmp_path: Path) -> None:
    def evaluation(green: float) -> Recipe:
        where = {"name": "small", "output": str(tmp_path)}
        return load(EvalRecipe, run=where, needle={"lengths": [64], "green": green})

    path = begin(evaluation(0.9), step=None)
    with RunDirectory.open(evaluation(0.8), Path("small.yaml")) as run:
        assert yaml.safe_load(run.recipe.read_text()) == resolved(evaluation(0.8))
    write_json_atomic(path / "summary.json", {"finished": True})
    with pytest.raises(UserError, match=r"needle.green: 0.8 → 0.9"):
        reopen(evaluation(0.9))
