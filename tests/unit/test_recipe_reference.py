"""docs/recipe_reference.md is what the schema says, and says something of every key."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from agapo.recipe import RLRecipe
from agapo.recipe.learner import LearnerConfig
from agapo.recipe.reference import STAGES, meanings, reference
from agapo.recipe.trainer import PreferenceTrainingConfig

PAGE = Path(__file__).parents[2] / "docs/recipe_reference.md"


def rows(page: str) -> list[tuple[str, str]]:
    """(key, meaning) of each line of a table."""
    return re.findall(r"^\| `([\w-]+)` \| .* \| .* \| (.*) \| (?:no|later|yes|) \|$", page, re.MULTILINE)


def test_the_page_is_what_the_schema_says() -> None:
    mend = "python -m agapo.recipe.reference > docs/recipe_reference.md"
    assert PAGE.read_text() == reference(), f"the page is an old one: {mend}"


def test_every_key_has_a_meaning() -> None:
    found = rows(reference())
    assert len(found) > 200
    assert [key for key, meaning in found if not meaning] == []


def test_a_key_with_its_values_default_meaning_and_class() -> None:
    page = reference()
    assert "| `learning_rate` | float > 0 | `1e-06` | The peak, reached after the warm-up. | later |" in page
    assert "| `zero_stage` | `0`, `1`, `2`, `3` | `0` |" in page
    assert "| `global` | `batch`, `none` | `batch` |" in page, "as a recipe writes it"
    assert "| `reward` | [reward](#reward) | **required** | How responses are judged. |  |" in page
    assert "several with weights. Stands at `prompts` (sft, eval), `data` (rl, dpo)." in page


@pytest.mark.parametrize("stage", STAGES)
def test_links_inside_the_page_lead_to_a_heading(stage: str) -> None:
    page = reference()
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    part = page.split(f"## stage: {stage}\n")[1].split("\n## ")[0]
    links = re.findall(r"\]\(#([^)]*)\)", part)
    assert links and set(links) <= headings


def test_meanings_are_those_of_the_class_and_of_what_it_extends() -> None:
    assert meanings(PreferenceTrainingConfig)["ranks"] == "Data-parallel ranks."
    assert meanings(RLRecipe)["model"].startswith("Without `path` and `start`")
    assert meanings(LearnerConfig).keys() <= LearnerConfig.model_fields.keys()
    assert meanings(BaseModel) == {}
