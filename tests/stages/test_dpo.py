"""Whole runs of the preference stage through the command line: what they leave, stopping, a second stage, LoRA."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.stages.conftest import agapo, agapo_here, interrupt_after

pytestmark = [pytest.mark.usefixtures("shared_ray"), pytest.mark.slow]


def recipe_file(folder: Path, model: dict[str, Any], name: str = "first", **changes: Any) -> Path:
    content: dict[str, Any] = {
        "stage": "dpo",
        "model": model,
        "data": {
            "source": "data.arithmetic:prompts",
            "args": {"size": 64},
            "modes": {"reasoning": 1, "non_reasoning": 1},
        },
        "reward": {"terms": [{"name": "even", "function": "tests.fakes.length_reward:score"}], "workers": 1},
        # A random model seldom ends by itself; a stop text that is a common character ends it after some tokens.
        "rollout": {
            "group_size": 4,
            "max_new_tokens": 64,
            "stop": list("abcdefghijklmnopqrstuvwxyz"),
            "chunk_prompts": 4,
            "threads": 1,
        },
        "pairs": {"prompts": 48},
        "training": {"learning_rate": 1.0e-3, "epochs": 2, "pairs_per_step": 8, "micro_batch_pairs": 4, "threads": 1},
        "evaluation": {"test_size": 8},
        "checkpoint": {"every": 2},
        "tracking": {"wandb": "disabled"},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, path.read_text().splitlines()))


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(run / "hf").state_dict()


def alike(first: Path, second: Path) -> bool:
    ours, theirs = weights_of(first), weights_of(second)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    done = agapo("dpo", recipe_file(folder, {"path": str(tiny_model)}), f"run.output={folder}")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Guards" in done.stdout
    return folder / "dpo" / "first"


def test_a_run_leaves_what_it_promises(whole: Path, tiny_model: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    responses, pairs = lines(whole / "responses.jsonl"), lines(whole / "pairs.jsonl")
    assert len(responses) == 48 * 4
    assert {row["mode"] for row in responses} == {"reasoning", "non_reasoning"}
    assert summary["pairs"]["pairs"] == len(pairs) == sum(summary["pairs"]["by_kind"].values())
    paired = {(row["id"], row["mode"]) for row in pairs}
    assert len(paired) + sum(summary["pairs"]["without"].values()) == 48
    assert summary["steps"] == 2 * len(pairs) // 8
    assert [line["step"] for line in lines(whole / "metrics.jsonl")] == list(range(1, summary["steps"] + 1))
    assert summary["lineage"] == [{"model": str(tiny_model)}]
    assert set(summary["measures"]["after"]) == {"reasoning", "non_reasoning"}
    assert {item["guard"] for item in summary["guards"]} >= {"chosen less likely, nats a token"}
    for name in ("learning_curve.png", "pairs.png"):
        assert (whole / name).read_bytes().startswith(b"\x89PNG")


def test_the_sampled_tokens_are_trained_on(whole: Path) -> None:
    tokens = {(row["id"], row["mode"], tuple(row["token_ids"])) for row in lines(whole / "responses.jsonl")}
    tokenizer = AutoTokenizer.from_pretrained(whole / "hf")
    for row in lines(whole / "pairs.jsonl"):
        assert {(row["id"], row["mode"], tuple(row[name])) for name in ("chosen_ids", "rejected_ids")} <= tokens
        rendered = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, enable_thinking=row["mode"] == "reasoning", return_dict=True
        )
        assert row["prompt_ids"] == rendered["input_ids"]


def test_it_learns_to_tell_the_pairs_apart(whole: Path) -> None:
    metrics = lines(whole / "metrics.jsonl")
    assert metrics[0]["pairs/chosen_drift"] == pytest.approx(0, abs=1e-5)
    half = len(metrics) // 2
    first, second = (
        sum(line["pairs/margin"] for line in part) / len(part) for part in (metrics[:half], metrics[half:])
    )
    assert second > first
    assert metrics[-1]["pairs/chosen_drift"] > metrics[-1]["pairs/rejected_drift"]


def test_the_model_stands_alone(whole: Path) -> None:
    model, tokenizer = (kind.from_pretrained(whole / "hf") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.config.use_cache, "trainers switch it off; without it generation is quadratic"
    for thinking in (True, False):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": "1+1="}],
            add_generation_prompt=True,
            enable_thinking=thinking,
            return_dict=True,
            return_tensors="pt",
        )
        assert model.generate(**inputs, max_new_tokens=4).shape[1] > inputs["input_ids"].shape[1]
    card = (whole / "hf" / "README.md").read_text()
    front, body = card.removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(front)["library_name"] == "transformers"
    for part in ("preference learning", "data.arithmetic:prompts", "| dpo | reasoning |", "policy: concise"):
        assert part in body


def test_a_stopped_run_goes_on_as_if_it_had_not_been(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    recipe, run = recipe_file(tmp_path, {"path": str(tiny_model)}), tmp_path / "dpo" / "first"
    stopped = interrupt_after(3, run / "metrics.jsonl", "dpo", recipe, f"run.output={tmp_path}")
    assert stopped.returncode == 130, stopped.stdout
    assert (run / "report.html").exists(), "a stopped run has its page"
    done = agapo_here("dpo", recipe, f"run.output={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert "sampling" not in done.stdout
    assert (run / "pairs.jsonl").read_text() == (whole / "pairs.jsonl").read_text()
    ours, theirs = (
        [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines(path)]
        for path in (run / "metrics.jsonl", whole / "metrics.jsonl")
    )
    assert ours == theirs
    assert alike(run, whole)


def test_pairs_alone_are_what_the_run_goes_on_with(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    recipe, run = recipe_file(tmp_path, {"path": str(tiny_model)}), tmp_path / "dpo" / "first"
    # As if sampling had been stopped in mid-line: what is there whole is kept.
    done = agapo_here("pairs", recipe, f"run.output={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "48 prompts, 192 responses" in done.stdout
    text = (run / "responses.jsonl").read_text()
    assert text == (whole / "responses.jsonl").read_text()
    (run / "responses.jsonl").write_text(text[: len(text) // 2])
    (run / "pairs.jsonl").unlink()
    again = agapo_here("pairs", recipe, f"run.output={tmp_path}")
    assert "of which" in again.stdout
    assert (run / "pairs.jsonl").read_text() == (whole / "pairs.jsonl").read_text()


def test_responses_are_paired_by_another_policy_without_sampling(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, {"path": str(tiny_model)})
    found = agapo_here("pairs", recipe, "pairs.longer_by=8", "--responses", whole / "responses.jsonl")
    assert found.returncode == 0, found.stderr
    assert "48 prompts, 192 responses" in found.stdout
    assert not (tmp_path / "dpo").exists()
    missing = agapo_here("pairs", recipe, "--responses", tmp_path / "none.jsonl")
    assert (missing.returncode, "no such file" in missing.stderr) == (1, True)
    bad = tmp_path / "bad.jsonl"
    for line, message in (("", "holds no responses"), ('{"id": "p"', ":1: not JSON"), ('{"id": 1}', ":1: id: input")):
        bad.write_text(line)
        found = agapo_here("pairs", recipe, "--responses", bad)
        assert found.returncode == 1
        assert message in found.stderr


def test_the_second_stage_starts_from_the_first_and_reuses_its_pairs(whole: Path, tmp_path: Path) -> None:
    second = recipe_file(
        tmp_path,
        {"start": str(whole.parents[1] / "first.yaml")},
        "second",
        pairs={"prompts": 48, "policy": "preferred", "reuse": {"share": 0.25}},
        training={
            "learning_rate": 1.0e-3,
            "pairs_per_step": 8,
            "loss": "dpo",
            "threads": 1,
            "lora": {"rank": 4},
        },
    )
    done = agapo_here("dpo", second, f"run.output={whole.parents[1]}")
    assert done.returncode == 0, done.stderr + done.stdout
    run = whole.parent / "second"
    pairs = lines(run / "pairs.jsonl")
    own, again = ([row for row in pairs if row["reused"] is reused] for reused in (False, True))
    assert len(again) == pytest.approx(len(pairs) / 4, abs=1)
    assert {row["kind"] for row in own} == {"preferred"}
    earlier = {tuple(row["chosen_ids"]) for row in lines(whole / "pairs.jsonl")}
    assert all(tuple(row["chosen_ids"]) in earlier for row in again)
    summary = json.loads((run / "summary.json").read_text())
    assert [entry.get("stage") for entry in summary["lineage"]] == [None, "dpo"]
    # The adapter is merged, and moved the model.
    assert not alike(run, whole)
    assert not list((run / "adapter").glob("**/ref"))


def test_too_few_pairs_are_said_to_be_too_few_and_more_are_added_to_them(
    whole: Path, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = recipe_file(tmp_path, {"path": str(tiny_model)})
    done = agapo_here("dpo", recipe, f"run.output={tmp_path}", "pairs.prompts=8", "training.pairs_per_step=64")
    assert done.returncode == 1
    assert "do not fill a step of 64" in done.stderr
    assert "raise pairs.prompts" in done.stderr
    # As it says, under the same name: what was sampled is kept, and what comes of it is as if it had been so at once.
    more = agapo_here("dpo", recipe, f"run.output={tmp_path}")
    assert more.returncode == 0, more.stderr
    assert "of which 8 prompts are done" in more.stdout
    assert (tmp_path / "dpo" / "first" / "pairs.jsonl").read_text() == (whole / "pairs.jsonl").read_text()
    assert alike(tmp_path / "dpo" / "first", whole)
