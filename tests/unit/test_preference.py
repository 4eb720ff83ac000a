"""Preference: a reward model's logit, a judge's marks, and comparisons in pairs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from agapo.errors import UserError
from agapo.model.tokenizer import build_tokenizer
from rewards.preference import check, score, score_group
from tests.fakes.openai_server import serving

QUESTION = [{"role": "user", "content": "Say something nice."}]


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward_model")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_reward_model_gives_the_sigmoid_of_its_logit_of_the_answer(reward_model: Path) -> None:
    tokenizer, model = build_tokenizer(), Qwen3ForSequenceClassification.from_pretrained(reward_model).eval()
    ids = tokenizer.apply_chat_template(
        [*QUESTION, {"role": "assistant", "content": "You are kind."}], return_tensors="pt", return_dict=True
    )["input_ids"]
    with torch.no_grad():
        expected = torch.sigmoid(model(input_ids=ids).logits[0, 0]).item()
    values = score(
        [QUESTION] * 3,
        ["What could I say?</think>You are kind.", "So be it.</think>Well.", "never ends"],
        mode=["reasoning"] * 3,
        model=str(reward_model),
    )
    assert values[0] == pytest.approx(expected, abs=1e-6)
    assert values[1] != pytest.approx(expected, abs=1e-6)
    assert values[2] == 0.0
    assert score([QUESTION], ["half a pair \ud800"], model=str(reward_model))[0] is not None


def test_a_judge_gives_marks() -> None:
    with serving() as server:  # it gives one point for ten letters
        judge = {"base_url": server.url, "model": "judge", "cache_dir": ""}
        assert score([QUESTION] * 2, ["x" * 40, "x"], judge=judge) == [pytest.approx(4 / 9), 0.0]


def compared(prompt: str) -> str:
    """The longer answer is better."""
    first, second = re.findall(r"(?:First|Second) answer:\n(=== \w+ ===)\n(.*?)\n\1", prompt, re.DOTALL)
    return f"VERDICT: {'CORRECT' if len(first[1]) > len(second[1]) else 'WRONG'}"


def play(reply: Any, completions: list[str], **options: Any) -> tuple[list[float | None], int]:
    with serving(reply) as server:
        judge = {"base_url": server.url, "model": "judge", "cache_dir": ""}
        values = score_group(QUESTION, completions, [None] * len(completions), judge=judge, **options)
        return values, len(server.prompts)


def test_pairs_order_a_group() -> None:
    values, _ = play(compared, ["aaa", "aaaa", "a", "aa"], opponents=4)
    assert values == [pytest.approx(2 / 3), 1.0, 0.0, pytest.approx(1 / 3)]
    values, asked = play(compared, ["a" * n for n in range(1, 7)], opponents=2)
    assert values[0] == 0.0 and values[-1] == 1.0
    assert asked == 6 * 2, "each meets two others, in both orders"


def test_a_judge_that_favours_the_first_place_gives_ties() -> None:
    assert play(lambda prompt: "VERDICT: CORRECT", ["one", "two", "three"])[0] == [0.5, 0.5, 0.5]


def test_no_answer_loses_and_equal_answers_tie_without_being_shown() -> None:
    values, asked = play(compared, ["x</think>yes", "no end", "y</think>yes"], mode="reasoning")
    assert values == [0.75, 0.0, 0.75]
    assert asked == 0


def test_a_run_is_refused_without_model_or_judge(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"args\.model .* or args\.judge"):
        check()
    with pytest.raises(UserError, match="does not answer"):
        check(judge={"base_url": "http://127.0.0.1:1/v1", "model": "x"})
    with pytest.raises(UserError, match="cannot load"):
        score([QUESTION], ["x"], model=str(tmp_path / "nowhere"))
