"""The tokenizers, of bytes and trained: round trips, stable ids, and a model folder that plain transformers reads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from agapo.chat import prompt_ids
from agapo.model.loading import create_model, export_hf, load_model, load_tokenizer
from agapo.model.tokenizer import SMALLEST, SPECIAL, TAGS, WORDS, build_tokenizer, train_tokenizer
from agapo.schema import MODES, Prompt

TOKENIZER = build_tokenizer()
TEXTS = ["the cat and the hat: 1212", "la casa roja: 1212", "빨간 집, 하얀 집", '{"name": "cat", "name": "hat"}'] * 5
TRAINED = train_tokenizer(TEXTS, 400)


def ids(text: str) -> list[int]:
    return TOKENIZER(text)["input_ids"]


def pieces(text: str) -> list[str]:
    return [TRAINED.decode([token]) for token in TRAINED(text)["input_ids"]]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_round_trips(text):
    assert TOKENIZER.decode(ids(text)) == text


def test_every_byte_has_a_token():
    text = bytes(range(128)).decode() + "안녕하세요 ¿qué? 🙂 don 't , n't"
    assert len(ids(text)) == len(text.encode())
    assert TOKENIZER.decode(ids(text)) == text


def test_real_rows_round_trip(real_data):
    import gzip

    text = gzip.decompress((real_data / "gsm8k" / "test.jsonl.gz").read_bytes()).decode()[:200_000]
    assert TOKENIZER.decode(ids(text)) == text


def test_digits_are_single_and_words_whole():
    assert [TOKENIZER.decode([token]) for token in ids("\\boxed{-12}sort 3")] == [
        *("\\boxed{", "-", "1", "2", "}", "sort", " ", "3")
    ]


def test_vocabulary_is_small_and_stable():
    assert len(TOKENIZER) == 256 + len(SPECIAL) + len(TAGS) + len(WORDS)
    assert TOKENIZER.convert_tokens_to_ids(["[PAD]", "[BOS]", "[|endofturn|]", "<think>"]) == [0, 1, 2, 264]
    assert TOKENIZER.get_vocab() == build_tokenizer().get_vocab()


def test_tags_survive_decoders_that_skip_special_tokens():
    text = "".join(TAGS)
    assert len(ids(text)) == len(TAGS)
    assert TOKENIZER.decode(ids(f"[|user|]{text}[|endofturn|]"), skip_special_tokens=True) == text


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_round_trips_through_a_trained_tokenizer(text):
    assert TRAINED.decode(TRAINED(text)["input_ids"]) == text


def test_words_of_the_texts_are_whole_and_digits_single():
    assert pieces("the cat: 12") == ["the", " cat", ":", " ", "1", "2"]
    assert pieces("빨간 집") == ["빨간", " 집"]
    assert pieces('{"name": "hat"}') == ['{"', "name", '": "', "hat", '"}']
    assert len(TRAINED("ψυχή")["input_ids"]) == len("ψυχή".encode())


def test_training_is_repeatable_and_keeps_to_its_size():
    assert TRAINED.get_vocab() == train_tokenizer(TEXTS, 400).get_vocab()
    assert len(train_tokenizer(TEXTS, 300)) == 300
    assert len(TRAINED) == 320  # no pair of these texts is left to merge
    with pytest.raises(ValueError, match=f"needs {SMALLEST} entries"):
        train_tokenizer(TEXTS, SMALLEST - 1)
    assert len(train_tokenizer([], SMALLEST)) == SMALLEST


def test_trained_tokenizer_keeps_special_tokens_and_tags():
    assert TRAINED.convert_tokens_to_ids(["[PAD]", "[BOS]", "[|endofturn|]"]) == [0, 1, 2]
    text = "[|user|]\nthe cat<think></think>\\boxed{"
    assert [TRAINED.decode([token]) for token in TRAINED(text)["input_ids"]][-3:] == ["<think>", "</think>", "\\boxed{"]
    rendered = [f"[|user|]\n{line}[|endofturn|]" for line in TEXTS]
    assert TRAINED.chat_template == TOKENIZER.chat_template
    assert not [token for token in train_tokenizer(rendered, 400).get_vocab() if "endofturn" in token][1:]


def test_what_the_template_says_around_tools_is_a_token_each():
    prompt = Prompt("p", ({"role": "user", "content": "hat"},), columns={"tools": [{"name": "cat"}]})
    found = [TRAINED.decode([token]) for token in prompt_ids(TRAINED, prompt)]
    assert "".join(found) == TOKENIZER.decode(prompt_ids(TOKENIZER, prompt))
    assert [text[:17] for text in found[:8]] == [
        *("[|system|]", "\n", "# Available Tools", "<tool>", '{"', "name", '": "', "cat")
    ]
    assert found[8:12] == ['"}', "</tool>", "\n", found[11]] and found[11].startswith("To call one")


def test_created_model_is_small_exaone_and_repeatable():
    first, second, other = (create_model(TOKENIZER, seed=seed) for seed in (0, 0, 1))
    assert sum(parameter.numel() for parameter in first.parameters()) < 1_000_000
    assert first.config.layer_types == [*["sliding_attention"] * 3, "full_attention"]
    assert not first.config.tie_word_embeddings
    assert first.config.head_dim == 32, "a size that vLLM's attention takes"
    weights = [model.state_dict() for model in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["lm_head.weight"], weights[2]["lm_head.weight"])


def test_creating_a_model_leaves_the_random_state():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    create_model(TOKENIZER, seed=0, layers=1)
    assert torch.equal(torch.rand(2), expected)


def test_export_loads_in_plain_transformers_and_answers_in_both_modes(tmp_path):
    model = create_model(TOKENIZER, seed=0)
    export_hf(model, TOKENIZER, tmp_path / "hf")
    export_hf(model, TOKENIZER, tmp_path / "hf")
    assert [item.name for item in tmp_path.iterdir()] == ["hf"]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    messages = [{"role": "user", "content": "1+1"}]
    for mode in MODES:
        encoded = tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            enable_thinking=mode == "reasoning",
            return_tensors="pt",
            return_dict=True,
        )
        assert encoded["input_ids"][0].tolist() == prompt_ids(TOKENIZER, Prompt("p", tuple(messages), mode=mode))
        answer = plain.generate(**encoded, max_new_tokens=4, do_sample=False)
        assert answer.shape[1] > encoded["input_ids"].shape[1]
    assert (plain.generation_config.eos_token_id, plain.generation_config.pad_token_id) == (2, 0)


def test_loading_keeps_weights_and_template(tmp_path):
    model = create_model(TOKENIZER, seed=0)
    export_hf(model, TOKENIZER, tmp_path / "hf")
    loaded, tokenizer = load_model(tmp_path / "hf"), load_tokenizer(tmp_path / "hf")
    assert loaded.training and tokenizer.chat_template == TOKENIZER.chat_template
    kept = loaded.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
