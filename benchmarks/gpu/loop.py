"""The RL loop on one GPU, learner and engine together, time by phase.

Where Ray, DeepSpeed and the verifiers are installed it is the stage as `agapo rl` runs it; elsewhere the same pieces
(prompts, engine, selection and advantages, learner, weights) one after another in this process.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from agapo.algorithm.sampling import make_batch
from agapo.chat import final_answer, prompt_ids
from agapo.learner.rl.batching import examples_of
from agapo.model.loading import create_model, export_hf, load_model, load_tokenizer
from agapo.model.tokenizer import build_tokenizer
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.engines.transformers.engine import TransformersEngine
from agapo.rollouts.groups import sample_groups
from agapo.schema import Group, Prompt, Response
from benchmarks.gpu.learn import start_learner
from benchmarks.gpu.models import weights_folder
from benchmarks.gpu.records import Figure
from benchmarks.gpu.setting import Setting, missing

SYSTEM = ("ray", "deepspeed", "pydantic", "math_verify", "yaml", "rich", "psutil")
"""What the stage itself needs."""
GROUP_SIZE = 8
PHASES = ("generate", "score", "learn", "sync", "other")


def run(setting: Setting) -> None:
    """Run a few steps with the tiny model, and with real weights where there are some."""
    lacking = missing(SYSTEM)
    how = f"in one process: {', '.join(lacking)} not installed" if lacking else "Ray, DeepSpeed, verifiers"
    for name, folder in _models(setting):
        figures = _pieces(setting, folder) if lacking else _system(setting, folder)
        setting.record.add(f"{name}, a step", figures, how)
    if not setting.weights:
        setting.record.add("real weights", note="none given (--weights FOLDER or FILE.gguf)")


def _models(setting: Setting) -> Iterator[tuple[str, Path]]:
    """The one that says more comes first, should time run out."""
    if setting.weights:
        yield setting.weights.stem, weights_folder(setting.weights, setting.scratch)
    tokenizer = build_tokenizer()
    tiny = setting.scratch / "tiny"
    export_hf(create_model(tokenizer, seed=0), tokenizer, tiny)
    yield "tiny model", tiny


# --- as the stage does it ---


def _system(setting: Setting, folder: Path) -> dict[str, Figure]:
    from benchmarks import agapo_side
    from benchmarks.work import Work

    own, share = setting.sizes, 0.5 if setting.device == "cuda" else 0.0
    work = Work(
        model=str(folder),
        steps=own.run_steps,
        prompts=own.run_prompts,
        group=GROUP_SIZE,
        max_new_tokens=own.run_new_tokens,
        kl=0.0,
        learning_rate=1e-6,
        threads=1,
        changes=(
            "model.dtype=bfloat16",
            "rollout.actors=1",
            f"rollout.gpus_per_actor={share}",
            "learner.ranks=1",
            f"learner.gpus_per_rank={share}",
            "learner.zero_stage=1",
        ),
    )
    steps = agapo_side.run(work).steps
    tokens = [step.tokens for step in steps]
    return _figures([step.seconds for step in steps], [step.phases for step in steps], tokens)


def _figures(seconds: Sequence[float], phases: Sequence[dict[str, float]], tokens: Sequence[int]) -> dict[str, Figure]:
    """Return medians over the steps but the first, which warms up."""

    def middle(values: Sequence[float]) -> float:
        return median(values[1:] or values)

    return {
        "step s": middle(seconds),
        **{f"{name} s": middle([item.get(name, 0.0) for item in phases]) for name in PHASES},
        "tokens a step": middle(tokens),
        "tokens/s": middle([count / taken for count, taken in zip(tokens, seconds, strict=True)]),
    }


# --- the same pieces in one process ---


def _pieces(setting: Setting, folder: Path) -> dict[str, Figure]:
    tokenizer = load_tokenizer(folder)
    engine = TransformersEngine(load_model(folder, dtype="bfloat16"), tokenizer, setting.device)
    model = load_model(folder, dtype="bfloat16")
    torch.nn.Module.to(model, setting.device)
    learner, _ = start_learner(setting, model, folder.name)
    judge = _judge()
    seconds, phases, tokens = [], [], []
    for step in range(setting.sizes.run_steps):
        clock: dict[str, float] = {}
        started = time.perf_counter()
        groups = _step(setting, step, engine, tokenizer, learner, judge, clock)
        seconds.append(time.perf_counter() - started)
        phases.append(clock | {"other": seconds[-1] - sum(clock.values())})
        tokens.append(sum(len(response.token_ids) for group in groups for response in group.responses))
    return _figures(seconds, phases, tokens)


def _step(
    setting: Setting,
    step: int,
    engine: TransformersEngine,
    tokenizer: PreTrainedTokenizerBase,
    learner: Any,
    judge: Callable[[Group], Group],
    clock: dict[str, float],
) -> list[Group]:
    own = setting.sizes
    prompts = [
        PromptRequest(prompt, tuple(prompt_ids(tokenizer, prompt))) for prompt in _prompts(step, own.run_prompts)
    ]
    params = SamplingParams(group_size=GROUP_SIZE, max_new_tokens=own.run_new_tokens)
    with _phase(clock, "generate", setting.device):
        groups = sample_groups(engine, prompts, params)
    with _phase(clock, "score", setting.device):
        groups = [judge(group) for group in groups]
    with _phase(clock, "learn", setting.device):
        batch = make_batch(groups, [], nominal_responses=own.run_prompts * GROUP_SIZE, all_wrong_penalty=0.1)
        examples = [item for item in examples_of(batch) if item.advantage]
        learner.update(examples, denominator=batch.nominal_responses, learning_rate=1e-6)
    with _phase(clock, "sync", setting.device):
        engine.update_weights(learner.weights(), step + 1)
    return groups


def _prompts(step: int, count: int) -> list[Prompt]:
    from data.arithmetic import prompts

    rows = list(prompts("train", size=64 + count))[step * count : (step + 1) * count]
    return [
        Prompt(id=f"{step}/{n}", messages=tuple(row["messages"]), columns={"answer": row["answer"]})
        for n, row in enumerate(rows)
    ]


def _judge() -> Callable[[Group], Group]:
    """Return what gives a group its rewards: the last characters of an answer, without the verifiers' libraries."""

    def judged(response: Response, prompt: Prompt) -> Response:
        answer = final_answer(response.text, prompt.mode) or ""
        right = answer.strip().endswith(str(prompt.columns["answer"]))
        return replace(response, reward=float(right), correct=right)

    return lambda group: replace(group, responses=tuple(judged(item, group.prompt) for item in group.responses))


@contextmanager
def _phase(clock: dict[str, float], name: str, device: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    if device == "cuda":
        torch.cuda.synchronize()
    clock[name] = clock.get(name, 0.0) + time.perf_counter() - started
