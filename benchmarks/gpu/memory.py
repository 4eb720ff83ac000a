"""How much GPU memory learning and sampling take, beside what `agapo check` would say.

Learning is measured without an optimizer: weights, gradients, and the peak of log-probabilities and their backward.
"""

import torch
from transformers import PreTrainedModel

from agapo.algorithm.objective import Objective, policy_loss
from agapo.model.logprobs import LogProbModel
from agapo.model.memory import FineTuningSetup, Memory, state_parts
from agapo.model.rl_memory import learner_memory
from agapo.model.sizes import ModelSizes, config_sizes
from agapo.rollouts.engine import SamplingParams
from agapo.rollouts.engines.transformers.engine import TransformersEngine
from agapo.rollouts.groups import sample_groups
from benchmarks.gpu.batches import made_up_examples, micro_batches, requests
from benchmarks.gpu.models import NoTokenizer, Shape, free, random_model
from benchmarks.gpu.records import Figure
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.timing import GIB, allocated_gib, difference, peak_gib, reserved_gib, seconds


def run(setting: Setting) -> None:
    """Measure learning at growing micro-batches, then sampling at two widths, for a large and a larger vocabulary."""
    for shape in setting.sizes.shapes[:2]:
        for tokens in setting.sizes.memory_tokens:
            _learning(setting, shape, tokens)
        for rows in setting.sizes.sampling_rows:
            _sampling(setting, shape, rows)


def _learning(setting: Setting, shape: Shape, tokens: int) -> None:
    free(setting.device)
    before = allocated_gib(setting.device)
    model = random_model(shape, setting.device, torch.bfloat16).train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state = difference(allocated_gib(setting.device), before)
    config = model.config.get_text_config()
    case = f"{shape.name}, vocabulary {config.vocab_size:,}, learn {tokens:,} tokens"
    estimate = _estimate(config_sizes(model.config), tokens, setting.sizes.memory_row_tokens)
    try:
        peak = peak_gib(lambda: _forward_backward(setting, model, tokens, config.vocab_size), setting.device)
    except torch.cuda.OutOfMemoryError:
        setting.record.add(case, {"weights + gradients GiB": state, **estimate}, "out of memory")
        return
    above = difference(difference(peak, before), state)
    setting.record.add(case, {"weights + gradients GiB": state, "peak above them GiB": above, **estimate})


def _forward_backward(setting: Setting, model: PreTrainedModel, tokens: int, vocabulary: int) -> None:
    examples = made_up_examples(tokens, setting.sizes.memory_row_tokens, vocabulary)
    (micro,) = micro_batches(examples, tokens, "packed", setting.device)
    values, _ = LogProbModel(model)(
        micro.input_ids, micro.position_ids, micro.attention_mask, micro.predictors, micro.targets, 1.0
    )
    loss, _ = policy_loss(values, micro.tokens, Objective(), len(examples))
    loss.backward()


def _estimate(sizes: ModelSizes, tokens: int, row_tokens: int) -> dict[str, Figure]:
    """Return what `agapo check` says of the same: weights and float32 gradients, and the larger of a step's phases."""
    setup = FineTuningSetup(
        row_tokens=row_tokens, micro_rows=tokens // row_tokens, zero_stage=1, gradient_checkpointing=True
    )
    state = Memory(state_parts(sizes, setup))
    parts = learner_memory(sizes, setup, reference=False).parts
    phases = [sum(part.bytes for part in parts if part.when == when) for when in ("output layer", "backward")]
    return {
        "check: weights + gradients GiB": (state.of("weights") + state.of("gradients")) / GIB,
        "check: above them GiB": max(phases) / GIB,
    }


def _sampling(setting: Setting, shape: Shape, rows: int) -> None:
    """What an engine holds while it samples, and what comes back when it is asked for."""
    free(setting.device)
    own, device = setting.sizes, setting.device
    before = allocated_gib(device)
    model = random_model(shape, device, torch.bfloat16)
    weights = difference(allocated_gib(device), before)
    engine = TransformersEngine(model, NoTokenizer(), device)  # pyright: ignore[reportArgumentType]
    sizes = config_sizes(model.config)
    prompts = requests(rows // own.sampling_group, own.sampling_prompt_tokens, sizes.vocabulary)
    params = SamplingParams(group_size=own.sampling_group, max_new_tokens=own.sampling_new_tokens)
    columns = max(len(prompt.prompt_ids) for prompt in prompts) + own.sampling_new_tokens
    case = f"{shape.name}, sample {rows} rows of {columns} columns"
    try:
        peak = peak_gib(lambda: sample_groups(engine, prompts, params), device)
    except torch.cuda.OutOfMemoryError:
        setting.record.add(case, note="out of memory")
        return
    held = reserved_gib(device)
    free(device)
    figures: dict[str, Figure] = {
        "weights GiB": weights,
        "peak above weights GiB": difference(difference(peak, before), weights),
        "keys and values GiB": 2 * 2 * sizes.layers * sizes.keys * rows * columns / GIB,
        "empty_cache gives back GiB": difference(held, reserved_gib(device)),
    }
    setting.record.add(case, figures | _sleep(model, device))


def _sleep(model: PreTrainedModel, device: str) -> dict[str, Figure]:
    """Weights to the host and back, as an engine that sleeps would do it."""
    held = reserved_gib(device)
    away = seconds(lambda: torch.nn.Module.to(model, "cpu"), device)
    free(device)
    given = difference(held, reserved_gib(device))
    back = seconds(lambda: torch.nn.Module.to(model, device), device)
    return {"weights to the host give back GiB": given, "away s": away, "back s": back}
