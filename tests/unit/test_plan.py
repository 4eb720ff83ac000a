"""`agapo plan`: what it says of recipes on described clusters, what it refuses, and the least that would do."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agapo.cli import app
from agapo.errors import UserError
from agapo.model.memory import GIB
from agapo.model.sizes import PUBLISHED
from agapo.preflight.planning.fitting import case_of, host_bytes, misfits
from agapo.preflight.planning.phases import (
    lengths_of,
    most_pairs,
    run_phases,
    step_phases,
    step_seconds,
    step_tokens,
    total,
)
from agapo.preflight.planning.plan import duration, plan_recipe
from agapo.preflight.planning.smallest import Asker, smallest
from agapo.recipe import DescribedCluster, DPORecipe, RLRecipe, SFTRecipe, load_cluster, load_recipe

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "recipes/cluster"
KINDS: dict[str, Any] = {"rl": RLRecipe, "sft": SFTRecipe, "dpo": DPORecipe}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "400")


def cluster(name: str, **changes: Any) -> DescribedCluster:
    return load_cluster(CLUSTERS / f"{name}.yaml").model_copy(update=changes)


def case(name: str, model: str, on: DescribedCluster, *overrides: str) -> Any:
    path = ROOT / f"recipes/{name}.yaml"
    return case_of(load_recipe(KINDS[path.parent.name], path, list(overrides)), PUBLISHED[model], on)


# --- the file ---

GOOD = "hosts: 2\ngpus_per_host: 8\ngpu_gib: 79\nhost_gib: 1000\ncpus_per_host: 96\nrates: {tflops: 989}\n"


def test_the_described_clusters_are_what_their_names_say() -> None:
    found = {path.stem: load_cluster(path) for path in CLUSTERS.glob("*_*gb.yaml")}
    assert {name: (item.hosts, item.gpus_per_host, item.gpu_gib) for name, item in found.items()} == {
        "one_24gb": (1, 1, 23),
        "one_80gb": (1, 1, 79),
        "eight_80gb": (1, 8, 79),
        "two_hosts_of_eight_80gb": (2, 8, 79),
    }
    assert all(item.rates.tflops and item.rates.bandwidth_gb_s for item in found.values())
    assert all(item.rates.network_gb_s for item in found.values() if item.hosts > 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("gpu_gib", "gpu_gb"), "gpu_gb: unknown key; did you mean 'gpu_gib'?"),
        (GOOD.replace("tflops", "tflop"), "rates.tflop: unknown key; did you mean 'tflops'?"),
        (GOOD.replace("hosts: 2", "hosts: 0"), "hosts: input should be greater than or equal to 1 (is 0)"),
        (GOOD.replace("cpus_per_host: 96\n", ""), "cpus_per_host: is required"),
        (GOOD.replace("host_gib: 1000", "host_gib: much"), "host_gib: input should be a valid number"),
        ("- a\n", "should be a YAML mapping of keys to values"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_cluster(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_a_file_that_is_not_there_has_a_near_name() -> None:
    with pytest.raises(UserError, match=r"one_80.yaml: no such described cluster; did you mean '.*one_80gb.yaml'"):
        load_cluster(Path("recipes/cluster/one_80.yaml"))


# --- a step ---


def test_a_step_of_rl_by_hand() -> None:
    """Qwen3 8B with LoRA: 512 responses of 256 + 1,792 tokens."""
    found = case("rl/qwen3_8b_lora", "Qwen/Qwen3-8B", cluster("one_80gb"))
    lengths = lengths_of(found, None, None)
    assert (lengths.prompt, lengths.response, lengths.longest) == (256, 1792, 3584)
    assert step_tokens(found, lengths) == 512 * 2048
    phases = {phase.name: phase.seconds for phase in step_phases(found, lengths)}
    assert list(phases) == ["sampling", "reference", "learning", "weights to the actors"]
    layers = 36 * (4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 12288)
    attention, head = 36 * 4096 * 2048**2, 151_936 * 4096
    forward = 2 * layers * 2048 + 2 * attention + 2 * head * 1792
    speed = 989e12 * 0.3
    assert phases["reference"] == pytest.approx(512 * forward / speed)
    adapters = 36 * 32 * (3 * (4096 + 12288) + 2 * (4096 + 4096) + 2 * (4096 + 1024))
    linear = 2 * (forward - 2 * attention)
    again = 2 * layers * 2048 + 2 * attention
    learning = linear + 6 * attention + again + 8 * adapters * 2048
    assert phases["learning"] == pytest.approx(512 * learning / speed)
    # Adapters of two bytes a number, to the same host.
    assert phases["weights to the actors"] == pytest.approx(2 * adapters * (1 / 1.5e9 + 1 / 1.95e9))
    # Half of the GPU has room for the weights and 151 responses of 2,048 tokens, of 147,456 bytes each: 607 steps, and
    # the longest response takes 3,584.
    weights, cache = 2 * 8_190_735_360, 147_456
    rows = 512 * 1792 / 3584
    assert rows * 2048 * cache > 0.5 * 79 * GIB - weights
    fit = (0.5 * 79 * GIB - weights - int(0.75 * GIB)) / (2048 * cache)
    steps = max(512 * 1792 / min(256, fit), 3584)
    rows = 512 * 1792 / steps
    read = weights - 2 * head + rows * (256 + 896) * cache
    step = 1.7e-3 + 30e-6 * rows + read / (3350e9 * 0.6)
    prefill = 64 * (2 * layers * 256 + 2 * 36 * 4096 * 256**2 + 2 * head) / speed
    assert phases["sampling"] == pytest.approx(steps * step + prefill)


def test_actors_that_sample_ahead_do_so_while_ranks_learn() -> None:
    two, turns = cluster("two_hosts_of_eight_80gb"), ("rl/qwen3_32b_lora", "Qwen/Qwen3-32B")
    lengths = lengths_of(case(*turns, two), None, None)
    seconds = {phase.name: phase.seconds or 0 for phase in step_phases(case(*turns, two), lengths)}
    assert step_seconds(case(*turns, two), lengths) == pytest.approx(sum(seconds.values()))
    sampling = seconds.pop("sampling")
    ahead = step_seconds(case(*turns, two, "rollout.max_staleness=1"), lengths)
    assert ahead == pytest.approx(max(sampling, sum(seconds.values())))
    # On one GPU they are in each other's way.
    one, shared = cluster("one_80gb"), ("rl/qwen3_8b_lora", "Qwen/Qwen3-8B")
    lengths = lengths_of(case(*shared, one), None, None)
    whole = step_seconds(case(*shared, one), lengths)
    assert step_seconds(case(*shared, one, "rollout.max_staleness=1"), lengths) == whole
    slept = case(*shared, one, "rollout.sleep_while_learning=true")
    assert whole and step_seconds(slept, lengths) == pytest.approx(whole + 1.25)
    # Its weights are in the host's memory then.
    added = host_bytes(slept)[0] - host_bytes(case(*shared, one))[0]
    assert added == 2 * 8_190_735_360


def test_the_network_is_what_a_step_waits_for_where_it_is_slow() -> None:
    two = cluster("two_hosts_of_eight_80gb")
    recipe = ("sft/qwen3_32b", "Qwen/Qwen3-32B")
    fast, slow = (
        case(*recipe, two.model_copy(update={"rates": two.rates.model_copy(update={"network_gb_s": rate})}))
        for rate in (4000, 1)
    )
    ((_, quick),) = [(one.name, one.seconds) for one in step_phases(fast, lengths_of(fast, None, None))]
    ((_, waits),) = [(one.name, one.seconds) for one in step_phases(slow, lengths_of(slow, None, None))]
    # Rows of 16,384 tokens, four micro-batches a rank, each of which half of the weights comes over the network thrice.
    assert waits == pytest.approx(4 * 3 * 2 * 32_762_123_264 / 2 / 1e9)
    assert quick and waits and quick < waits
    unknown = two.model_copy(update={"rates": two.rates.model_copy(update={"network_gb_s": None})})
    assert total(step_phases(case(*recipe, unknown), lengths_of(fast, None, None))) is None


def test_steps_of_sft_and_preferences() -> None:
    sft = case("sft/qwen3_1.7b", "Qwen/Qwen3-1.7B", cluster("one_80gb"))
    lengths = lengths_of(sft, None, 2048)
    assert (step_tokens(sft, lengths), lengths.sequence) == (16 * 16384, 2048)
    run = run_phases(sft, lengths)
    one = total(step_phases(sft, lengths))
    assert run and one and run[0].seconds == pytest.approx(2000 * one)
    # Longer dialogues have more attention.
    longer = total(step_phases(sft, lengths_of(sft, None, 8192)))
    assert longer and longer > one
    dpo = case("dpo/qwen3_1.7b_stage1", "Qwen/Qwen3-1.7B", cluster("one_80gb"))
    lengths = lengths_of(dpo, 100, 1000)
    assert step_tokens(dpo, lengths) == 64 * 2 * 1100
    assert most_pairs(dpo.recipe) == 2 * 8192
    run = run_phases(dpo, lengths)
    assert run and [phase.name for phase in run] == ["sampling", "start's log-probabilities", "256 steps at most"]


def test_epochs_leave_the_run_to_the_data() -> None:
    sft = case("sft/qwen3_1.7b", "Qwen/Qwen3-1.7B", cluster("one_80gb"), "steps=null", "epochs=2")
    assert run_phases(sft, lengths_of(sft, None, None)) is None


# --- fits ---


def test_hosts_hold_what_is_offloaded_and_weights_on_their_way() -> None:
    two = cluster("two_hosts_of_eight_80gb")
    found = case("rl/qwen3_32b_lora", "Qwen/Qwen3-32B", two)
    handed = 2 * PUBLISHED["Qwen/Qwen3-32B"].adapter_parameters(64, "all-linear")
    # In the first rank and in Ray's store there; in the store of the host that samples.
    assert host_bytes(found) == {0: 2 * handed, 1: handed}
    offloaded = case(
        "sft/qwen3_32b", "Qwen/Qwen3-32B", cluster("eight_80gb"), "training.ranks=8", "training.offload=true"
    )
    assert host_bytes(offloaded)[0] == pytest.approx(22 * 32_762_123_264, rel=1e-6)
    assert misfits(offloaded) == []
    small = case(
        *("sft/qwen3_32b", "Qwen/Qwen3-32B", cluster("eight_80gb", host_gib=600)),
        *("training.ranks=8", "training.offload=true"),
    )
    (said,) = misfits(small)
    assert said.startswith("host 1 of 600 GiB: does not fit: 71.3 GiB too much; take more ranks over more hosts")


@pytest.mark.parametrize(
    ("name", "model", "on", "overrides", "said"),
    [
        ("rl/qwen3_8b_lora", "Qwen/Qwen3-8B", "one_24gb", [], "a GPU of 23 GiB: does not fit: vLLM's share is"),
        (
            "rl/qwen3_mixed",
            "Qwen/Qwen3-1.7B",
            "one_24gb",
            [],
            "a GPU of 23 GiB: a rank and an actor share it: does not",
        ),
        ("sft/qwen3_1.7b", "Qwen/Qwen3-1.7B", "one_24gb", [], "a GPU of 23 GiB: does not fit: 16."),
        (
            *("dpo/qwen3_1.7b_stage1", "Qwen/Qwen3-1.7B", "one_80gb", ["rollout.chunk_prompts=16"]),
            "a GPU of 79 GiB: sampling does not fit: ",
        ),
    ],
)
def test_what_does_not_fit_is_said(name: str, model: str, on: str, overrides: list[str], said: str) -> None:
    (first, *_) = misfits(case(name, model, cluster(on), *overrides))
    assert first.startswith(said)


@pytest.mark.parametrize(
    ("name", "model", "on", "overrides", "said"),
    [
        (
            *("rl/qwen3_32b_lora", "Qwen/Qwen3-32B", "two_hosts_of_eight_80gb", ["cluster.address=null"]),
            "cluster.address: null starts Ray on one machine, and the recipe takes 2 hosts; set it to auto",
        ),
        (
            *("rl/exaone4_32b_lora", "LGAI-EXAONE/EXAONE-4.0-32B", "two_hosts_of_eight_80gb"),
            ["rollout.vllm.tensor_parallel=3", "rollout.gpus_per_actor=3"],
            "rollout.vllm.tensor_parallel: 3 does not divide the 40 heads of the model",
        ),
    ],
)
def test_what_cannot_be_placed_is_refused(name: str, model: str, on: str, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        case(name, model, cluster(on), *overrides)
    assert said in str(caught.value)


# --- the smallest ---


def least(name: str, model: str, on: DescribedCluster, *overrides: str) -> Any:
    path = ROOT / f"recipes/{name}.yaml"
    recipe = load_recipe(KINDS[path.parent.name], path, list(overrides))
    return smallest(Asker(recipe, path, list(overrides), PUBLISHED[model]), on)


def test_the_smallest_is_the_least_that_fits() -> None:
    alone = least("rl/qwen3_8b_lora", "Qwen/Qwen3-8B", cluster("one_80gb"))
    assert (alone.case.placement.gpus, alone.changes) == (1, {})
    eight = least("sft/qwen3_32b", "Qwen/Qwen3-32B", cluster("two_hosts_of_eight_80gb"))
    assert eight.case.placement.gpus < 16
    assert misfits(eight.case) == []
    assert eight.changes["training.offload"] == "true"
    # Without offloading, or the memory for it, there is no other way than more ranks.
    path = ROOT / "recipes/sft/qwen3_32b.yaml"
    asker = Asker(load_recipe(SFTRecipe, path), path, [], PUBLISHED["Qwen/Qwen3-32B"])
    held = smallest(asker, cluster("two_hosts_of_eight_80gb"), offload=False)
    assert held and held.case.placement.gpus == 16
    tight = least("sft/qwen3_32b", "Qwen/Qwen3-32B", cluster("two_hosts_of_eight_80gb", host_gib=64))
    assert (tight.case.placement.gpus, tight.case.cluster.hosts) == (16, 2)
    assert tight.changes == {}


def test_what_does_not_fit_together_is_tried_apart() -> None:
    apart = least("rl/qwen3_8b_lora", "Qwen/Qwen3-8B", cluster("one_24gb"))
    assert (apart.case.placement.gpus, apart.case.placement.shared, apart.case.cluster.hosts) == (2, False, 2)
    assert misfits(apart.case) == []
    assert (
        apart.changes.items()
        >= {
            "learner.gpus_per_rank": "1",
            "rollout.gpus_per_actor": "1",
            "rollout.vllm.gpu_memory": "0.9",
            "cluster.address": "auto",
        }.items()
    )


def test_nothing_that_makes_another_run_is_tried() -> None:
    assert least("rl/qwen3_mixed", "Qwen/Qwen3-1.7B", cluster("one_24gb", gpu_gib=4)) is None


# --- the command ---


def test_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    plan_recipe(ROOT / "recipes/rl/qwen3_32b_lora.yaml", [], CLUSTERS / "two_hosts_of_eight_80gb.yaml")
    shown = capsys.readouterr().out
    for text in (
        "2 hosts, each with 8 GPUs of 79 GiB, 1000 GiB of memory and 96 cores",
        "fits, with",
        "8, host 1: GPU 0–7",
        "2 with vllm, apart, host 2: GPU 0–3, 4–7",
        "1024 responses, 4,194,304 tokens",
        "prompts of 512 and responses of 3,584 tokens",
        "learning: 989 TFLOP/s a GPU (stated) × 0.3 (default, an assumption)",
        "vllm's host time (measured on an H200, docs/gpu.md)",
        "between hosts: 50 GB/s (stated)",
        "the smallest that would do",
    ):
        assert text in shown


def test_the_command_says_yes_and_no() -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["plan", *arguments])

    recipe = "recipes/rl/qwen3_8b_lora.yaml"
    fits = run(recipe, "--cluster", "recipes/cluster/one_80gb.yaml", "--response-tokens", "500")
    assert fits.exit_code == 0, fits.output
    assert "responses of 500 tokens" in fits.output
    other = run(recipe, "--cluster", "recipes/cluster/one_24gb.yaml", "steps=10")
    assert other.exit_code == 1
    assert isinstance(other.exception, UserError)
    assert str(other.exception).startswith(f"{recipe} on recipes/cluster/one_24gb.yaml: a GPU of 23 GiB: does not fit:")
    assert "\n" not in str(other.exception)
    none = run(recipe)
    assert none.exit_code == 2 and "--cluster" in none.output


def test_what_needs_more_is_told_what_would_do() -> None:
    with pytest.raises(UserError) as caught:
        plan_recipe(ROOT / "recipes/rl/qwen3_32b_lora.yaml", [], CLUSTERS / "eight_80gb.yaml")
    text = str(caught.value)
    assert "more GPUs than hosts 1 × gpus_per_host 8 can give them; lower learner.ranks or rollout.actors" in text
    assert "(the smallest that would do: " in text
    assert "\n" not in text


def test_an_evaluation_and_a_recipe_for_cpus_have_no_plan() -> None:
    with pytest.raises(UserError, match="stage: 'eval' trains nothing; a plan is for rl, sft, dpo"):
        plan_recipe(ROOT / "recipes/eval/tiny.yaml", [], CLUSTERS / "one_80gb.yaml")
    with pytest.raises(UserError, match=r"learner\.gpus_per_rank: 0, so that the recipe trains on CPUs"):
        plan_recipe(
            ROOT / "recipes/rl/tiny.yaml",
            ["model.start=null", "model.path=Qwen/Qwen3-0.6B"],
            CLUSTERS / "one_80gb.yaml",
        )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "not estimated"), (0.24, "0.2 s"), (12.34, "12 s"), (600, "10 min"), (7200, "2.0 h")],
)
def test_times_have_a_unit_that_suits_them(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
