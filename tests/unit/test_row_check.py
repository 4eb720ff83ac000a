"""The start-up check of packed rows, against attentions that do and do not tell their sequences apart."""

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from agapo.errors import UserError
from agapo.learner.rl.batching import needs_one_row
from agapo.learner.rl.row_check import check_packed_rows, check_shared_prompts
from agapo.model.shared_prompts import ATTENTION, shared_prompt_attention
from tests.builders import tiny_exaone, tiny_gpt2, tiny_qwen


def ignores_positions(module, query, key, value, attention_mask, **options):
    """Causal over the whole row: each sequence sees those before it."""
    return sdpa_attention_forward(module, query, key, value, None, is_causal=True, scaling=options["scaling"])


def as_flash(module, query, key, value, attention_mask, **options):
    """Like flash attention in transformers: takes the boundaries from the position ids where there is one row."""
    positions = options["position_ids"]
    sequence = (positions == 0).cumsum(dim=-1)
    causal = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool).tril()
    mask = (causal & (sequence[:, :, None] == sequence[:, None]))[:, None] if len(query) == 1 else causal[None, None]
    return sdpa_attention_forward(module, query, key, value, mask, scaling=options["scaling"])


AttentionInterface.register("ignores_positions", ignores_positions)
AttentionInterface.register("one_row_only", as_flash)
MODELS = [tiny_exaone, tiny_qwen, tiny_gpt2]


def with_attention(model, name):
    model.set_attn_implementation(name)
    return model


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attentions_that_tell_sequences_apart_pass(build, dtype, attention):
    check_packed_rows(with_attention(build().to(dtype), attention), attention)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("asked", ["sdpa", "flash_attention_2"])
def test_attention_that_ignores_positions_is_refused(dtype, asked):
    model = with_attention(tiny_qwen().to(dtype), "ignores_positions")
    with pytest.raises(UserError, match="see each other") as caught:
        check_packed_rows(model, asked)
    assert str(caught.value).startswith(f"model.attention: '{asked}' with Qwen3ForCausalLM")
    assert "learner.layout=right" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flash_attention_is_right_in_one_row_only():
    model = with_attention(tiny_qwen(), "one_row_only")
    assert needs_one_row("flash_attention_2")
    check_packed_rows(model, "flash_attention_2")
    with pytest.raises(UserError, match="see each other"):
        check_packed_rows(model, "one_row_only")


def test_numbers_that_are_none_are_refused():
    model = tiny_qwen()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(UserError):
        check_packed_rows(model, "sdpa")


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_prompts_pass(build, dtype):
    check_shared_prompts(with_attention(build().to(dtype), ATTENTION))


def narrower(module, query, key, value, attention_mask, **options):
    """Sees fewer tokens where prompts are shared, as with a window of which our attention is not told."""
    window = {"sliding_window": 3} if options.get("shared_prompts") else {}
    return shared_prompt_attention(module, query, key, value, attention_mask, **options | window)


def hands_nothing_on(module, query, key, value, attention_mask, **options):
    if options.get("shared_prompts"):
        raise TypeError("forward() got an unexpected keyword argument 'shared_prompts'")
    return shared_prompt_attention(module, query, key, value, attention_mask, **options)


AttentionInterface.register("narrower", narrower)
AttentionInterface.register("hands_nothing_on", hands_nothing_on)


@pytest.mark.parametrize("attention, reason", [("narrower", "are off by"), ("hands_nothing_on", "unexpected keyword")])
def test_architectures_that_cannot_share_prompts_are_refused(attention, reason):
    with pytest.raises(UserError, match=reason) as caught:
        check_shared_prompts(with_attention(tiny_qwen(), attention))
    assert str(caught.value).startswith("learner.shared_prompts: the attention of Qwen3ForCausalLM")
    assert str(caught.value).endswith("set learner.shared_prompts=false")
