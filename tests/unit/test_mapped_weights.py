"""Weights that lie in the files' pages are those that transformers reads, out of the files that it reads."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from agapo.errors import UserError
from agapo.model.loading import load_model, mapped_weights, small_twin
from tests.builders import tiny_exaone

QWEN = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.fixture(params=["tied", "not tied"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    model = Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=request.param == "tied", **QWEN))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    return tmp_path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_mapped_model_is_the_model(folder: Path, dtype: str):
    # Of other splits and tools: transformers reads neither.
    for name in ("model-00001-of-00009.safetensors", "consolidated.safetensors"):
        save_file({"model.norm.weight": torch.zeros(32)}, folder / name)
    read, mapped = load_model(folder, dtype=dtype), load_model(folder, dtype=dtype, mapped=True)
    expected, found = read.state_dict(), mapped.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in expected.items())
    head, embedding = mapped.get_output_embeddings().weight, mapped.get_input_embeddings().weight
    assert (head is embedding) == mapped.config.tie_word_embeddings


def test_a_file_that_is_cut_off_is_named(folder: Path):
    file = next(folder.glob("model-*.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"{file.name} is no safetensors file, or is cut off"):
        load_model(folder, mapped=True)


def test_types_that_are_not_known_here_are_left_to_transformers(tmp_path: Path):
    save_file({"a": torch.zeros(3, dtype=torch.int8)}, tmp_path / "model.safetensors")
    assert mapped_weights(tmp_path) == {}
    assert mapped_weights(tmp_path / "nowhere") == {}


def test_values_that_lie_askew_are_read_all_the_same(tmp_path: Path):
    values = torch.arange(4, dtype=torch.float32)
    about = {"odd": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    header = json.dumps(about).encode()
    header += b" " * (1 - len(header) % 2)
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + values.numpy().tobytes())
    assert (8 + len(header)) % 4
    assert torch.equal(mapped_weights(tmp_path)["odd"], values)


def test_a_twin_has_layers_of_each_kind_and_large_logits():
    model = tiny_exaone()
    twin = small_twin(model.config, dtype="float32", attention="sdpa", device="cpu")
    assert set(twin.config.layer_types) == set(model.config.layer_types)
    with torch.no_grad():
        logits = twin(input_ids=torch.arange(8)[None]).logits
    assert logits.abs().max() > 5
