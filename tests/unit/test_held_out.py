"""The loss on held-out examples, against transformers' own."""

from pathlib import Path

import pytest
import torch

from agapo.learner.trl import held_out
from agapo.learner.trl.held_out import example_nats
from agapo.learner.trl.packing import Example
from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.model import ModelConfig
from tests.builders import tiny_exaone


@pytest.mark.parametrize("logits", [2**27, 600])
def test_nats_are_those_of_the_trained_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    monkeypatch.setattr(held_out, "LOGITS", logits)
    model = tiny_exaone().eval()
    export_hf(model, build_tokenizer(), tmp_path / "hf")
    examples = [Example([3, 7, 11, 5, 9], [0, 0, 1, 0, 1]), Example([4, 4, 8], [0, 1, 1])]
    expected = []
    for ids, mask in examples:
        with torch.no_grad():
            logprobs = model(input_ids=torch.tensor([list(ids)])).logits[0].double().log_softmax(-1)
        expected.append(-sum(float(logprobs[place - 1, ids[place]]) for place in range(1, len(ids)) if mask[place]))
    found = example_nats(str(tmp_path / "hf"), ModelConfig(), examples, gpu=False, threads=1)
    assert found == pytest.approx(expected, rel=1e-5)
