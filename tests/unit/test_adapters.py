"""LoRA adapters: their names, what travels of them, the reference with them off, and what merging gives."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from agapo.errors import UserError
from agapo.model.adapters import (
    adapter_layout,
    adapters_off,
    add_adapters,
    merge,
    merged_model,
    read_adapter,
    write_adapter,
)
from agapo.model.loading import export_hf, load_config, load_model
from agapo.model.logprobs import LogProbModel, check_head
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import (
    load_weights,
    pack_tensors,
    pack_weights,
    require_loaded,
    trained_parameters,
    weight_layout,
)
from agapo.recipe.lora import LoRAConfig
from agapo.recipe.model import ModelConfig
from tests.builders import stirred, tiny_exaone, tiny_gpt2, tiny_qwen, token_logprobs

LORA = LoRAConfig(rank=4, alpha=8)
PROMPT, RESPONSE = [7, 8, 9], [20, 30, 40, 50, 60]


def adapted(build=tiny_exaone, lora: LoRAConfig = LORA, seed: int = 0, dtype: torch.dtype = torch.float32):
    """Return a model whose adapters do something."""
    model = build(seed=0).to(dtype).eval()
    add_adapters(model, lora, seed)
    return stirred(model, seed)


def tensors_of(model) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trained_parameters(model).items()}


@torch.no_grad()
def logprobs(model) -> Tensor:
    return token_logprobs(model, PROMPT, RESPONSE)


def test_parameters_keep_their_names_and_only_adapters_are_trained():
    model = tiny_exaone()
    linear = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    before = {name for name, _ in model.named_parameters()}
    add_adapters(model, LORA)
    names = {name for name, _ in model.named_parameters()}
    assert {name.replace(".base_layer", "") for name in names if "lora_" not in name} == before
    layer = "model.layers.0.self_attn.q_proj"
    assert {f"{layer}.lora_A.default.weight", f"{layer}.lora_B.default.weight"} <= set(trained_parameters(model))
    assert {name.split(".lora_")[0].split(".")[-1] for name in trained_parameters(model)} == set(linear)
    assert len(trained_parameters(model)) == 4 * len(linear) * 2
    check_head(model)


def test_the_start_is_the_model_and_drawn_by_the_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = tiny_exaone(), tiny_exaone(), tiny_exaone()
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        add_adapters(model, LORA, seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(logprobs(first.eval()), logprobs(tiny_exaone().eval()))
    assert all(torch.equal(value, tensors_of(again)[name]) for name, value in tensors_of(first).items())
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert not torch.equal(tensors_of(other)[name], tensors_of(first)[name])


def test_only_adapters_travel_and_prove_that_they_arrived():
    source, target = adapted(seed=1), adapted(seed=2)
    weights = pack_weights(source, weight_layout(source, torch.float32))
    assert weights.buffer.nbytes == 4 * sum(value.numel() for value in trained_parameters(source).values())
    with pytest.raises(UserError, match=r"weights 3 these of its weights are not the learner's: .*lora_A"):
        require_loaded(target, weights, 3)
    load_weights(target, weights)
    require_loaded(target, weights, 3)
    assert torch.equal(logprobs(target), logprobs(source))
    sent = dict(weights.named())
    lost = sent.popitem()[0]
    with pytest.raises(UserError, match=f"not the learner's: {lost}"):
        require_loaded(target, pack_tensors(sent, torch.float32), 3)


def test_the_layout_is_known_without_the_model(tmp_path: Path):
    export_hf(tiny_exaone(), build_tokenizer(), tmp_path / "hf")
    model = adapted()
    assert adapter_layout(load_config(tmp_path / "hf"), LORA) == weight_layout(model, torch.float32)


@pytest.mark.parametrize("build", [tiny_exaone, tiny_qwen], ids=["exaone", "qwen"])
def test_with_adapters_off_it_is_the_reference(build):
    model, reference = adapted(build), build(seed=0).eval()
    assert (logprobs(model) - logprobs(reference)).abs().max() > 0.05
    with adapters_off(model):
        assert (logprobs(model) - logprobs(reference)).abs().max() <= 1e-6
    assert (logprobs(model) - logprobs(adapted(build))).abs().max() == 0
    assert all(value.requires_grad for value in trained_parameters(model).values())
    assert trained_parameters(model).keys() == trained_parameters(adapted(build)).keys()


@pytest.mark.parametrize("build", [tiny_exaone, tiny_qwen, tiny_gpt2], ids=["exaone", "qwen", "gpt2"])
def test_merged_equals_adapted(build):
    lora = LORA if build is not tiny_gpt2 else LORA.model_copy(update={"targets": ["c_attn", "c_proj", "c_fc"]})
    model, merged = adapted(build, lora), build(seed=0).eval()
    merge(merged, tensors_of(model), lora.alpha / lora.rank)
    torch.testing.assert_close(logprobs(merged), logprobs(model), rtol=0, atol=1e-5)


def test_merging_rounds_once():
    """In bfloat16: each weight is the sum in float64, rounded; W + round(B·A) would be off in many places."""
    model, merged = adapted(dtype=torch.bfloat16), tiny_exaone().to(torch.bfloat16)
    tensors = tensors_of(model)
    merge(merged, tensors, LORA.alpha / LORA.rank)
    module = "model.layers.1.mlp.up_proj"
    down, up = (tensors[f"{module}.lora_{letter}.default.weight"].double() for letter in "AB")
    base = tiny_exaone().to(torch.bfloat16).get_submodule(module).get_parameter("weight")
    exact = (base.double() + 2 * up @ down).to(torch.bfloat16)
    twice = base + (2 * up @ down).to(torch.bfloat16)
    found = merged.get_submodule(module).get_parameter("weight")
    assert (found != exact).float().mean() < 1e-3
    assert (twice != exact).float().mean() > 1e-2


def test_a_folder_is_as_peft_reads_it_and_merges_to_the_same(tmp_path: Path):
    export_hf(tiny_exaone(), build_tokenizer(), tmp_path / "hf")
    model = adapted()
    write_adapter(tmp_path / "adapter", tensors_of(model), LORA, str(tmp_path / "hf"))
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    read = read_adapter(tmp_path / "adapter")
    assert all(torch.equal(read[name], value) for name, value in tensors_of(model).items())
    theirs = PeftModel.from_pretrained(load_model(tmp_path / "hf"), str(tmp_path / "adapter")).eval()
    assert torch.equal(logprobs(theirs), logprobs(model))
    ours = merged_model(str(tmp_path / "hf"), tmp_path / "adapter", ModelConfig(), LORA).eval()
    torch.testing.assert_close(logprobs(ours), logprobs(model), rtol=0, atol=1e-5)


def test_gradients_reach_all_adapters_with_and_without_checkpointing():
    ids = torch.tensor([[*PROMPT, *RESPONSE]])
    inputs = (ids, torch.arange(8)[None], None, torch.arange(2, 7), torch.tensor(RESPONSE), 1.0)
    found = []
    for recomputed in (False, True):
        model = adapted().train()
        if recomputed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        LogProbModel(model)(*inputs)[0].sum().backward()
        found.append({name: value.grad for name, value in trained_parameters(model).items()})
        assert all(value.grad is None for value in model.parameters() if not value.requires_grad)
    for name, gradient in found[0].items():
        assert gradient is not None and gradient.norm() > 0, name
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("targets", [["q_prj"], ["embed_tokens"]])
def test_targets_that_are_no_linear_maps_are_said_in_a_line(targets: list[str]):
    with pytest.raises(UserError, match=r"learner\.lora\.targets: "):
        add_adapters(tiny_exaone(), LORA.model_copy(update={"targets": targets}))
