"""Log-probabilities and entropies against a dense float64 log-softmax, in chunks and in one piece."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from agapo.errors import UserError
from agapo.model import logprobs as module
from agapo.model.logprobs import HeadLogProbs, LogProbModel, check_head, logprobs_and_entropy
from tests.builders import tiny_exaone, tiny_gpt2, tiny_qwen, token_logprobs

TOKENS, WIDTH, VOCABULARY = 7, 6, 11


@pytest.fixture
def head():
    torch.manual_seed(0)
    return nn.Linear(WIDTH, VOCABULARY, bias=False)


@pytest.fixture
def hidden():
    return torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).mul_(2).requires_grad_()


TARGETS = torch.tensor([0, 10, 3, 3, 5, 1, 9])


def dense(head, hidden, temperature):
    """(log π(target), entropy) [T] in float64."""
    table = (hidden.double() @ head.weight.double().T / temperature).log_softmax(dim=-1)
    return table[torch.arange(len(TARGETS)), TARGETS], -(table.exp() * table).sum(dim=-1)


@pytest.fixture(params=["dense", "chunks of 3", "chunks of 1"])
def chunked(request, monkeypatch):
    """Run the head on all tokens at once, or on a few at a time."""
    elements = {"dense": 10**6, "chunks of 3": 3 * VOCABULARY + 1, "chunks of 1": 1}[request.param]
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", elements)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
class TestValues:
    def test_log_probabilities_and_entropy(self, head, hidden, temperature):
        found = logprobs_and_entropy(head, hidden, TARGETS, temperature)
        for value, expected in zip(found, dense(head, hidden, temperature), strict=True):
            torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)

    def test_gradients(self, head, hidden, temperature):
        weights = torch.linspace(-1, 2, TOKENS)
        found, _ = logprobs_and_entropy(head, hidden, TARGETS, temperature)
        expected, _ = dense(head, hidden, temperature)
        ours = torch.autograd.grad((weights * found).sum(), [hidden, head.weight])
        theirs = torch.autograd.grad((weights * expected).sum(), [hidden, head.weight])
        for value, exact in zip(ours, theirs, strict=True):
            torch.testing.assert_close(value, exact, rtol=1e-5, atol=1e-6)

    def test_entropy_has_no_gradient_and_both_are_fp32(self, head, hidden, temperature):
        chosen, entropy = logprobs_and_entropy(head.bfloat16(), hidden.bfloat16(), TARGETS, temperature)
        assert not entropy.requires_grad
        assert chosen.requires_grad
        assert chosen.dtype == entropy.dtype == torch.float32


@pytest.fixture
def logits_sizes(monkeypatch):
    """How many rows of logits each product with the head's weight has made."""
    sizes, linear = [], functional.linear

    def counted(states, *others):
        sizes.append(len(states))
        return linear(states, *others)

    monkeypatch.setattr(functional, "linear", counted)
    return sizes


def test_never_more_than_a_chunk_of_logits_at_once(head, hidden, logits_sizes, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 3 * VOCABULARY)
    found, _ = logprobs_and_entropy(head, hidden, TARGETS)
    assert logits_sizes == [3, 3, 1]
    found.sum().backward()
    assert sorted(logits_sizes) == [1, 1, 3, 3, 3, 3], "each chunk is run once more in the backward"


@pytest.mark.usefixtures("chunked")
def test_entropy_is_left_out_where_nobody_asks(head, hidden, monkeypatch):
    whole, _ = logprobs_and_entropy(head, hidden, TARGETS)
    monkeypatch.setattr(torch.Tensor, "exp", lambda _: pytest.fail("a second pass over the vocabulary"))
    chosen, entropy = logprobs_and_entropy(head, hidden, TARGETS, entropy=False)
    assert torch.equal(chosen, whole)
    assert entropy.shape == (0,)


def test_weight_is_read_once_a_micro_batch(head, hidden, monkeypatch):
    """Under ZeRO-3 each read, and each call of the head, is a gather over all ranks."""
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", VOCABULARY)
    reads, calls, read = [], [], head.get_parameter
    monkeypatch.setattr(head, "get_parameter", lambda name: reads.append(name) or read(name))
    head.register_forward_hook(lambda *_: calls.append(1))
    HeadLogProbs()(head, hidden, TARGETS, 1.0, True)[0].sum().backward()
    assert (reads, calls) == (["weight"], [])


def test_head_with_a_bias():
    head = nn.Linear(WIDTH, VOCABULARY)
    states = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    expected = head(states).double().log_softmax(dim=-1)[torch.arange(TOKENS), TARGETS]
    torch.testing.assert_close(logprobs_and_entropy(head, states, TARGETS)[0].double(), expected, rtol=0, atol=1e-6)


@given(st.floats(0.01, 50.0))
def test_sharp_and_flat_distributions(temperature):
    """Logits up to ±1000: probabilities of 0 and 1 give no NaN."""
    head = nn.Linear(1, 3, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[10.0], [0.0], [-10.0]]))
    found, entropy = logprobs_and_entropy(head, torch.ones(3, 1), torch.arange(3), temperature)
    table = (torch.tensor([10.0, 0.0, -10.0], dtype=torch.float64) / temperature).log_softmax(0)
    torch.testing.assert_close(found.double(), table, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), -(table.exp() * table).sum().expand(3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [tiny_exaone, tiny_qwen])
def test_model_gives_the_log_probabilities_of_the_predicted_tokens(build):
    model = build().eval()
    prompt, answer = [7, 8, 9], [20, 30, 40, 50]
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        expected = token_logprobs(model, prompt, answer, temperature=0.7)
        inputs = (ids, torch.arange(7)[None], None, torch.tensor([2, 3, 4, 5]), torch.tensor(answer), 0.7)
        found, _ = LogProbModel(model)(*inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


class Scaled(nn.Module):
    """A causal language model that multiplies its logits after the head, as Cohere's and Granite's do."""

    def __init__(self, scale):
        super().__init__()
        self.inner = tiny_exaone()
        self.base_model = self.inner.base_model
        self.scale = scale

    def get_output_embeddings(self):
        return self.inner.get_output_embeddings()

    def forward(self, **inputs):
        output = self.inner(**inputs)
        output.logits = output.logits * self.scale
        return output


class TestCheckHead:
    @pytest.mark.parametrize("build", [tiny_exaone, tiny_qwen])
    def test_plain_heads_pass(self, build):
        check_head(build())
        check_head(build().bfloat16())

    def test_unscaled_fake_passes(self):
        check_head(Scaled(1.0))

    @pytest.mark.parametrize("scale", [0.5, 1.1, 2.0])
    def test_scaled_logits_are_refused(self, scale):
        with pytest.raises(UserError, match="Scaled changes its logits after the output embedding") as caught:
            check_head(Scaled(scale))
        assert "\n" not in str(caught.value)

    def test_real_architecture_with_a_soft_cap_is_refused(self):
        from transformers import Gemma2Config, Gemma2ForCausalLM

        config = Gemma2Config(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            final_logit_softcapping=1.0,
            initializer_range=0.5,
        )
        with pytest.raises(UserError, match="Gemma2ForCausalLM"):
            check_head(Gemma2ForCausalLM(config))

    @pytest.mark.parametrize("rate", [0.1, 0.0])
    def test_dropout_is_refused(self, rate):
        """While learning, the policy would not be the one that sampled."""
        model = tiny_gpt2(dropout=rate).train()
        with pytest.raises(UserError, match="has dropout") if rate else nullcontext():
            check_head(model)


@pytest.mark.parametrize("dtype, within", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_gradients_of_many_chunks_are_those_of_float64(dtype, within, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 4 * 500)
    torch.manual_seed(0)
    head, hidden = nn.Linear(32, 500, bias=True).to(dtype), torch.randn(256, 32).to(dtype).requires_grad_()
    targets, upstream = torch.randint(500, (256,)), torch.randn(256)
    wanted = [hidden, *head.parameters()]
    found = torch.autograd.grad(logprobs_and_entropy(head, hidden, targets, 0.7)[0] @ upstream, wanted)
    exact = [item.detach().double().requires_grad_() for item in wanted]
    logits = functional.linear(*exact) / 0.7
    expected = torch.autograd.grad(logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0] @ upstream.double(), exact)
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < within
