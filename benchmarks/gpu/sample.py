"""Tokens a second of our engine beside transformers' own `generate`, and how much of a step the host takes."""

from collections.abc import Callable, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.engines.transformers.engine import TransformersEngine
from agapo.rollouts.groups import sample_groups
from benchmarks.gpu.batches import requests
from benchmarks.gpu.models import NoTokenizer, free, random_model
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.timing import kernel_seconds, seconds

Sampler = Callable[[int], int]
"""Samples so many new tokens a row; returns how many it made."""


def run(setting: Setting) -> None:
    """Sample with both at each width; all rows run to the limit, as random weights never end."""
    own = setting.sizes
    for shape in own.shapes[:1]:
        model = random_model(shape, setting.device, torch.bfloat16).eval()
        for rows in own.sampling_rows:
            prompts = requests(rows // own.sampling_group, own.sampling_prompt_tokens, model.config.vocab_size)
            case = f"{shape.name}, {rows} rows"
            for name, sampler in _samplers(setting, model, prompts).items():
                _time(setting, f"{case}, {name}", sampler)
                free(setting.device)


def _samplers(setting: Setting, model: PreTrainedModel, prompts: Sequence[PromptRequest]) -> dict[str, Sampler]:
    return {"engine": _engine(setting, model, prompts), "generate": _generate(setting, model, prompts)}


def _engine(setting: Setting, model: PreTrainedModel, prompts: Sequence[PromptRequest]) -> Sampler:
    def sample(new_tokens: int) -> int:
        engine = TransformersEngine(model, NoTokenizer(), setting.device)  # pyright: ignore[reportArgumentType]
        params = SamplingParams(group_size=setting.sizes.sampling_group, max_new_tokens=new_tokens)
        groups = sample_groups(engine, prompts, params)
        model.set_attn_implementation("sdpa")
        return sum(len(response.token_ids) for group in groups for response in group.responses)

    return sample


def _generate(setting: Setting, model: PreTrainedModel, prompts: Sequence[PromptRequest]) -> Sampler:
    longest = max(len(prompt.prompt_ids) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt.prompt_ids) :] = torch.tensor(prompt.prompt_ids)
        mask[row, longest - len(prompt.prompt_ids) :] = 1
    inputs = {"input_ids": ids.to(setting.device), "attention_mask": mask.to(setting.device)}

    def sample(new_tokens: int) -> int:
        config = GenerationConfig(
            do_sample=True,
            top_k=0,
            max_new_tokens=new_tokens,
            num_return_sequences=setting.sizes.sampling_group,
            pad_token_id=0,
        )
        found = model.generate(**inputs, generation_config=config)  # pyright: ignore[reportCallIssue]
        return (found.shape[1] - longest) * found.shape[0]

    return sample


def _time(setting: Setting, case: str, sampler: Sampler) -> None:
    """Time the whole, and between two lengths a step's wall clock and kernels: prefill and set-up cancel out."""
    device, new = setting.device, setting.sizes.sampling_new_tokens
    few, more = max(1, new // 8), max(2, new // 4)
    try:
        sampler(2)
        made: list[int] = []
        taken = seconds(lambda: made.append(sampler(new)), device)
        step = (seconds(lambda: sampler(more), device) - seconds(lambda: sampler(few), device)) / (more - few)
        kernels = [kernel_seconds(lambda count=count: sampler(count), device) for count in (more, few)]
    except torch.cuda.OutOfMemoryError:
        setting.record.add(case, note="out of memory")
        return
    on_gpu = None if None in kernels else (kernels[0] - kernels[1]) / (more - few)  # pyright: ignore
    figures = {
        "tokens/s": made[0] / taken,
        "whole s": taken,
        "step ms": 1e3 * step,
        "kernels ms": None if on_gpu is None else 1e3 * on_gpu,
        "host ms": None if on_gpu is None else 1e3 * (step - on_gpu),
    }
    setting.record.add(case, figures)
