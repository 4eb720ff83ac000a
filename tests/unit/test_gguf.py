"""A model in a GGUF file: unpacked once, to a folder that computes what the file's weights say."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agapo.errors import UserError
from agapo.model import loading
from agapo.model.loading import load_config, load_model, load_tokenizer, model_folder

TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
LETTERS = [*map(chr, range(33, 127)), "zq"]
SPECIAL = ["<unk>", "<s>", "</s>"]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(LETTERS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
    )
    return LlamaForCausalLM(config).eval()


def permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp has the two halves of a rotary pair side by side."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(model: Any, path: Path, *, quantised: bool) -> None:
    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*SPECIAL, *LETTERS])
    writer.add_token_types([3] * len(SPECIAL) + [1] * len(LETTERS))
    writer.add_token_merges(["z q"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        stem = name.removesuffix(".weight")
        values = tensor.numpy()
        if stem.startswith("model.layers."):
            _, _, layer, part = stem.split(".", 3)
            own = f"blk.{layer}.{NAMES[part]}"
            if part.endswith(("q_proj", "k_proj")):
                heads = config.num_attention_heads if part.endswith("q_proj") else config.num_key_value_heads
                values = permuted(values, heads)
        else:
            own = NAMES[stem]
        kind = gguf.GGMLQuantizationType.Q8_0 if quantised and values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{own}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("quantised", "within"), [(False, 0.02), (True, 0.05)])
def test_it_computes_what_the_file_says(tmp_path: Path, quantised: bool, within: float) -> None:
    source, file = small_llama(), tmp_path / "small.gguf"
    write_gguf(source, file, quantised=quantised)
    model = load_model(file).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        ours, theirs = (item(input_ids=ids).logits.log_softmax(dim=-1) for item in (model, source))
    assert (ours - theirs).abs().max() < within
    assert (ours - theirs.roll(1, dims=1)).abs().max() > 3 * within, "the bound can tell another answer"
    tokenizer = load_tokenizer(file)
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer("ab!").input_ids[-3:] == [3 + LETTERS.index(letter) for letter in "ab!"]
    assert load_config(file).num_hidden_layers == 2


def test_it_is_unpacked_once_and_again_when_the_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reads = tmp_path / "small.gguf", []
    real = loading.read_gguf
    monkeypatch.setattr(loading, "read_gguf", lambda path: reads.append(path) or real(path))
    write_gguf(small_llama(), file, quantised=False)
    folder = model_folder(file)
    assert Path(folder).parent == cache / "agapo" / "gguf"
    assert model_folder(file) == folder
    assert len(reads) == 1
    other = small_llama()
    torch.nn.init.normal_(other.lm_head.weight)
    write_gguf(other, file, quantised=True)
    assert model_folder(file) != folder
    assert len(reads) == 2


def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"model\.path: .*none\.gguf: no such file"):
        load_config(tmp_path / "none.gguf")
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"transformers cannot read .*junk\.gguf"):
        load_config(junk)
    monkeypatch.setattr("agapo.model.gguf.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gguf"):
        load_config(junk)
