"""`agapo check` on preference recipes, and where a recipe without a start starts from."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from agapo.errors import UserError
from agapo.model.loading import export_hf
from agapo.model.memory import GIB, training_memory
from agapo.model.tokenizer import build_tokenizer
from agapo.preflight import model as model_check
from agapo.preflight.check import check_recipe
from agapo.preflight.model import base_recipe, check_model, longest_sequence, model_sizes, setup_of
from agapo.recipe import DPORecipe, RLRecipe, load_recipe
from agapo.recipe.pairs import GuardsConfig
from agapo.stages.dpo.guards import guard_findings
from agapo.stages.running.start import keep_start, last_finished, starting_model
from agapo.tracking import RunDirectory, lineage_of
from tests.builders import tiny_exaone
from tests.conftest import finished_run

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes/dpo").glob("*.yaml"))
BIG = [path for path in RECIPES if not path.stem.startswith("tiny")]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *_: Any) -> None:
        raise UserError(f"model.path: cannot load the model '{path}'")

    monkeypatch.setattr(model_check, "load_config", refuse)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("path", BIG, ids=lambda path: path.stem)
def test_the_big_recipes_fit_their_gpus_and_contexts(path: Path) -> None:
    recipe = load_recipe(DPORecipe, path)
    sizes, _ = model_sizes(base_recipe(recipe))
    assert sizes is not None
    assert longest_sequence(recipe) <= sizes.context
    assert recipe.training.gpu_gib
    assert training_memory(sizes, setup_of(recipe, sizes)).gpu_bytes < 0.9 * recipe.training.gpu_gib * GIB
    rows = dict(check_model(recipe, base_recipe(recipe)))
    assert rows[f"a GPU of {recipe.training.gpu_gib:g} GiB"].startswith("fits")
    assert rows[f"sampling on {recipe.training.gpu_gib:g} GiB"].startswith("fits")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        # 256 rows of 6,144 tokens, of 61,440 bytes each, and 5 % more: 94.5 GiB; the weights and the rest, 3.5.
        (["rollout.chunk_prompts=32"], "does not fit: 19.0 GiB too much; rollout.chunk_prompts=8"),
        (["rollout.engine=vllm", "rollout.vllm.gpu_memory=0.03"], "does not fit: vLLM's share is 1.8 GiB too little"),
        (["rollout.engine=vllm"], "fits"),
    ],
)
def test_sampling_has_to_fit_too(overrides: list[str], said: str) -> None:
    recipe = load_recipe(DPORecipe, ROOT / "recipes/dpo/exaone4_1b_stage1.yaml", overrides)
    rows = dict(check_model(recipe, base_recipe(recipe)))
    assert rows["sampling on 79 GiB"].startswith(said)


@pytest.mark.usefixtures("no_hub")
def test_a_model_that_no_gpu_has_room_for_is_told_to_be_spread() -> None:
    overrides = ["rollout.engine=transformers", "rollout.gpus_per_actor=1", "rollout.vllm.tensor_parallel=1"]
    recipe = load_recipe(DPORecipe, ROOT / "recipes/dpo/qwen3_32b_stage1.yaml", [*overrides, "training.gpu_gib=60"])
    verdict = dict(check_model(recipe, base_recipe(recipe)))["sampling on 60 GiB"]
    assert verdict.endswith("rollout.engine=vllm with a vllm.tensor_parallel, or shorter responses would do")


@pytest.mark.usefixtures("no_hub")
def test_a_pair_is_two_sequences() -> None:
    recipe = load_recipe(DPORecipe, BIG[0], ["training.micro_batch_pairs=4"])
    sizes, _ = model_sizes(base_recipe(recipe))
    assert sizes
    setup = setup_of(recipe, sizes)
    assert (setup.micro_rows, setup.row_tokens) == (8, 2048 + 4096)
    crowded = load_recipe(DPORecipe, BIG[0], ["training.micro_batch_pairs=64", "model.gradient_checkpointing=false"])
    verdict = dict(check_model(crowded, base_recipe(crowded)))["a GPU of 79 GiB"]
    assert "does not fit" in verdict
    assert "training.micro_batch_pairs=1" in verdict


def test_the_whole_table_of_the_tiny_recipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    check_recipe(ROOT / "recipes/dpo/tiny.yaml", [], schema_only=False)
    shown = capsys.readouterr().out
    for part in (
        "prompts × 8",
        "concise",
        "simper",
        "every prompt and its response fit the context",
        "parameters in 4",
    ):
        assert part in shown


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.pairs_per_step=7", "training.ranks=2"], "pairs_per_step: 7 is not a multiple of ranks 2"),
        (["training.loss=dpo", "training.start_logprobs=false"], "start_logprobs: loss 'dpo' needs them"),
        (["model.path=Qwen/Qwen3-0.6B"], "give 'path' (a model) or 'start'"),
        (["model={}", "pairs.reuse={share: 0.2}"], "pairs.reuse: whose pairs?"),
        (["pairs.polcy=concise"], "pairs.polcy: unknown key; did you mean 'policy'?"),
        (["pairs.longer_by=1"], "pairs.longer_by: input should be greater than 1"),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(DPORecipe, ROOT / "recipes/dpo/tiny.yaml", overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- where a recipe starts that names no start ---


@pytest.fixture
def recipe(tmp_path: Path) -> DPORecipe:
    content = {
        "stage": "dpo",
        "data": {"source": "data.arithmetic:prompts"},
        "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_recipe(DPORecipe, path, [f"run.output={tmp_path}"])


def test_without_a_start_it_is_the_last_finished_run_of_the_stage_before(recipe: DPORecipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no finished RL run in .*; run 'agapo rl' first, or give model\.path"):
        last_finished(recipe)
    finished_run(tmp_path, "rl", "older", 20)
    newest = finished_run(tmp_path, "rl", "newer", 10)
    finished_run(tmp_path, "sft", "newest", 0)
    (tmp_path / "rl" / "unfinished").mkdir()
    assert starting_model(recipe) == str(newest / "hf")
    rl = RLRecipe.model_validate({**recipe.model_dump(include={"data", "reward", "run"}), "steps": 1})
    assert last_finished(rl).name == "newest"


def test_a_run_that_goes_on_keeps_its_start_and_each_says_why(
    recipe: DPORecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = finished_run(tmp_path, "rl", "first", 20)
    with RunDirectory.open(recipe, tmp_path / "mine.yaml") as run:
        keep_start(run, starting_model(recipe))
    assert f"dpo: starts from {first / 'hf'} (the last finished RL run there is; model.path" in capsys.readouterr().out
    finished_run(tmp_path, "rl", "later", 0)
    assert starting_model(recipe) == str(first / "hf")
    assert f"dpo: starts from {first / 'hf'} (this run began with it)" in capsys.readouterr().out
    given = load_recipe(DPORecipe, tmp_path / "mine.yaml", [f"run.output={tmp_path}", "model.path=some/model"])
    assert starting_model(given) == "some/model"
    assert "dpo: starts from some/model (model.path)" in capsys.readouterr().out


def test_other_weights_in_the_same_place_are_another_start(recipe: DPORecipe, tmp_path: Path) -> None:
    hf = finished_run(tmp_path, "rl", "first", 20) / "hf"
    (hf / "model.safetensors").write_bytes(bytes(100_000))
    with RunDirectory.open(recipe, tmp_path / "mine.yaml") as run:
        keep_start(run, str(hf))
        keep_start(run, str(hf))
        (hf / "model.safetensors").write_bytes(bytes(50_000) + b"1" * 5_000 + bytes(45_000))
        with pytest.raises(UserError, match=r"holds other weights than when the run in .* began; name a new run"):
            keep_start(run, str(hf))


def test_what_was_sampled_can_be_paired_otherwise_until_training_begins(recipe: DPORecipe, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with RunDirectory.open(recipe, path) as run:
        (run.path / "responses.jsonl").write_text("")
    others = {
        key: load_recipe(DPORecipe, path, [f"run.output={tmp_path}", override])
        for key, override in {"training": "training.epochs=2", "rollout": "rollout.temperature=0.5"}.items()
    }
    with RunDirectory.open(others["training"], path) as run:
        assert run.resumed
        assert yaml.safe_load(run.recipe.read_text())["training"]["epochs"] == 2
    with pytest.raises(UserError, match=r"another recipe \(rollout.temperature: 1.0 → 0.5"):
        RunDirectory.open(others["rollout"], path)
    (run.checkpoints / "step_5").mkdir(parents=True)
    with pytest.raises(UserError, match=r"another recipe \(training.epochs: 2.0 → 1.0\)"):
        RunDirectory.open(recipe, path)


def test_the_lineage_goes_back_to_the_first_model(tmp_path: Path) -> None:
    after = {"measures": {"after": {"reasoning": {"accuracy": 0.5}}}}
    sft = finished_run(tmp_path, "sft", "a", 2, parent="org/model", seed=3, **after)
    way = lineage_of(sft / "hf")
    assert [entry.get("stage") for entry in way] == [None, "sft"]
    assert way[0] == {"model": "org/model"}
    assert (way[1]["run"], way[1]["seed"], way[1]["measures"]) == ("a", 3, {"reasoning": {"accuracy": 0.5}})
    rl = finished_run(tmp_path, "rl", "b", 1, parent=str(sft / "hf"), lineage=way)
    assert [entry.get("stage") for entry in lineage_of(rl / "hf")] == [None, "sft", "rl"]
    assert lineage_of(None) == []


def test_a_model_without_our_run_is_an_entry_alone(tmp_path: Path) -> None:
    export_hf(tiny_exaone(), build_tokenizer(), tmp_path / "hf")
    assert lineage_of(tmp_path / "hf") == [{"model": str(tmp_path / "hf")}]


# --- guards ---


def found(accuracy: float, tokens: float, thinks: float) -> dict[str, Any]:
    return {"measures": {"reasoning": {"accuracy": accuracy, "tokens": tokens}}, "thinking": {"reasoning": thinks}}


@pytest.mark.parametrize(
    ("after", "drift", "tripped"),
    [
        (found(0.9, 50, 1.0), [0.0, 0.1], []),
        (found(0.89, 60, 0.995), [-0.4] * 10, []),
        (found(0.88, 50, 1.0), [], []),
        (found(0.87, 50, 1.0), [], ["accuracy lost, reasoning"]),
        (found(0.9, 80, 1.0), [], ["length grown, reasoning"]),
        (found(0.9, 50, 0.9), [], ["mode not obeyed, reasoning"]),
        (found(0.9, 50, 1.0), [0.0] * 90 + [-0.8] * 10, ["chosen less likely, nats a token"]),
        # At the end it counts, not on the way.
        (found(0.9, 50, 1.0), [-0.8] * 50 + [0.0] * 50, []),
    ],
)
def test_guards_trip_where_something_went_too_far(after: Any, drift: list[float | None], tripped: list[str]) -> None:
    findings = guard_findings(GuardsConfig(), found(0.9, 50, 1.0), after, drift)
    assert [item["guard"] for item in findings if not item["ok"]] == tripped
