"""vLLM's engine beside ours: the same log-probabilities as a plain forward, new weights, sleep and wake, tokens/s.

Only where vLLM is installed (docs/engines.md), so it is no part of the whole check: `--only vllm`.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import pack_weights, weight_layout
from agapo.recipe.rollout import VLLMConfig
from agapo.rollouts.actor import EngineSettings, make_engine
from agapo.rollouts.engine import SamplingParams
from agapo.rollouts.groups import sample_groups
from agapo.schema import Group
from benchmarks.gpu.batches import requests
from benchmarks.gpu.models import Shape, free, random_model
from benchmarks.gpu.setting import Setting, missing

SHARE = 0.6
"""Of the GPU's memory for vLLM: the plain model is on it too."""


def run(setting: Setting) -> None:
    """Check and time vLLM on the first shape."""
    if absent := missing(["vllm"]):
        setting.record.add("vLLM", note=f"{absent[0]} is not installed: make setup-vllm, and run this from .venv-vllm")
        return
    shape, dtype = setting.sizes.shapes[0], torch.bfloat16 if setting.device == "cuda" else torch.float32
    model: Any = random_model(Shape(shape.name, lambda: _for_vllm(shape)), setting.device, dtype).eval()
    # A vocabulary of letters: only tokens are measured.
    export_hf(model, build_tokenizer(), setting.scratch / "model")
    engine: Any = _engine(setting.scratch / "model", setting.device, dtype)
    engine.end_ids = frozenset()
    own = setting.sizes
    prompts = requests(own.correct_prompts, own.correct_prompt_tokens, model.config.vocab_size)
    params = SamplingParams(group_size=own.correct_group, max_new_tokens=own.correct_new_tokens)
    _compare(setting, "as loaded", model, sample_groups(engine, prompts, params))
    _new_weights(setting, engine, model)
    _compare(setting, "after new weights", model, sample_groups(engine, prompts, replace(params, seed=1)))
    _sleep_and_wake(setting, engine)
    _compare(setting, "after sleep and wake", model, sample_groups(engine, prompts, replace(params, seed=2)))
    for rows in own.sampling_rows:
        _speed(setting, engine, rows, model.config.vocab_size)


def _for_vllm(shape: Shape) -> PreTrainedConfig:
    config = shape.config()
    # On CPU, narrower heads are not for vLLM.
    config.head_dim = max(32, config.head_dim)
    return config


def _engine(folder: Path, device: str, dtype: torch.dtype) -> Any:
    settings = EngineSettings(
        str(folder),
        "vllm",
        dtype=str(dtype).removeprefix("torch."),
        device="cuda" if device == "cuda" else "cpu",
        vllm=VLLMConfig(gpu_memory=SHARE, cache_gib=0.25),
    )
    return make_engine(settings)


@torch.no_grad()
def _compare(setting: Setting, case: str, model: Any, groups: Sequence[Group]) -> None:
    """Record |engine − plain forward| of the sampled tokens' log-probabilities."""
    gaps = []
    for group in groups:
        for response in group.responses:
            ids = torch.tensor([[*group.prompt_ids, *response.token_ids.tolist()]], device=setting.device)
            logits = model(input_ids=ids).logits[0, len(group.prompt_ids) - 1 : -1].float()
            expected = logits.log_softmax(dim=-1).gather(1, ids[0, len(group.prompt_ids) :, None])[:, 0].cpu()
            gaps.append((torch.from_numpy(response.logprobs.copy()) - expected).abs())
    gap = torch.cat(gaps)
    figures = {"mean nats": float(gap.mean()), "largest": float(gap.max()), "tokens": float(len(gap))}
    setting.record.add(f"log-probabilities, {case}", figures)


@torch.no_grad()
def _new_weights(setting: Setting, engine: Any, model: Any) -> None:
    """Change the plain model's weights a little, and hand them over; record how long packing and taking take."""
    for parameter in model.parameters():
        parameter.mul_(1.02)
    began = time.monotonic()
    weights = pack_weights(model, weight_layout(model, model.dtype))
    packed = time.monotonic()
    engine.update_weights(weights, 1)
    taken = time.monotonic()
    figures = {"GiB": weights.buffer.nbytes / (1 << 30), "pack s": packed - began, "take s": taken - packed}
    setting.record.add("new weights through host memory", figures)


def _sleep_and_wake(setting: Setting, engine: Any) -> None:
    def used() -> float:
        if setting.device != "cuda":
            return 0.0
        available, total = torch.cuda.mem_get_info()
        return (total - available) / (1 << 30)

    awake, began = used(), time.monotonic()
    engine.sleep()
    asleep, slept = used(), time.monotonic()
    engine.wake()
    figures = {"awake GiB": awake, "asleep GiB": asleep, "sleep s": slept - began, "wake s": time.monotonic() - slept}
    setting.record.add("sleep and wake", figures)


def _speed(setting: Setting, engine: Any, rows: int, vocabulary: int) -> None:
    own = setting.sizes
    prompts = requests(rows // own.sampling_group, own.sampling_prompt_tokens, vocabulary)
    params = SamplingParams(group_size=own.sampling_group, max_new_tokens=own.sampling_new_tokens)
    sample_groups(engine, prompts, replace(params, max_new_tokens=2))
    began = time.monotonic()
    groups = sample_groups(engine, prompts, replace(params, seed=1))
    tokens = sum(len(response.token_ids) for group in groups for response in group.responses)
    setting.record.add(f"{rows} rows, vLLM", {"tokens/s": tokens / (time.monotonic() - began)})
    free(setting.device)
