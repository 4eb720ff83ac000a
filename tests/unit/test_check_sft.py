"""`agapo check` on SFT recipes: what it says of batches, dialogues, contexts and memory; the big recipes fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from agapo.errors import UserError
from agapo.model.loading import create_model, export_hf
from agapo.model.memory import GIB, training_memory
from agapo.model.tokenizer import build_tokenizer
from agapo.preflight import model as model_check
from agapo.preflight.check import check_recipe
from agapo.preflight.model import base_recipe, memory_rows, model_sizes, setup_of
from agapo.preflight.sft import arithmetic, check_dialogues, check_fine_tuning, look_at
from agapo.recipe import SFTRecipe, load_recipe
from agapo.stages.sft.data import training_data

ROOT = Path(__file__).parents[2]
BIG = sorted(path for path in (ROOT / "recipes/sft").glob("*.yaml") if not path.stem.startswith("tiny"))
TINY = ROOT / "recipes/sft/tiny.yaml"
REWARD = {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    # Set where there is no network, and not to outlive a test.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *_: Any) -> None:
        raise UserError(f"model.path: cannot load the model '{path}'")

    monkeypatch.setattr(model_check, "load_config", refuse)
    monkeypatch.setattr(model_check, "load_tokenizer", refuse)


def dialogue(mode: str, answer: str = "4", **columns: Any) -> dict[str, Any]:
    thinking = {"reasoning_content": "two and two"} if mode == "reasoning" else {}
    turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": answer, **thinking}]
    return {"messages": turns, "mode": mode, "domain": "math", "language": "en", **columns}


@pytest.fixture
def recipe_of(tmp_path: Path) -> Any:
    """Returns a recipe on rows that are written to a file."""

    def make(rows: list[Any], **sections: Any) -> SFTRecipe:
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"source": "data.files:dialogues", "path": str(data)}
        content = {
            "stage": "sft",
            "steps": 100,
            "model": {},
            "create": {},
            "data": {"sources": {"mine": source}, **sections.pop("data", {})},
            "prompts": {"source": "data.arithmetic:prompts"},
            "reward": REWARD,
            **sections,
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content))
        return load_recipe(SFTRecipe, path)

    return make


def test_the_whole_table_of_the_tiny_recipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    check_recipe(TINY, [], schema_only=False)
    shown = capsys.readouterr().out
    for text in (
        "512 test",
        "8 packed rows × 128 = 1,024 tokens at most; ranks × rows × micro-batches: 1 × 8 × 1",
        "1,390 steps, 1,423,360 tokens at most",
        "300 rows looked at: reasoning 175, non_reasoning 125; math; en 300; tokens: median 43",
        "made by this recipe: 532,",
        "4,096 tokens: a sequence as long as the recipe allows (128) fits",
        "about 0.2 GiB at most",
    ):
        assert text in shown
    assert "warning" not in shown


def test_arithmetic_of_ranks_and_micro_batches() -> None:
    overrides = ["training.rows_per_step=24", "training.ranks=3", "training.micro_batch_rows=2", "steps=50"]
    rows = dict(arithmetic(load_recipe(SFTRecipe, TINY, overrides)))
    assert rows["a step"].endswith(
        "24 packed rows × 128 = 3,072 tokens at most; ranks × rows × micro-batches: 3 × 2 × 4"
    )
    assert rows["the run"] == "50 steps, 153,600 tokens at most"


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        (
            ["steps=20", "checkpoint.every=5"],
            "training.warmup_steps 20: the whole run of 20 steps is warm-up; lower it",
        ),
        (["steps=40"], "checkpoint.every 50: a run of 40 steps saves none to go on from"),
        (["training.zero_stage=2"], "training.zero_stage 2: one rank has nothing to shard over; 0 does the same"),
    ],
)
def test_odd_schedules_are_warned_of(overrides: list[str], warning: str) -> None:
    assert ("warning", warning) in arithmetic(load_recipe(SFTRecipe, TINY, overrides))


def test_epochs_leave_the_steps_to_the_data() -> None:
    rows = dict(arithmetic(load_recipe(SFTRecipe, TINY, ["steps=null", "epochs=1.5"])))
    assert rows["the run"] == "1.5 times the trained tokens of the dialogues; steps follow from them"


def test_lengths_and_what_is_longer_than_a_row(recipe_of: Any) -> None:
    rows = [
        dialogue("non_reasoning"),
        dialogue("non_reasoning"),
        dialogue("reasoning"),
        dialogue("reasoning", "4" * 200),
    ]
    recipe = recipe_of(rows, data={"overlong": "truncate"}, training={"row_tokens": 64}, steps=1)
    rows = check_dialogues(recipe, build_tokenizer())
    assert rows[0][0] == "data: mine"
    assert rows[0][1].startswith("4 rows looked at: non_reasoning 2, reasoning 2; math; en 4; tokens: median ")
    assert rows[0][1].endswith("; 25.0% longer than a row (truncate)")
    longest = max(look_at(recipe, "mine", build_tokenizer()).lengths)
    warning = (
        "data: 25.0% of the dialogues are longer than training.row_tokens 64 and cut; raise it (the longest has "
        f"{longest}), or set data.overlong to drop"
    )
    assert rows[1:] == [("warning", warning)]


def test_a_run_warns_of_what_is_too_long_and_of_nothing_but_warm_up(recipe_of: Any, tmp_path: Path) -> None:
    rows = [dialogue("non_reasoning"), dialogue("non_reasoning", "5"), dialogue("reasoning", "4" * 200)]
    recipe = recipe_of(rows, training={"row_tokens": 64}, steps=None, epochs=1)
    warnings = training_data(recipe, build_tokenizer(), tmp_path / "run").warnings
    assert warnings[-2:] == [
        "training.warmup_steps 20: the whole run of 1 steps is warm-up; lower it",
        "data: 33.3% of the dialogues are longer than training.row_tokens 64 and left out; raise it, or set "
        "data.overlong to truncate",
    ]


def test_defaults_follow_from_where_the_weights_come(tmp_path: Path) -> None:
    def training(**content: Any) -> tuple[float, int]:
        own = SFTRecipe.model_validate({"steps": 1, "data": {"source": "a:b"}, **content}).training
        return own.learning_rate, own.row_tokens

    pretrained = {"model": {"path": "some/model"}}
    assert training(model={}, create={}) == (5e-3, 128)
    assert training(**pretrained) == (2e-5, 2048)
    assert training(**pretrained, training={"lora": {}}) == (2e-4, 2048)
    assert training(**pretrained, training={"learning_rate": 1e-4, "row_tokens": 64}) == (1e-4, 64)
    with pytest.raises(ValueError, match="'prompts' and 'reward' go together"):
        training(**pretrained, reward=REWARD)


def test_a_mix_that_does_not_fit_the_rows_is_warned_of(recipe_of: Any) -> None:
    mix = {"modes": {"reasoning": 1, "non_reasoning": 1}, "domains": {"code": 1}}
    rows = check_dialogues(recipe_of([dialogue("reasoning")], data={"mix": mix}), None)
    assert rows[0] == ("data: mine", "1 rows looked at: reasoning 1; math; en 1; tokens not looked at")
    assert [text for name, text in rows if name == "warning"] == [
        "data.mix.modes: no dialogue of the sample is 'non_reasoning'",
        "data.mix.domains (in reasoning): dialogues are 'math', which has no share; add it (0 leaves out)",
        "data.mix.domains (in reasoning): no dialogue of the sample is 'code'",
    ]


def test_a_row_that_would_be_most_of_the_training_is_warned_of_as_in_the_run(recipe_of: Any, tmp_path: Path) -> None:
    rows = [dialogue("reasoning"), *(dialogue("non_reasoning", f"It is {n}.") for n in range(200))]
    for sections in ({"steps": 3}, {"steps": 100}, {"steps": 3, "data": {"mix": {"modes": {"reasoning": 1.0}}}}):
        recipe = recipe_of(rows[: 1 if "data" in sections else None], training={"row_tokens": 96}, **sections)
        found = [text for name, text in check_dialogues(recipe, build_tokenizer()) if name == "warning"]
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        assert found == training_data(recipe, build_tokenizer(), folder).warnings
        assert found
    many = [*rows, *(dialogue("non_reasoning", f"It is {n}.") for n in range(200, 400))]
    found = check_dialogues(recipe_of(many), build_tokenizer())
    assert "first 300 rows: data.mix.modes: 'reasoning' has" in dict(found)["warning"]


def test_malformed_rows_are_refused_by_line_or_counted(recipe_of: Any) -> None:
    rows = [dialogue("reasoning"), dialogue("non_reasoning", "")]
    with pytest.raises(UserError, match=r"rows\.jsonl:2: .*turn is empty"):
        check_dialogues(recipe_of(rows), None)
    assert "1 malformed rows are left out" in check_dialogues(recipe_of(rows, data={"malformed": "drop"}), None)[0][1]


def test_a_set_that_cannot_be_reached_is_not_looked_at(recipe_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    public = {"source": "data.world_knowledge:public"}
    recipe = recipe_of([], data={"sources": {"chats": public}})
    found = "data.source: cannot load 'HuggingFaceTB/smoltalk' from the hub (no network); set data.path to a file"
    assert check_dialogues(recipe, None) == [("data: chats", f"not looked at: {found}")]


def test_rows_longer_than_the_context_are_warned_of(recipe_of: Any) -> None:
    recipe = recipe_of([dialogue("reasoning")], training={"row_tokens": 8192}, create={"max_position_embeddings": 4096})
    text = "training.row_tokens 8,192: sequences may be longer than the context 4,096; lower it, "
    assert ("warning", f"{text}or stretch the context with model.rope") in check_fine_tuning(recipe)
    stretched = ["model.rope={type: linear, factor: 2}"]
    base = base_recipe(load_recipe(SFTRecipe, TINY, stretched))
    sizes, _ = model_sizes(base)
    assert sizes and sizes.context == 8192


def test_a_model_in_a_folder_is_read(recipe_of: Any, tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    model = create_model(tokenizer, seed=0, layers=2)
    export_hf(model, tokenizer, tmp_path / "model")
    about = {"path": str(tmp_path / "model"), "rope": {"type": "linear", "factor": 2}}
    recipe = recipe_of([dialogue("reasoning"), dialogue("non_reasoning")] * 150, create=None, model=about)
    rows = dict(check_fine_tuning(recipe))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert rows["model"] == f"{tmp_path / 'model'}: {count:,} parameters in 2 layers"
    assert rows["context"] == "8,192 tokens: a sequence as long as the recipe allows (2,048) fits"
    assert "; tokens: median " in rows["data: mine"]
    assert "warning" not in rows


def test_a_needle_beyond_the_context_is_refused(recipe_of: Any) -> None:
    recipe = recipe_of([dialogue("reasoning")], needle={"lengths": [1024, 65536]})
    with pytest.raises(UserError, match=r"needle\.lengths: 65536 tokens .* exceed the model's context of 4096"):
        check_fine_tuning(recipe)


def test_flash_attention_wants_one_row_at_once() -> None:
    overrides = ["model.attention=flash_attention_2", "training.micro_batch_rows=2"]
    with pytest.raises(
        UserError, match=r"training\.micro_batch_rows: should be 1 with model\.attention flash_attention_2"
    ):
        load_recipe(SFTRecipe, TINY, overrides)
    load_recipe(SFTRecipe, TINY, ["model.attention=flash_attention_2", "training.micro_batch_rows=1"])


def test_a_ring_of_starts_is_refused(recipe_of: Any, tmp_path: Path) -> None:
    recipe = recipe_of([], create=None, model={"start": str(tmp_path / "recipe.yaml")})
    with pytest.raises(UserError, match=r"model\.start: .*recipe\.yaml starts, in the end, from itself"):
        base_recipe(recipe)


def verdict(path: Path, *overrides: str) -> str:
    recipe = load_recipe(SFTRecipe, path, list(overrides))
    sizes, _ = model_sizes(base_recipe(recipe))
    assert sizes
    return dict(memory_rows(recipe, sizes))[f"a GPU of {recipe.training.gpu_gib:g} GiB"]


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("path", BIG, ids=lambda path: path.stem)
def test_the_big_recipes_fit_their_gpus_and_contexts(path: Path) -> None:
    recipe = load_recipe(SFTRecipe, path)
    assert verdict(path).startswith("fits, with ")
    sizes, where = model_sizes(base_recipe(recipe))
    assert sizes and recipe.training.row_tokens <= sizes.context
    assert "not reached; sizes as published" in where
    assert not [text for name, text in arithmetic(recipe) if name == "warning"]


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("exaone4_1b_lora", 8.3),
        ("exaone4_1b", 30.9),
        ("exaone4_1b_8gpu", 53.7),
        ("exaone4_32b", 63.0),
        ("exaone4_128k", 43.6),
        ("qwen3_1.7b", 39.2),
        ("qwen3_0.6b", 15.7),
        ("qwen3_8b", 48.6),
        ("qwen3_8b_lora", 28.5),
        ("qwen3_8b_qlora", 11.3),
        ("exaone4_32b_lora", 33.7),
        ("qwen3_32b", 65.4),
    ],
)
def test_the_estimates_of_the_big_recipes(name: str, gib: float) -> None:
    recipe = load_recipe(SFTRecipe, ROOT / f"recipes/sft/{name}.yaml")
    sizes, _ = model_sizes(base_recipe(recipe))
    assert sizes
    assert training_memory(sizes, setup_of(recipe, sizes)).gpu_bytes / GIB == pytest.approx(gib, abs=0.05)


OVERRIDES = [
    ("qwen3_1.7b", ["training.lora={rank: 32, alpha: 64}", "training.learning_rate=2e-4", "training.gpu_gib=23"]),
    ("qwen3_1.7b", ["training.ranks=8", "training.zero_stage=2", "training.rows_per_step=64", "rollout.actors=8"]),
    ("exaone4_1b_8gpu", ["training.ranks=16", "training.rows_per_step=128", "steps=1000", "rollout.actors=16"]),
    ("exaone4_32b", ["training.ranks=8", "training.offload=true"]),
    ("exaone4_32b", ["training.ranks=32"]),
    ("qwen3_32b", ["training.ranks=8", "training.offload=true"]),
    ("qwen3_32b", ["training.ranks=32"]),
    ("qwen3_8b", ["training.ranks=16", "rollout.actors=16"]),
    (
        "qwen3_0.6b",
        [
            *("training.ranks=8", "training.zero_stage=2", "training.rows_per_step=64", "rollout.actors=8"),
            "training.gpu_gib=79",
        ],
    ),
]


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(("name", "overrides"), OVERRIDES)
def test_what_the_comments_of_recipes_propose_fits(name: str, overrides: list[str]) -> None:
    path = ROOT / f"recipes/sft/{name}.yaml"
    comment = path.read_text().partition("stage:")[0]
    assert all(override in comment for override in overrides)
    assert verdict(path, *overrides).startswith("fits, with ")


@pytest.mark.usefixtures("no_hub")
def test_what_does_not_fit_says_what_would() -> None:
    big, small = ROOT / "recipes/sft/exaone4_32b.yaml", ROOT / "recipes/sft/exaone4_1b.yaml"
    assert verdict(big, "training.ranks=8") == (
        "does not fit: 19.2 GiB too much; any of these would do: training.offload=true"
    )
    single = verdict(small, "training.gpu_gib=50", "model.gradient_checkpointing=false")
    assert single.endswith("any of these would do: model.gradient_checkpointing=true")
    both = verdict(big, "training.ranks=8", "training.zero_stage=1", "model.gradient_checkpointing=false")
    assert both.endswith(
        "together these would do: model.gradient_checkpointing=true, training.zero_stage=2, training.zero_stage=3, "
        "training.offload=true"
    )
    assert verdict(small, "training.gpu_gib=4").endswith("training.lora or a smaller model")


@pytest.mark.usefixtures("no_hub")
def test_offload_is_counted_in_the_host_or_on_its_disk() -> None:
    path, overrides = ROOT / "recipes/sft/exaone4_32b.yaml", ["training.ranks=8", "training.offload=true"]
    recipe = load_recipe(SFTRecipe, path, overrides)
    sizes, _ = model_sizes(base_recipe(recipe))
    assert sizes
    # 22 bytes a parameter, shared by eight ranks.
    assert (
        dict(memory_rows(recipe, sizes))["memory of a host"] == "about 82.0 GiB for each of its ranks (656 for eight)"
    )
    on_disk = load_recipe(SFTRecipe, path, [*overrides, "training.offload_folder=/nvme"])
    rows = dict(memory_rows(on_disk, sizes))
    assert rows["disk of a host"] == "about 82.0 GiB in /nvme for each of its ranks"
    assert "memory of a host" not in rows


@pytest.mark.usefixtures("no_hub")
def test_gpus_can_be_shared_by_ranks() -> None:
    path = ROOT / "recipes/sft/exaone4_1b_lora.yaml"
    assert verdict(path, "training.gpus_per_rank=0.5").startswith("fits, with 3.2 GiB")
