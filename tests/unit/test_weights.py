"""The flat weight buffer: what is packed from one model is bit for bit in the other."""

import numpy as np
import pytest
import torch

from agapo.errors import UserError
from agapo.model.weights import (
    WeightLayout,
    bit_sum,
    empty_buffer,
    load_weights,
    pack_weights,
    require_loaded,
    weight_layout,
)
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
        load_weights(target, pack_weights(source, layout))
        after = parameters(target)
        changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
        assert len(changed) > len(after) / 2, "the models differed, or the test would say nothing"
        for name, value in parameters(source).items():
            assert torch.equal(after[name], value), name

    def test_model_computes_the_same(self, build, dtype):
        source, target = build(seed=0).to(dtype).eval(), build(seed=1).to(dtype).eval()
        layout = weight_layout(source, dtype)
        load_weights(target, pack_weights(source, layout))
        ids = torch.arange(3, 20)[None]
        with torch.no_grad():
            assert torch.equal(target(input_ids=ids).logits, source(input_ids=ids).logits)

    def test_buffer_is_flat_bytes_each_parameter_once(self, build, dtype):
        model = build().to(dtype)
        buffer = pack_weights(model, weight_layout(model, dtype)).buffer
        assert buffer.dtype == np.uint8
        distinct = {value.data_ptr(): value.numel() for value in model.state_dict().values()}
        assert buffer.shape == (sum(distinct.values()) * dtype.itemsize,)

    def test_read_only_buffer_as_ray_hands_out(self, build, dtype):
        source, target = build(seed=0).to(dtype), build(seed=1).to(dtype)
        layout = weight_layout(source, dtype)
        weights = pack_weights(source, layout)
        weights.buffer.flags.writeable = False
        load_weights(target, weights)
        assert torch.equal(target.get_input_embeddings().weight, source.get_input_embeddings().weight)


def test_buffer_holds_the_values_in_order():
    model = tiny_exaone()
    buffer = pack_weights(model, weight_layout(model, torch.float32)).buffer
    expected = np.concatenate([value.detach().numpy().ravel() for value in model.parameters()])
    assert (buffer.view(np.float32) == expected).all()


def test_buffer_is_a_copy():
    """Rollout actors read it while the learner goes on changing its weights."""
    model = tiny_exaone()
    buffer = pack_weights(model, weight_layout(model, torch.float32)).buffer
    before = buffer.copy()
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    assert (buffer == before).all()


def test_tied_weights_stay_tied():
    source, target = tiny_qwen(seed=0), tiny_qwen(seed=1)
    layout = weight_layout(source, torch.float32)
    assert "lm_head.weight" not in layout.names
    load_weights(target, pack_weights(source, layout))
    assert target.lm_head.weight is target.model.embed_tokens.weight
    assert torch.equal(target.lm_head.weight, source.lm_head.weight)


def test_bf16_buffer_of_an_fp32_model_is_rounded_once():
    model, target = tiny_exaone(seed=0), tiny_exaone(seed=1)
    layout = weight_layout(model, torch.bfloat16)
    load_weights(target, pack_weights(model, layout))
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
    buffer = pack_weights(model, layout, gather).buffer
    expected = np.concatenate([value.numpy().ravel() for value in whole.values()])
    assert (buffer.view(np.float32) == expected).all()
    assert most == [1]


class TestArrival:
    """That the weights are in a model is seen from the sums of their bits."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("build", [tiny_exaone, tiny_qwen], ids=["untied", "tied"])
    def test_all_is_well(self, build, dtype):
        source, target = build(seed=0).to(dtype), build(seed=1).to(dtype)
        weights = pack_weights(source, weight_layout(source, dtype))
        load_weights(target, weights)
        require_loaded(target, weights, 3)

    @pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.mlp.up_proj.weight"])
    def test_one_parameter_that_stayed_is_named(self, name):
        source, target = tiny_exaone(seed=0), tiny_exaone(seed=1)
        with torch.no_grad():
            source.get_parameter(name).mul_(1.5)
        weights = pack_weights(source, weight_layout(source, torch.float32))
        kept = target.get_parameter(name).detach().clone()
        load_weights(target, weights)
        with torch.no_grad():
            target.get_parameter(name).copy_(kept)
        with pytest.raises(UserError, match=f"weights 3 these .* not the learner's: {name}\\. Nothing was sampled"):
            require_loaded(target, weights, 3)

    def test_parameters_that_were_never_sent_are_named(self):
        source, target = tiny_exaone(seed=0), tiny_exaone(seed=0)
        layout = weight_layout(source, torch.float32)
        weights = pack_weights(source, WeightLayout(layout.names[2:], layout.shapes[2:], layout.dtype))
        load_weights(target, weights)
        with pytest.raises(UserError, match=f"{min(layout.names[:2])} and 1 more"):
            require_loaded(target, weights, 3)

    def test_damage_on_the_way_is_seen(self):
        source = tiny_exaone(seed=0)
        weights = pack_weights(source, weight_layout(source, torch.float32))
        weights.buffer[1000] ^= 1
        load_weights(source, weights)
        with pytest.raises(UserError, match=weights.layout.names[0]):
            require_loaded(source, weights, 3)

    def test_sums_of_shards_and_of_fused_parameters_add_up(self):
        values = torch.randn(64, 48)
        assert bit_sum(values) == sum(bit_sum(part) for part in values.split(7))
        assert bit_sum(values) == bit_sum(values.t())
        assert bit_sum(torch.zeros(9)) == 0


def test_the_learner_uses_one_buffer_again_and_again():
    model = tiny_exaone()
    layout = weight_layout(model, torch.float32)
    flat = empty_buffer(layout)
    first = pack_weights(model, layout, flat=flat)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    second = pack_weights(model, layout, flat=flat)
    assert np.shares_memory(first.buffer, second.buffer)
    assert first.sums[0] != second.sums[0]
