"""`agapo check` finds what a run would: columns, folders, starts, foreign pairs, GPUs; and what is printed to paste."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from agapo.errors import UserError
from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.preflight import machine
from agapo.preflight.check import check_recipe
from agapo.preflight.machine import machine_warnings
from agapo.recipe import RLRecipe, SFTRecipe, load_recipe
from agapo.resolve import resolve
from agapo.stages.curate import run_curate
from agapo.stages.pasted import only_source
from tests.builders import tiny_exaone

ROOT = Path(__file__).parents[2]
TINY = {stage: ROOT / f"recipes/{stage}/tiny.yaml" for stage in ("sft", "rl", "dpo", "eval")}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    export_hf(tiny_exaone(), build_tokenizer(), tmp_path / "hf")
    return tmp_path / "hf"


def test_a_column_that_no_row_has() -> None:
    term = "reward.terms.0.function=tests.fakes.rewards:needs_gold"
    with pytest.raises(UserError, match=r"reads the column 'gold', which no question has \(they have answer"):
        check_recipe(TINY["rl"], [term], schema_only=False)


@pytest.mark.parametrize("stage", ["rl", "dpo", "eval"])
def test_a_model_folder_that_is_not_there(stage: str, tmp_path: Path) -> None:
    missing = [f"model.path={tmp_path / 'nowhere'}", "model.start=null"]
    with pytest.raises(UserError, match="nowhere: no such folder"):
        check_recipe(TINY[stage], missing, schema_only=False)


NO_SET = "evaluation.sets={mine: {source: 'data.files:prompts', path: /nope}}"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.chat_template=/nope.jinja", r"model\.chat_template: cannot read /nope\.jinja"),
        ("model.chat_template=LICENSE.jinja", r"model\.chat_template: cannot be rendered"),
        (NO_SET, "/nope"),
        (
            "reward.terms.0.function=tests.fakes.raises_on_import:score",
            r"raises_on_import\.py:3: ZeroDivisionError: mi",
        ),
    ],
)
def test_files_that_are_not_there_or_not_right(override: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "LICENSE.jinja").write_text("{{ nothing.at.all }}")
    override = override.replace("LICENSE", str(tmp_path / "LICENSE"))
    with pytest.raises(UserError, match=says):
        check_recipe(TINY["rl"], [override], schema_only=False)


def test_questions_of_an_evaluation_that_are_not_there(model: Path) -> None:
    given = [f"model.path={model}", "prompts={source: 'data.files:prompts', path: /nope}"]
    with pytest.raises(UserError, match="/nope"):
        check_recipe(TINY["eval"], given, schema_only=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def score(:", r"mine_0\.py:1: SyntaxError: "),
        ("import nowhere", r"mine_1\.py:1: No module named 'nowhere'"),
        ("x = 1\nscore = nothing", r"mine_2\.py:2: NameError: name 'nothing' is not defined$"),
    ],
)
def test_a_reward_with_a_mistake_is_told_in_a_line(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = says.split("\\")[0]
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=says) as caught:
        resolve(f"{name}:score", key="reward.terms.0.function")
    assert "\n" not in str(caught.value)


def test_of_two_starts_the_path_wins(model: Path) -> None:
    recipe = load_recipe(RLRecipe, TINY["rl"], [f"model.path={model}", f"model.start={TINY['sft']}"])
    assert any(line.startswith(f"model.path {model} wins over model.start") for line in machine_warnings(recipe))


def test_gpus_that_are_not_there_or_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["learner.ranks=1", "learner.gpus_per_rank=1", "rollout.gpus_per_actor=1", "rollout.actors=2"]
    few = load_recipe(RLRecipe, TINY["rl"], asked)
    monkeypatch.setattr(machine, "local_gpus", lambda: 2)
    assert [line.split(": ")[1] for line in machine_warnings(few)] == ["3 GPUs are asked for, and this machine has 2"]
    assert "this machine's 2 GPUs would have nothing to do" in next(
        machine_warnings(load_recipe(SFTRecipe, TINY["sft"]))
    )
    monkeypatch.setattr(machine, "local_gpus", lambda: 3)
    assert not list(machine_warnings(few))


def test_pairs_of_another_tokenizer(model: Path, tmp_path: Path) -> None:
    row = {"id": "p", "mode": "non_reasoning", "domain": "math", "language": "en", "kind": "incorrect"}
    ids = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4], "chosen_tokens": 1, "rejected_tokens": 1}
    texts = {"prompt": [{"role": "user", "content": "2?"}], "chosen": "4", "rejected": "5"}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({**row, **ids, **texts}) + "\n")
    given = [f"model.path={model}", "model.start=null", f"pairs.reuse.path={path}"]
    with pytest.raises(UserError, match="made with another tokenizer or chat template"):
        check_recipe(TINY["dpo"], given, schema_only=False)
    with pytest.raises(UserError, match=r"gone\.jsonl: no such file"):
        check_recipe(TINY["dpo"], [*given[:2], f"pairs.reuse.path={tmp_path / 'gone.jsonl'}"], schema_only=False)


def test_what_curate_prints_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tiny recipe's source has arguments that the written file's source does not take."""
    out = tmp_path / "kept rows" / "train.jsonl"
    recipe = load_recipe(SFTRecipe, TINY["sft"], ["data.args.phases=[{size: 40}]"])
    run_curate(recipe, explain=False, out=out, samples=0)
    (pasted,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("To train on them: "))
    overrides = shlex.split(pasted.removeprefix("To train on them: "))
    check_recipe(TINY["sft"], [*overrides, "steps=4"], schema_only=False)
    assert load_recipe(SFTRecipe, ROOT / "recipes/sft/tiny_domains.yaml", overrides).data.path == out.parent


def test_what_filter_prints_can_be_pasted(tmp_path: Path) -> None:
    """Behind recipes with arguments, and with a mixture."""
    overrides = shlex.split(only_source("data.files:prompts", tmp_path))
    for name in ("tiny", "tiny_mixed"):
        own = load_recipe(RLRecipe, ROOT / f"recipes/rl/{name}.yaml", overrides).data
        assert (own.args, own.sources, own.path) == ({}, {}, tmp_path)


@pytest.mark.parametrize(
    ("function", "reads"),
    [
        ("rewards.unit_tests:score", "test, entry_point, "),
        ("rewards.instructions:score", "instruction_id_list, kwargs, "),
    ],
)
def test_a_reward_that_would_never_have_a_verdict(
    function: str, reads: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It could be called, since it takes rows without its columns; the data has none with them."""
    check_recipe(TINY["rl"], [f"reward={{terms: [{{name: mine, function: '{function}'}}]}}"], schema_only=False)
    said = " ".join(capsys.readouterr().out.split())
    assert f"reward 'mine': '{function}' reads {reads}" in said
    assert "and no question has any of them (they have answer" in said


SETS = "evaluation.sets={long: {source: 'data.files:prompts', path: ROWS}}"


@pytest.mark.parametrize(
    ("stage", "overrides", "key"),
    [
        ("sft", ["prompts={source: 'data.files:prompts', path: ROWS, max_prompt_tokens: 99}"], "prompts"),
        ("eval", ["prompts={source: 'data.files:prompts', path: ROWS, max_prompt_tokens: 99}", "MODEL"], "prompts"),
        # The limits of these are the recipe's own.
        ("rl", [SETS, "data.max_prompt_tokens=99"], "data"),
    ],
)
def test_questions_that_are_too_long(stage: str, overrides: list[str], key: str, model: Path, tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "1+1? " * 60}], "answer": "2"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    given = [one.replace("MODEL", f"model.path={model}").replace("ROWS", str(tmp_path)) for one in overrides]
    with pytest.raises(UserError, match=rf"^{key}\.max_prompt_tokens: prompt '.*' has \d+ tokens, more than 99; raise"):
        check_recipe(TINY[stage], given, schema_only=False)


def test_of_two_starts_that_of_the_path_is_looked_at(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its context of 256 tokens is shorter than that of the model which `model.start` would make."""
    check_recipe(TINY["rl"], [f"model.path={model}"], schema_only=False)
    assert f"fit the context of the model ({model})" in capsys.readouterr().out
    with pytest.raises(UserError, match="exceed the model's context of 256"):
        check_recipe(TINY["rl"], [f"model.path={model}", "rollout.max_new_tokens=250"], schema_only=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def check():\n    {}['key']", r"its module's check\(\) fails: .*own_check\.py:2: KeyError: 'key'"),
        ("raise SystemExit('bye')", r"own_check\.py:1: SystemExit: bye"),
    ],
)
def test_whatever_a_reward_of_ones_own_raises_is_told_in_a_line(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_check.py").write_text(f"{text}\n\ndef score(prompts, completions, **columns):\n    return [1.0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_check", raising=False)
    with pytest.raises(UserError, match=rf"reward\.terms\.0\.function: .*{says}$"):
        check_recipe(TINY["rl"], ["reward.terms.0.function=own_check:score"], schema_only=False)
