"""Tokens a second and model FLOPs utilisation of a learner's step, forward to optimizer.

    operations of a token of a sequence of S:  6·N + 6·L·Q·S·k          (N weights of linear maps and head used,
                                                                        Q width of the queries)

6·N for forward and backward through the linear maps; attention's two products over S/2 earlier tokens on average, three
times, are 2·2·Q·(S/2)·3 = 6·Q·S a layer (PaLM, arXiv 2204.02311, appendix B, halved for causal attention). The head
counts for response tokens only, since prompt tokens do not go through it. What checkpointing repeats is not counted.
"""

import socket
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from agapo.algorithm.objective import Objective
from agapo.learner.rl.batching import Example
from agapo.model.operations import training_operations
from agapo.model.sizes import ModelSizes, config_sizes
from benchmarks.gpu.batches import made_up_examples
from benchmarks.gpu.models import free, random_model
from benchmarks.gpu.plain_learner import PlainLearner
from benchmarks.gpu.setting import Setting, missing
from benchmarks.gpu.timing import peak_flops, peak_gib, seconds

PUBLISHED = {
    # prime-rl's benchmarks/results/BENCHMARKS.md (2026-02-01): 1 × H100, its RL trainer alone.
    "prime-rl, Qwen3-0.6B, 16,384 tokens, as published": {"tokens/s": 11_900.0, "MFU %": 11.1},
    "prime-rl, Qwen3-0.6B, 65,536 tokens, as published": {"MFU %": 26.8},
}


def run(setting: Setting) -> None:
    """Time updates of two models at growing sequences, with and without gradient checkpointing."""
    for shape in setting.sizes.shapes[:2]:
        model = random_model(shape, setting.device, torch.bfloat16)
        sizes = config_sizes(model.config)
        learner, kind = start_learner(setting, model, shape.name)
        del model
        for tokens in setting.sizes.learn_tokens:
            for checkpointing in (True, False):
                _time(setting, f"{shape.name}, {tokens:,} tokens, {kind}", sizes, learner, tokens, checkpointing)
        del learner
        free(setting.device)
    for case, figures in PUBLISHED.items():
        setting.record.add(case, figures, "on their machine, not this one")


def start_learner(setting: Setting, model: PreTrainedModel, name: str) -> tuple[Any, str]:
    """Return (a learner with the model's weights, which kind it is): agapo's rank under ZeRO-1, or a plain one."""
    if missing(["deepspeed"]):
        return PlainLearner(model, micro_batch_tokens=1, device=setting.device), "plain AdamW in bfloat16"
    from agapo.learner.rl.rank import LearnerRank
    from agapo.learner.rl.settings import LearnerSettings
    from agapo.recipe.learner import LearnerConfig
    from agapo.recipe.model import ModelConfig

    folder = setting.scratch / name.replace(" ", "_")
    model.save_pretrained(folder)
    settings = LearnerSettings(
        model_path=str(folder),
        objective=Objective(),
        model=ModelConfig(dtype="bfloat16"),
        learner=LearnerConfig(zero_stage=1, gpus_per_rank=1.0 if setting.device == "cuda" else 0.0),
        threads=torch.get_num_threads(),
    )
    return LearnerRank(settings, rank=0, ranks=1, address="127.0.0.1", port=free_port()), "DeepSpeed ZeRO-1"


def free_port() -> int:
    """Return a port on this host that nothing listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _time(setting: Setting, case: str, sizes: ModelSizes, learner: Any, tokens: int, checkpointing: bool) -> None:
    examples = made_up_examples(setting.sizes.learn_step_tokens, tokens, sizes.vocabulary)
    case = f"{case}, checkpointing {'on' if checkpointing else 'off'}"
    _prepare(learner, tokens, checkpointing)

    def update() -> None:
        learner.update(examples, denominator=len(examples), learning_rate=1e-6)

    try:
        peak = peak_gib(update, setting.device)
        taken = seconds(update, setting.device)
    except torch.cuda.OutOfMemoryError:
        _drop_gradients(learner)
        setting.record.add(case, note="out of memory")
        return
    most = peak_flops(setting.device)
    done = operations(sizes, examples) / taken
    figures = {
        "tokens/s": setting.sizes.learn_step_tokens / taken,
        "MFU %": 100 * done / most if most else None,
        "TFLOP/s": done / 1e12,
        "step s": taken,
        "peak GiB": peak,
    }
    setting.record.add(case, figures)


def _prepare(learner: Any, tokens: int, checkpointing: bool) -> None:
    if isinstance(learner, PlainLearner):
        model, learner.micro_batch_tokens = learner.model, tokens
    else:
        model, settings = learner.policy, learner.settings
        section = settings.learner.model_copy(update={"micro_batch_tokens": tokens})
        learner.settings = replace(settings, learner=section)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def _drop_gradients(learner: Any) -> None:
    """Drop what a step that ran out of memory has left behind."""
    (learner.optimizer if isinstance(learner, PlainLearner) else learner.engine.optimizer).zero_grad()
    free("cuda")


def operations(sizes: ModelSizes, examples: list[Example]) -> float:
    """Return the floating-point operations of a step over the examples (see the module)."""
    return float(sum(training_operations(sizes, item.length, len(item.token_ids)) for item in examples))
