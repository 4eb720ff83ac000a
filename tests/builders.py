"""Small models and records that several tests share. Everything here is cheap and the same on every run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    Exaone4ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from agapo.learner.rl.batching import Example
from agapo.model.loading import create_model
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import trained_parameters
from agapo.schema import Finish, Group, Prompt, Response, Segment

# Matrices this small lose by a second thread, and on a busy machine they lose a lot.
torch.set_num_threads(1)

WINDOW = 5
"""The sliding window of `tiny_exaone`: shorter than the sequences of the tests."""


def tiny_exaone(seed: int = 0, *, head_dim: int = 8) -> Exaone4ForCausalLM:
    """Return an EXAONE 4 of 40,000 parameters: layers 1 and 3 slide over 5 tokens, 2 and 4 are global.

    vLLM's attention wants a `head_dim` of 32 or more.
    """
    return create_model(
        build_tokenizer(),
        seed=seed,
        hidden_size=32,
        intermediate_size=64,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=head_dim,
        sliding_window=WINDOW,
        sliding_window_pattern=2,
        max_position_embeddings=256,
    )


def tiny_qwen(seed: int = 0, *, head_dim: int = 8, **changes: object) -> Qwen3ForCausalLM:
    """Return a Qwen3 of about the same size: every layer global, embeddings tied."""
    config = Qwen3Config(
        vocab_size=len(build_tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=256,
        initializer_range=32**-0.5,
        tie_word_embeddings=True,
        **changes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def stirred(model: Any, seed: int = 0) -> Any:
    """Let a model's adapters, or whatever of it is trained, do something; return it. The same for the same seed."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in trained_parameters(model).values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def tiny_gpt2(seed: int = 0, dropout: float = 0.0) -> GPT2LMHeadModel:
    """Return a GPT-2: learned absolute positions, which notice a shift, and no layer types in its config."""
    config = GPT2Config(
        vocab_size=len(build_tokenizer()),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=256,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        initializer_range=32**-0.5,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def token_logprobs(
    model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int], temperature: float = 1.0
) -> Tensor:
    """Return log π(response) [T] from a plain forward over the one sequence, in the model's dtype."""
    ids = torch.tensor([[*prompt, *response]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(dim=-1).gather(-1, torch.tensor(response)[:, None]).squeeze(-1)


def response(
    reward: float | None = None,
    *,
    correct: bool | None = None,
    finish: Finish = "stop",
    tokens: Sequence[int] = (5,),
    text: str = "",
) -> Response:
    """Return a response; unless said otherwise it is correct when its reward is 1."""
    verdict = correct if correct is not None or reward is None else reward == 1
    segment = Segment(np.array(tokens), np.full(len(tokens), -1.0))
    return Response((segment,), text=text, finish=finish, reward=reward, correct=verdict)


def group(*rewards: float | None, name: str = "p") -> Group:
    """Return a group whose responses have these rewards."""
    prompt = Prompt(id=name, messages=({"role": "user", "content": name},))
    return Group(prompt=prompt, prompt_ids=(3, 4), responses=tuple(response(reward) for reward in rewards))


def example(prompt: Sequence[int], tokens: Sequence[int], **changes: object) -> Example:
    """Return an example with made-up numbers where none are given."""
    made_up = {
        "sampler_logprobs": (-2.0,) * len(tokens),
        "trained": (True,) * len(tokens),
        "advantage": 1.0,
        "kl_weight": 1.0,
        "group": 0,
    }
    fields = made_up | changes
    return Example(
        prompt_ids=np.array(prompt, np.int32),
        token_ids=np.array(tokens, np.int32),
        sampler_logprobs=np.array(fields.pop("sampler_logprobs"), np.float32),
        trained=np.array(fields.pop("trained"), np.bool_),
        **fields,
    )
