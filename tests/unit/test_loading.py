"""What a user sees when a model cannot be loaded: one line with the mend."""

import pytest

from agapo.errors import UserError
from agapo.model.loading import export_hf, load_config, load_model, load_tokenizer
from agapo.model.tokenizer import build_tokenizer
from tests.builders import tiny_exaone


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
class TestErrors:
    def test_missing_folder(self, load, tmp_path):
        with pytest.raises(UserError, match="no such folder; run the stage that makes it"):
            load(tmp_path / "nowhere")

    def test_folder_without_a_model(self, load, tmp_path):
        with pytest.raises(UserError, match="give a folder that `save_pretrained` wrote") as caught:
            load(tmp_path)
        assert "\n" not in str(caught.value)

    def test_unreachable_hub(self, load, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(UserError, match="check the name and the network") as caught:
            load("nobody/no-such-model")
        assert "\n" not in str(caught.value)


def test_tokenizer_without_a_template(tmp_path):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no chat template"):
        load_tokenizer(tmp_path)


def test_padding_falls_back_to_the_end_of_sequence(tmp_path):
    tokenizer = build_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token_id == tokenizer.eos_token_id


def test_an_exported_model_generates_with_its_cache(tmp_path):
    model, tokenizer = tiny_exaone(), build_tokenizer()
    model.config.use_cache = False
    export_hf(model, tokenizer, tmp_path / "hf")
    assert load_config(tmp_path / "hf").use_cache
    assert model.config.use_cache is False, "the training that goes on keeps it off"
