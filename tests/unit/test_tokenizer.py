"""The byte-level tokenizer: round trips, stable ids, and a model folder that plain transformers reads."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from agapo.chat import prompt_ids
from agapo.model.loading import create_model, export_hf, load_model, load_tokenizer
from agapo.model.tokenizer import SPECIAL, TAGS, WORDS, build_tokenizer
from agapo.schema import MODES, Prompt

TOKENIZER = build_tokenizer()


def ids(text: str) -> list[int]:
    return TOKENIZER(text)["input_ids"]


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


def test_created_model_is_small_exaone_and_repeatable():
    first, second, other = (create_model(TOKENIZER, seed=seed) for seed in (0, 0, 1))
    assert sum(parameter.numel() for parameter in first.parameters()) < 1_000_000
    assert first.config.layer_types == [*["sliding_attention"] * 3, "full_attention"]
    assert not first.config.tie_word_embeddings
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
