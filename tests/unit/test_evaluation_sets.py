"""`evaluation.sets`: more questions to measure on, which are not trained on."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from agapo.errors import UserError
from agapo.evaluation.questions import Part, Questions, load_sets, without_asked
from agapo.evaluation.rendering import make_renderer
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe import RLRecipe, load_recipe
from agapo.schema import Prompt
from tests.builders import tiny_exaone


def prompt(text: str) -> Prompt:
    return Prompt(text, ({"role": "user", "content": text},))


def recipe(tmp_path: Path, **sets: Any) -> RLRecipe:
    content = {
        "steps": 1,
        "model": {"path": "some/model"},
        "data": {"source": "data.arithmetic:prompts", "max_prompt_tokens": 32},
        "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
        "rollout": {"max_new_tokens": 8},
        "evaluation": {"test_size": 2, "sets": sets},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_recipe(RLRecipe, path)


def test_each_set_is_read_up_to_the_size_and_checked(tmp_path: Path) -> None:
    given = {"source": "tests.fakes.questions:prompts"}
    render, config = make_renderer(build_tokenizer()), tiny_exaone().config
    found = load_sets(recipe(tmp_path, few=given | {"args": {"size": 1}}, many=given), render, config)
    texts = {name: [item.messages[0]["content"] for item in prompts] for name, prompts in found.items()}
    assert texts == {"few": ["other 0?"], "many": ["other 0?", "other 1?"]}
    with pytest.raises(UserError, match=r"evaluation\.sets\.none\.source: tests\.fakes\.questions:prompts has no test"):
        load_sets(recipe(tmp_path, none=given | {"args": {"size": 0}}), render, config)


@pytest.mark.parametrize("name", ["reasoning", "reward", "a/b", "validation", "test"])
def test_names_of_figures_are_no_names_of_sets(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"evaluation\.sets: '{name}' cannot be a set's name"):
        recipe(tmp_path, **{name: {"source": "tests.fakes.questions:prompts"}})


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("evaluation.every=0", r"evaluation: sets: are measured every 'every' steps, and with 0 never; raise it or"),
        ("evaluation.sets.one.weight=2", r"evaluation\.sets\.one\.weight: unknown key"),
    ],
)
def test_what_would_do_nothing_is_refused(override: str, says: str, tmp_path: Path) -> None:
    recipe(tmp_path, one={"source": "tests.fakes.questions:prompts"})
    with pytest.raises(UserError, match=says):
        load_recipe(RLRecipe, tmp_path / "mine.yaml", [override])


def test_what_is_asked_in_a_set_is_not_trained_on() -> None:
    part = Part([prompt("a"), prompt("b"), prompt("c")], [prompt("v")], [prompt("t")], 1, 1.0)
    left = without_asked(Questions({"own": part}), {"one": [prompt("b")], "two": [prompt("x"), prompt("v")]})
    assert [item.id for item in left.train] == ["a", "c"]
    assert (left.validation, left.test, left.overlap) == (part.validation, part.test, 2)
    with pytest.raises(UserError, match=r"evaluation\.sets: every training question of 'own' is asked in a set"):
        without_asked(Questions({"own": part}), {"all": part.train})
