"""A learner's forward and backward with each group's prompt once, beside rows that repeat it for every response.

Both sides learn the same made-up groups with the same weights, in turns in one process: no optimizer, no DeepSpeed. A
token counts wherever a response has it, also where its prompt was shared, so tokens a second compare the same work.
Seconds are those of the CPU, which other work on the machine changes least.
"""

import argparse
import time
from collections.abc import Sequence
from statistics import mean, median

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from agapo.algorithm.objective import Objective, policy_loss
from agapo.learner.rl.batching import Example, MicroBatch, collate, plan_ranks
from agapo.learner.rl.shared_rows import collate_shared, plan_shared
from agapo.model.logprobs import LogProbModel
from agapo.model.shared_prompts import ATTENTION

GROUPS, RESPONSES = 2, 8


def small_llama(dtype: torch.dtype, vocabulary: int) -> LlamaForCausalLM:
    """Return a model of SmolLM2-135M's shape with a third of its layers, and random weights."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=10,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    nn.Module.to(model, dtype)
    return model


def made_up_groups(prompt: int, response: int, vocabulary: int) -> list[Example]:
    """Return groups whose responses are `response` tokens on average, from two thirds of it to four thirds."""
    draw = np.random.default_rng(0)
    examples: list[Example] = []
    for group in range(GROUPS):
        ids = draw.integers(0, vocabulary, prompt).astype(np.int32)
        for length in np.linspace(response * 2 // 3, response * 4 // 3, RESPONSES).astype(int):
            tokens = draw.integers(0, vocabulary, length).astype(np.int32)
            sampled = np.full(length, -np.log(vocabulary), np.float32)
            examples.append(Example(ids, tokens, sampled, np.ones(length, np.bool_), draw.normal(), 1.0, group))
    return examples


def repeated(examples: Sequence[Example], budget: int) -> list[MicroBatch]:
    """Return micro-batches whose rows repeat the prompts."""
    lengths = [item.length for item in examples]
    (plans,) = plan_ranks(lengths, ranks=1, budget=budget, layout="packed")
    return [collate(examples, plan, "packed") for plan in plans]


def shared(examples: Sequence[Example], budget: int) -> list[MicroBatch]:
    """Return micro-batches in which a group's responses share their prompt."""
    (plans,) = plan_shared(examples, ranks=1, budget=budget)
    return [collate_shared(examples, plan) for plan in plans]


def seconds(model: LlamaForCausalLM, micros: Sequence[MicroBatch]) -> tuple[float, float]:
    """Return the seconds of a forward and backward over the micro-batches, and the loss."""
    learner, total = LogProbModel(model), 0.0
    begin = time.process_time()
    for micro in micros:
        inputs = (micro.input_ids, micro.position_ids, None, micro.predictors, micro.targets)
        logprobs, _ = learner(*inputs, 1.0, shared_prompts=micro.shared_prompts)
        loss, _ = policy_loss(logprobs, micro.tokens, Objective(), GROUPS * RESPONSES)
        loss.backward()
        total += float(loss.detach())
    taken = time.process_time() - begin
    model.zero_grad()
    return taken, total


def main() -> None:
    """Print a line a pair, and the gain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--response", type=int, default=128, help="tokens of a response, on average")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--vocabulary", type=int, default=49_152, help="the head is the same work on both sides")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=int, default=4096, help="tokens of a micro-batch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = small_llama(getattr(torch, args.dtype), args.vocabulary)
    examples = made_up_groups(args.prompt, args.response, model.config.vocab_size)
    tokens = sum(item.length for item in examples)
    sides = {"repeated": repeated(examples, args.budget), "shared": shared(examples, args.budget)}
    gains: list[float] = []
    for pair in range(args.pairs + 1):
        found: dict[str, tuple[float, float]] = {}
        for side in sides if pair % 2 else reversed(sides):
            model.set_attn_implementation(ATTENTION if side == "shared" else "sdpa")
            found[side] = seconds(model, sides[side])
        (old, loss), (new, same) = found["repeated"], found["shared"]
        note = "" if pair else "  (warm-up, not counted)"
        print(f"repeated {tokens / old:7.0f} tokens/s  shared {tokens / new:7.0f}  gain {old / new:.2f}{note}")
        print(f"         loss {loss:.6f}                 {same:.6f}", flush=True)
        if pair:
            gains.append(old / new)
    print(f"{GROUPS} groups of {RESPONSES}, prompt {args.prompt}, response {args.response}, {args.dtype}: "
          f"gain {mean(gains):.2f}, median {median(gains):.2f} ({min(gains):.2f} to {max(gains):.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
