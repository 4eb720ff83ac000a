"""`model.chat_template`: a base model asked in a template of its user's, in a folder that every part loads."""

import shutil
from pathlib import Path

import pytest
import yaml

from agapo.chat import prompt_ids
from agapo.errors import UserError
from agapo.model import templated
from agapo.model.loading import export_hf, load_model, load_tokenizer
from agapo.model.marks import form_mark, weights_mark
from agapo.model.templated import with_template
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe import RLRecipe, load_recipe
from agapo.schema import Prompt
from agapo.stages.running.start import keep_start, starting_model
from agapo.tracking import RunDirectory, lineage_of
from tests.builders import tiny_exaone

TEMPLATE = (
    "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model: weights and a tokenizer without a chat template."""
    folder = tmp_path_factory.mktemp("base") / "base"
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    export_hf(tiny_exaone(), tokenizer, folder)
    return folder


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jinja"
    path.write_text(TEMPLATE)
    return path


def test_a_base_model_gets_the_template_and_keeps_its_weights(base: Path, template: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no chat template; .*give model\.chat_template"):
        load_tokenizer(base)
    folder = with_template(str(base), template, tmp_path / "templated")
    tokenizer = load_tokenizer(folder)
    rendered = prompt_ids(tokenizer, Prompt("p", ({"role": "user", "content": "Hi"},), mode="non_reasoning"))
    assert tokenizer.decode(rendered) == f"<user>Hi{tokenizer.eos_token}<assistant>"
    assert weights_mark(Path(folder)) == weights_mark(base)
    for (name, one), (other_name, other) in zip(
        load_model(folder).named_parameters(), load_model(base).named_parameters(), strict=True
    ):
        assert name == other_name and one.equal(other)
    export_hf(load_model(folder), tokenizer, tmp_path / "exported")
    assert load_tokenizer(tmp_path / "exported").chat_template == TEMPLATE


def test_it_is_made_once_and_anew_where_the_template_changed_or_the_model_moved(
    base: Path, template: Path, tmp_path: Path
) -> None:
    place = tmp_path / "templated"
    first = Path(with_template(str(base), template, place))
    made = (first / "tokenizer_config.json").stat().st_mtime_ns
    assert Path(with_template(str(base), template, place)) == first
    assert (first / "tokenizer_config.json").stat().st_mtime_ns == made
    (first / "model.safetensors").unlink()
    (first / "model.safetensors").symlink_to(tmp_path / "gone")
    assert Path(with_template(str(base), template, place)) == first
    assert weights_mark(first) == weights_mark(base)
    template.write_text(TEMPLATE.replace("<", "("))
    assert Path(with_template(str(base), template, place)) != first
    assert len(list(place.iterdir())) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("{% for", "cannot be rendered"), ("{{ raise_exception('no') }}", "cannot be rendered: no"), (" ", "is empty")],
)
def test_what_is_no_template_is_refused(text: str, message: str, base: Path, template: Path, tmp_path: Path) -> None:
    template.write_text(text)
    with pytest.raises(UserError, match=rf"model\.chat_template: .*{message}"):
        with_template(str(base), template, tmp_path / "templated")
    assert not (tmp_path / "templated").exists()
    with pytest.raises(UserError, match=r"model\.chat_template: cannot read .*nothing\.jinja"):
        with_template(str(base), tmp_path / "nothing.jinja", tmp_path / "templated")


def test_a_model_made_anew_in_its_place_brings_its_own_tokenizer(base: Path, template: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(base, tmp_path / "model"))
    first = with_template(str(model), template, tmp_path / "templated")
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(model)
    second = with_template(str(model), template, tmp_path / "templated")
    assert "<new>" not in load_tokenizer(first).get_vocab()
    assert "<new>" in load_tokenizer(second).get_vocab()


def test_it_moves_with_its_project(base: Path, template: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(base, tmp_path / "old/outputs/sft/a/hf"))
    place = tmp_path / "old/outputs/templated"
    name = Path(with_template(str(model), template, place)).name
    before = form_mark(place / name)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = tmp_path / "new/outputs/templated" / name
    assert weights_mark(moved) == weights_mark(base)
    assert lineage_of(moved) == [{"model": str(tmp_path / "new/outputs/sft/a/hf")}]
    again = with_template(str(tmp_path / "new/outputs/sft/a/hf"), template, moved.parent)
    assert form_mark(Path(again)) == before, "and a run that began with it goes on"


def test_a_model_of_the_hub_without_safetensors_is_refused(
    base: Path, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fetched").mkdir()
    monkeypatch.setattr(templated, "load_tokenizer", lambda *_: load_tokenizer(base, TEMPLATE))
    monkeypatch.setattr(templated, "local_files", lambda _: tmp_path / "fetched")
    monkeypatch.setattr(templated, "model_folder", str)
    with pytest.raises(UserError, match=r"model\.chat_template: org/bin has no weights in \*\.safetensors files"):
        with_template("org/bin", template, tmp_path / "templated")


def test_a_recipe_with_one_starts_from_that_folder_and_its_lineage_is_the_models(
    base: Path, template: Path, tmp_path: Path
) -> None:
    content = {
        "steps": 1,
        "run": {"output": str(tmp_path / "outputs")},
        "model": {"path": str(base), "chat_template": str(template)},
        "data": {"source": "data.arithmetic:prompts"},
        "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe = load_recipe(RLRecipe, path)
    start = starting_model(recipe)
    assert Path(start).parent == tmp_path / "outputs/templated"
    assert lineage_of(start) == [{"model": str(base)}]
    with RunDirectory.open(recipe, path) as run:
        keep_start(run, start)
        (run.path / "metrics.jsonl").write_text("{}")
    template.write_text(TEMPLATE + " ")
    with pytest.raises(UserError, match=r"another recipe \(model\.chat_template: text \w+ → text \w+\)"):
        RunDirectory.open(recipe, path)
    (tmp_path / "other.jinja").write_text(TEMPLATE + " ")
    other = load_recipe(RLRecipe, path, [f"model.chat_template={tmp_path / 'other.jinja'}"])
    with pytest.raises(UserError, match=r"another recipe \(model\.chat_template: "):
        RunDirectory.open(other, path)
