"""The benchmark's arithmetic: phases add up, ratios are of medians, and other prompts are refused."""

import dataclasses
from pathlib import Path

import pytest

from agapo.chat import prompt_ids
from agapo.model.tokenizer import build_tokenizer
from benchmarks.report import make_pair, spread, table
from benchmarks.trl_side import exclusive_phases, row
from benchmarks.trl_step import parse, side_arguments, work_of
from benchmarks.work import Run, Step, Work


def _run(seconds: list[float], tokens: int, prompt: int = 7) -> Run:
    steps = [
        Step(value, cpu_s=2 * value, phases={"generate": value}, lengths=[tokens], prompt_ids=[[prompt]], learned=1)
        for value in seconds
    ]
    return Run(ready_at=110.0, steps=steps)


def test_trl_phases_do_not_overlap_and_add_up_to_the_step():
    measured = {"generate": 4.0, "score": 1.0, "rollout": 5.5, "forward": 2.0, "training_step": 10.5, "optimizer": 0.5}
    phases = exclusive_phases(measured, step=12.0)
    assert phases == pytest.approx(
        {"generate": 4, "score": 1, "forward": 2, "optimizer": 0.5, "prepare": 0.5, "backward": 3, "other": 1}
    )
    assert sum(phases.values()) == pytest.approx(12)


def test_a_pair_compares_medians_without_the_warm_up():
    pair = make_pair(_run([90, 4, 6, 5], 10), _run([80, 2, 3, 1], 20), {"trl": 100.0, "agapo": 80.0}, warmup=1)
    assert pair.ratio == 5 / 2
    assert pair.token_ratio == (5 / 10) / (2 / 20)
    assert pair.cpu_ratio == 10 / 4
    assert (pair.trl.startup_s, pair.agapo.startup_s) == (10, 30)


def test_sides_with_other_prompts_are_refused():
    with pytest.raises(ValueError, match="step 1: TRL and agapo had different prompts"):
        make_pair(_run([1], 1), _run([1], 1, prompt=8), {"trl": 0.0, "agapo": 0.0}, warmup=0)


def test_sides_with_other_numbers_of_responses_are_refused():
    more = _run([1], 1)
    more.steps[0] = dataclasses.replace(more.steps[0], lengths=[1, 1])
    with pytest.raises(ValueError, match="numbers of responses"):
        make_pair(_run([1], 1), more, {"trl": 0.0, "agapo": 0.0}, warmup=0)


def test_what_is_printed():
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00–3.00)"
    assert table(("a", "bc"), [("long", "x")]) == "a     bc\n----  --\nlong  x"


WORK = Work(model="/a/model", steps=2, prompts=16, group=4, max_new_tokens=32, kl=0.5, learning_rate=1e-6, threads=1)


def test_each_process_is_given_the_same_work():
    options = parse(side_arguments("trl", WORK))
    assert options.side == "trl"
    assert work_of(options, options.model) == WORK


def test_trl_renders_each_prompt_in_its_mode(tmp_path: Path):
    tokenizer = build_tokenizer()
    prompts = [prompt for batch in WORK.batches(WORK.recipe(tmp_path)) for prompt in batch]
    assert len(prompts) == 32 and {prompt.mode for prompt in prompts} == {"reasoning", "non_reasoning"}
    for prompt in prompts:
        assert tokenizer(row(prompt, tokenizer)["prompt"])["input_ids"] == prompt_ids(tokenizer, prompt)
