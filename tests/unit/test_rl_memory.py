"""The memory of RL as `agapo check` estimates it: against what an H200 measured, and what is said of recipes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config

from agapo.model.memory import GIB, FineTuningSetup, Memory, SharedBlocks, layer_bytes
from agapo.model.rl_memory import engine_memory, learner_memory
from agapo.model.sizes import published_sizes
from agapo.preflight.rl import check_memory, learner_setup
from agapo.recipe import RLRecipe, load_recipe

ROOT = Path(__file__).parents[2]
QWEN, EXAONE = "Qwen/Qwen3-0.6B", "LGAI-EXAONE/EXAONE-4.0-1.2B"
MEASURED = {
    # docs/gpu.md, 2026-11-27: GiB above weights and gradients, of micro-batches of rows of 2,048 tokens. Those in which
    # the layers' backward takes most: the output layer, which does of smaller ones, has changed since.
    (QWEN, 16384): 2.489,
    (QWEN, 32768): 4.687,
    (EXAONE, 16384): 4.228,
    (EXAONE, 32768): 8.065,
}
SAMPLED = {(QWEN, 64, 602): 4.283, (QWEN, 256, 633): 17.82, (EXAONE, 64, 602): 2.310, (EXAONE, 256, 633): 9.614}
"""There, too: GiB above the weights, of rows and columns."""


def sizes_of(model: str) -> Any:
    return published_sizes(model, None)


@pytest.mark.parametrize(("model", "tokens"), MEASURED, ids=str)
def test_a_micro_batch_takes_what_was_measured(model: str, tokens: int):
    setup = FineTuningSetup(
        row_tokens=2048, micro_rows=tokens // 2048, zero_stage=1, gradient_checkpointing=True, gpu=False
    )
    parts = learner_memory(sizes_of(model), setup, reference=False).parts
    phases = [sum(part.bytes for part in parts if part.when == when) for when in ("output layer", "backward")]
    assert max(phases) / GIB == pytest.approx(MEASURED[model, tokens], rel=0.1)


@pytest.mark.parametrize(("model", "rows", "columns"), SAMPLED, ids=str)
def test_sampling_takes_what_was_measured(model: str, rows: int, columns: int):
    memory = engine_memory(sizes_of(model), rows=rows, columns=columns, number=2, gpu=False)
    assert (memory.gpu_bytes - memory.of("weights")) / GIB == pytest.approx(SAMPLED[model, rows, columns], rel=0.1)


def test_what_a_rank_holds():
    sizes, gib = sizes_of(QWEN), sizes_of(QWEN).parameters / GIB

    def memory(reference: bool = True, **changes: Any) -> Memory:
        setup = {"row_tokens": 1024, "micro_rows": 4, "zero_stage": 1, "gpu": False, **changes}
        return learner_memory(sizes, FineTuningSetup(**setup), reference=reference)

    assert memory().of("reference") / GIB == pytest.approx(2 * gib)
    assert memory(reference=False).of("reference") == 0
    assert memory(adapters=1000).of("reference") == 0
    # In shards, a rank has its own.
    assert memory(zero_stage=3, ranks=4).of("reference") / GIB == pytest.approx(2 * gib / 4, rel=1e-6)
    # Offloaded, it is on the GPU while it computes, when the optimizer's state is not in the way.
    offloaded = memory(offload=True)
    assert not any(part.name == "reference" for part in offloaded.at_worst)
    assert offloaded.host_bytes / GIB == pytest.approx((2 + 12 + 4) * gib, rel=0.01)


RECIPES = [path for path in (ROOT / "recipes/rl").glob("*.yaml") if "gpu_gib" in path.read_text()]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_for_gpus_fit_what_they_name(path: Path):
    rows = dict(check_memory(load_recipe(RLRecipe, path)))
    (verdict,) = [found for name, found in rows.items() if name.startswith("a GPU of")]
    assert "fits, with" in verdict


def test_all_recipes_for_gpus_name_theirs():
    wanted = [path.stem for path in (ROOT / "recipes/rl").glob("*.yaml") if "gpus_per_rank" in path.read_text()]
    assert sorted(wanted) == sorted(path.stem for path in RECIPES)


def test_what_does_not_fit_says_what_would():
    path = ROOT / "recipes/rl/qwen3_gsm8k.yaml"

    def verdict(*changes: str) -> str:
        return dict(check_memory(load_recipe(RLRecipe, path, list(changes))))["a GPU of 24 GiB"]

    text = verdict("rollout.chunk_prompts=8", "evaluation.chunk_prompts=64")
    assert "does not fit: 6.7 GiB too much; any of these would do: rollout.chunk_prompts=4" in text
    # By turns.
    assert "1.1 GiB too much; any of these would do: rollout.sleep_while_learning=true" in verdict(
        "rollout.chunk_prompts=5"
    )
    assert "fits, with" in verdict("rollout.chunk_prompts=5", "rollout.sleep_while_learning=true")
    # With ipc the weights (1.1 GiB) are there once more.
    assert "2.2 GiB too much" in verdict("rollout.chunk_prompts=5", "rollout.weight_transport=ipc")
    assert "learner.offload=true, learner.lora={}" in text
    # Each on a GPU of its own.
    assert verdict("rollout.chunk_prompts=8", "learner.gpus_per_rank=1", "rollout.gpus_per_actor=1").startswith("fits")
    assert verdict("model.path=Qwen/Qwen3-4B").endswith("any of these would do: learner.lora.quantize=nf4")
    both = verdict("model.path=Qwen/Qwen3-4B", "rollout.chunk_prompts=32")
    assert "together these would do" in both


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # Offloading wants a stage of ZeRO, which bfloat16 runs without the recipe's having one.
        (["learner.zero_stage=0", "rollout.chunk_prompts=8"], "learner.zero_stage=1 learner.offload=true"),
        (["rollout.engine=vllm", "rollout.vllm.gpu_memory=0.1"], "vLLM's share is 0.5 GiB too little for the weights"),
        (["rollout.actors=2", "rollout.gpus_per_actor=0.25"], "a rank and 2 actors share it: "),
        (["rollout.actors=2", "rollout.gpus_per_actor=0.5", "learner.gpus_per_rank=1"], "fits, with 10"),
    ],
)
def test_who_shares_a_gpu_and_what_is_lacking(changes: list[str], said: str):
    recipe = load_recipe(RLRecipe, ROOT / "recipes/rl/qwen3_gsm8k.yaml", changes)
    assert said in dict(check_memory(recipe))["a GPU of 24 GiB"]


def test_an_architecture_that_the_formulas_do_not_know_is_not_refused(tmp_path: Path):
    GPT2Config(n_embd=32, n_layer=2, n_head=2).save_pretrained(tmp_path)
    recipe = load_recipe(RLRecipe, ROOT / "recipes/rl/qwen3_gsm8k.yaml", [f"model.path={tmp_path}"])
    ((name, found),) = check_memory(recipe)
    assert (name, found[:13]) == ("memory", "not looked at")


def test_ranks_share_the_micro_batch_as_the_recipe_says():
    recipe = load_recipe(RLRecipe, ROOT / "recipes/rl/qwen3_32b_lora.yaml", [])
    setup = learner_setup(recipe, sizes_of("Qwen/Qwen3-32B"))
    assert (setup.row_tokens, setup.micro_rows, setup.ranks, setup.zero_stage) == (8192, 1, 8, 3)
    assert setup.adapters == sizes_of("Qwen/Qwen3-32B").adapter_parameters(64, "all-linear")


def test_shared_prompts_are_counted_as_attention_is_handed_them():
    """By hand, for two prompts of 3 tokens with two responses of 2 each: keys, masks, and what a layer keeps."""
    own = SharedBlocks(blocks=2, prompt=3, responses=2, response=2)
    assert own.slots == 2 * (3 + 4)
    assert own.seen == 2 * (3 + 2 * (3 + 2))
    assert own.pairs == 9 + 4 * 2 * 5
    sizes = sizes_of(QWEN)
    setup = FineTuningSetup(row_tokens=14, micro_rows=1, gpu=False, bfloat16=False)
    apart, shared = layer_bytes(sizes, setup), layer_bytes(sizes, replace(setup, shared=own))
    repeated_apart = 4 * (14 * 2 * (sizes.queries - sizes.keys) + 14**2)
    in_slots = 4 * (2 * 26 * sizes.queries - 2 * 14 * sizes.keys + 14 * sizes.queries + 49)
    assert shared - apart == in_slots - repeated_apart
    memory = learner_memory(sizes, replace(setup, shared=own), reference=False)
    assert memory.of("attention masks") == 49 + 8 * 2 * 2 * 3


@pytest.mark.parametrize(
    ("changes", "blocks"),
    [
        ([], (2, 256, 8, 256)),
        (["learner.micro_batch_tokens=1024"], (1, 256, 3, 256)),
        (["learner.micro_batch_tokens=64"], (1, 256, 1, 256)),
        (["learner.layout=right"], None),
        (["model.attention=eager"], None),
        (["learner.shared_prompts=false"], None),
    ],
)
def test_a_recipes_micro_batch_is_full_of_its_longest_blocks(changes: list[str], blocks: tuple[int, ...] | None):
    given = [
        *("learner.shared_prompts=true", "learner.micro_batch_tokens=5000"),
        *("data.max_prompt_tokens=256", "rollout.max_new_tokens=256"),
    ]
    recipe = load_recipe(RLRecipe, ROOT / "recipes/rl/tiny.yaml", [*given, *changes])
    assert learner_setup(recipe, sizes_of(QWEN)).shared == (SharedBlocks(*blocks) if blocks else None)
