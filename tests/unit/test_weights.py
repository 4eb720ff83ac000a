"""The flat weight buffer: what is packed from one model is bit for bit in the other."""

import numpy as np
import pytest
import torch

from agapo.model.weights import load_weights, pack_weights, weight_layout
from tests.builders import tiny_exaone, tiny_qwen


def parameters(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("build", [tiny_exaone, tiny_qwen], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
class TestRoundTrip:
    def test_every_parameter_arrives(self, build, dtype):
        source, target = build(seed=0).to(dtype), build(seed=1).to(dtype)
        before = parameters(target)
        layout = weight_layout(source, dtype)
        load_weights(target, pack_weights(source, layout), layout)
        after = parameters(target)
        changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
        assert len(changed) > len(after) / 2, "the models differed, or the test would say nothing"
        for name, value in parameters(source).items():
            assert torch.equal(after[name], value), name

    def test_model_computes_the_same(self, build, dtype):
        source, target = build(seed=0).to(dtype).eval(), build(seed=1).to(dtype).eval()
        layout = weight_layout(source, dtype)
        load_weights(target, pack_weights(source, layout), layout)
        ids = torch.arange(3, 20)[None]
        with torch.no_grad():
            assert torch.equal(target(input_ids=ids).logits, source(input_ids=ids).logits)

    def test_buffer_is_flat_bytes_each_parameter_once(self, build, dtype):
        model = build().to(dtype)
        buffer = pack_weights(model, weight_layout(model, dtype))
        assert buffer.dtype == np.uint8
        distinct = {value.data_ptr(): value.numel() for value in model.state_dict().values()}
        assert buffer.shape == (sum(distinct.values()) * dtype.itemsize,)

    def test_read_only_buffer_as_ray_hands_out(self, build, dtype):
        source, target = build(seed=0).to(dtype), build(seed=1).to(dtype)
        layout = weight_layout(source, dtype)
        buffer = pack_weights(source, layout).copy()
        buffer.flags.writeable = False
        load_weights(target, buffer, layout)
        assert torch.equal(target.get_input_embeddings().weight, source.get_input_embeddings().weight)


def test_buffer_holds_the_values_in_order():
    model = tiny_exaone()
    buffer = pack_weights(model, weight_layout(model, torch.float32))
    expected = np.concatenate([value.detach().numpy().ravel() for value in model.parameters()])
    assert (buffer.view(np.float32) == expected).all()


def test_buffer_is_a_copy():
    """Rollout actors read it while the learner goes on changing its weights."""
    model = tiny_exaone()
    buffer = pack_weights(model, weight_layout(model, torch.float32))
    before = buffer.copy()
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    assert (buffer == before).all()


def test_tied_weights_stay_tied():
    source, target = tiny_qwen(seed=0), tiny_qwen(seed=1)
    layout = weight_layout(source, torch.float32)
    assert "lm_head.weight" not in layout.names
    load_weights(target, pack_weights(source, layout), layout)
    assert target.lm_head.weight is target.model.embed_tokens.weight
    assert torch.equal(target.lm_head.weight, source.lm_head.weight)


def test_bf16_buffer_of_an_fp32_model_is_rounded_once():
    model, target = tiny_exaone(seed=0), tiny_exaone(seed=1)
    layout = weight_layout(model, torch.bfloat16)
    load_weights(target, pack_weights(model, layout), layout)
    for name, value in parameters(model).items():
        assert torch.equal(target.get_parameter(name), value.bfloat16().float()), name


def test_sharded_parameters_are_gathered_one_at_a_time():
    """Stand-in for ZeRO-3: a parameter is whole only inside its own context."""
    from contextlib import contextmanager

    model, whole = tiny_exaone(), parameters(tiny_exaone())
    layout = weight_layout(model, torch.float32)
    names = {id(value): name for name, value in model.named_parameters()}
    open_now, most = set(), [0]

    @contextmanager
    def gather(parameter):
        open_now.add(id(parameter))
        most[0] = max(most[0], len(open_now))
        parameter.data = whole[names[id(parameter)]]
        yield
        parameter.data = torch.empty(0)
        open_now.remove(id(parameter))

    for value in model.parameters():
        value.data = torch.empty(0)
    buffer = pack_weights(model, layout, gather)
    expected = np.concatenate([value.numpy().ravel() for value in whole.values()])
    assert (buffer.view(np.float32) == expected).all()
    assert most == [1]
