"""docs/recipe_reference.md is what the schema says, and says something of every key."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import BaseModel

from agapo.recipe import RLRecipe
from agapo.recipe.keys import section_at
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
    found = rows(PAGE.read_text())
    assert len(found) > 200
    assert [key for key, meaning in found if not meaning] == []


def test_a_key_with_its_values_default_meaning_and_class() -> None:
    page = PAGE.read_text()
    assert "| `learning_rate` | float > 0 | `1e-06` | The peak, reached after the warm-up. | later |" in page
    assert "| `zero_stage` | `0`, `1`, `2`, `3` | `0` |" in page
    by_preset = "`batch` (agapo, reinforce++); `none` (grpo, dapo, rloo)"
    assert f"| `global` | `batch`, `none` | {by_preset} |" in page, "as a recipe writes it"
    assert "| `reward` | [reward](#reward) | **required** | How responses are judged. |  |" in page
    assert "several with weights. Stands at `prompts` (sft, eval), `data` (rl, dpo)." in page


@pytest.mark.parametrize("stage", STAGES)
def test_links_inside_the_page_lead_to_a_heading(stage: str) -> None:
    page = PAGE.read_text()
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


def settings() -> list[list[str]]:
    """The cells of each line of the tables of equivalent settings, without their heads."""
    text = (PAGE.parent / "first_day.md").read_text().split("## Settings that you know")[1].split("## Words")[0]
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| ") and "TRL" not in line]
    return [[cell.strip() for cell in line] for line in lines]


def is_key(dotted: str) -> bool:
    """Whether some stage's recipe has the key."""
    for recipe in STAGES.values():
        section: type[BaseModel] | None = recipe
        for name in dotted.split("."):
            known = section is not None and name in {field.alias or key for key, field in section.model_fields.items()}
            section = section_at(section, name)[0] if known and section else None
            if not known:
                break
        else:
            return True
    return False


def test_the_settings_that_are_said_to_be_ours_are() -> None:
    ours = [key for line in settings() for key in re.findall(r"`([\w.]+)[:`]", line[-1])]
    assert len(ours) > 50
    assert [key for key in ours if not is_key(key)] == []


def test_the_settings_that_are_said_to_be_trls_are() -> None:
    spec = find_spec("trl")
    assert spec and spec.origin
    folder = Path(spec.origin).parent
    hf = find_spec("transformers")
    assert hf and hf.origin
    sources = [*(folder / "trainer").glob("*_config.py"), folder / "scripts/utils.py"]
    text = "".join(path.read_text() for path in [*sources, Path(hf.origin).parent / "training_args.py"])
    theirs = [name for line in settings() for name in re.findall(r"`(\w+)[:`]", line[0])]
    assert len(theirs) > 35
    assert [name for name in theirs if not re.search(rf"^    {name}: ", text, re.MULTILINE)] == []
