"""Are the engine's log-probabilities the learner's, on the same tokens, whatever the layout, dtype and attention?

In bfloat16 they differ by rounding; float32 beside it shows that rounding is all. A fault (a mask, a position, a
layer's window) shows in float32, and as a share of large differences.
"""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from agapo.learner.rl.batching import Example
from agapo.model.logprobs import LogProbModel, logprobs_and_entropy, output_head
from agapo.rollouts.engine import SamplingParams
from agapo.rollouts.engines.transformers.engine import TransformersEngine
from agapo.rollouts.groups import sample_groups
from benchmarks.gpu.batches import examples_of_groups, logprobs, one_a_row, one_row, requests, two_a_row
from benchmarks.gpu.models import NoTokenizer, Shape, free, in_float32, random_model
from benchmarks.gpu.records import Figure
from benchmarks.gpu.setting import Setting

LARGE = 0.1
"""Nats: a difference that rounding rarely makes."""


def run(setting: Setting) -> None:
    """Compare, for each model, in bfloat16 and float32."""
    for shape in setting.sizes.shapes:
        model = random_model(shape, setting.device, torch.bfloat16)
        truth = in_float32(model)
        _compare(setting, f"{shape.name}, float32", truth, truth)
        examples = _compare(setting, f"{shape.name}, bfloat16", model, truth)
        _flash(setting, shape, model, examples)
        _head(setting, shape, truth)
        del model, truth
        free(setting.device)


def _compare(setting: Setting, case: str, model: PreTrainedModel, truth: PreTrainedModel) -> list[Example]:
    """Sample with the engine; set the learner's layouts against it, and all of them against float32."""
    examples = _sample(setting, model)
    ours = torch.from_numpy(np.concatenate([item.sampler_logprobs for item in examples]))
    found = {"engine": ours}
    learner = LogProbModel(model.train())
    model.set_attn_implementation("sdpa")
    found["learner packed"] = logprobs(learner, two_a_row(examples, setting.device))
    found["learner"] = logprobs(learner, one_a_row(examples, setting.device))
    for one, other in (("engine", "learner packed"), ("learner packed", "learner")):
        setting.record.add(f"{case}: {one} – {other}", differences(found[one], found[other]))
    if model is not truth:
        exact = logprobs(LogProbModel(truth.train()), one_a_row(examples, setting.device))
        for name, values in found.items():
            setting.record.add(f"{case}: {name} – float32 learner", differences(values, exact))
    return examples


def _sample(setting: Setting, model: PreTrainedModel) -> list[Example]:
    own = setting.sizes
    engine = TransformersEngine(model, NoTokenizer(), setting.device)  # pyright: ignore[reportArgumentType]
    prompts = requests(own.correct_prompts, own.correct_prompt_tokens, model.config.get_text_config().vocab_size)
    params = SamplingParams(group_size=own.correct_group, max_new_tokens=own.correct_new_tokens)
    return examples_of_groups(sample_groups(engine, prompts, params))


def differences(one: Tensor, other: Tensor) -> dict[str, Figure]:
    """Return how far two lists of log-probabilities [T] are apart, in nats."""
    gap = one.double() - other.double()
    return {
        "mean abs": float(gap.abs().mean()),
        "max abs": float(gap.abs().max()),
        f"share > {LARGE:g}": float((gap.abs() > LARGE).double().mean()),
        "bias": float(gap.mean()),
    }


def _flash(setting: Setting, shape: Shape, model: PreTrainedModel, examples: list[Example]) -> None:
    """Flash attention against SDPA: packed in one row, and in several (which transformers cannot tell apart)."""
    if setting.device != "cuda" or not is_flash_attn_2_available():
        setting.record.add(f"{shape.name}, flash attention", note="not installed, or no GPU")
        return
    learner, device = LogProbModel(model.train()), setting.device
    expected = logprobs(learner, one_a_row(examples, device))
    model.set_attn_implementation("flash_attention_2")
    several = logprobs(learner, two_a_row(examples, device))
    single = logprobs(learner, [one_row(examples, device)])
    setting.record.add(f"{shape.name}, bfloat16: flash attention in one row – sdpa", differences(single, expected))
    setting.record.add(
        f"{shape.name}, bfloat16: flash attention in several rows – sdpa", differences(several, expected)
    )
    model.set_attn_implementation("sdpa")


def _head(setting: Setting, shape: Shape, model: PreTrainedModel) -> None:
    """The chunked head against the dense one: log-probabilities, and gradients of states and weights."""
    head, config = output_head(model), model.config.get_text_config()
    generator = torch.Generator(setting.device).manual_seed(0)
    options = {"generator": generator, "device": setting.device}
    states = 3 * torch.randn(setting.sizes.head_tokens, config.hidden_size, **options)
    targets = torch.randint(config.vocab_size, (len(states),), **options)
    outcomes = [_head_gradients(head, states, targets, dense) for dense in (False, True)]
    (values, *gradients), (exact, *exact_gradients) = outcomes
    apart = [float((one - two).norm() / two.norm()) for one, two in zip(gradients, exact_gradients, strict=True)]
    figures = {**differences(values, exact), "states' gradient": apart[0], "head's gradient": apart[1]}
    setting.record.add(f"{shape.name}, float32: chunked head – dense head", figures)


def _head_gradients(head: torch.nn.Module, states: Tensor, targets: Tensor, dense: bool) -> list[Tensor]:
    """Return (log-probabilities [T], gradient of the states [T, d], of the head [V, d])."""
    states = states.clone().requires_grad_()
    if dense:
        values = head(states).log_softmax(dim=-1).gather(-1, targets[:, None]).squeeze(-1)
    else:
        values, _ = logprobs_and_entropy(head, states, targets)
    inputs = [states, head.get_parameter("weight")]
    gradients = torch.autograd.grad((values * torch.linspace(-1, 1, len(values), device=values.device)).sum(), inputs)
    return [values.detach().cpu(), *(gradient.cpu() for gradient in gradients)]
