"""The SFT stage's training on a model of a few thousand parameters: repeatable, counted, and exported."""

import json

import pytest
import torch

from agapo.errors import UserError
from agapo.model.loading import load_model
from agapo.recipe import SFTRecipe
from agapo.stages.sft import check_dialogue, load_start, read_dialogues, train

PHASES = [{"size": 40, "reasoning": 0.5}]


def recipe(tmp_path, *, steps: int = 3, row_tokens: int = 96, args: dict | None = None, **fields) -> SFTRecipe:
    content = {
        "run": {"name": "test", "output": tmp_path},
        "model": {},
        "create": {"hidden_size": 16, "intermediate_size": 16, "heads": 2, "kv_heads": 1, "layers": 2},
        "steps": steps,
        "data": {"source": "data.arithmetic:dialogues", "args": {"phases": PHASES} if args is None else args},
        "prompts": {"source": "data.arithmetic:prompts"},
        "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
        "training": {"rows_per_step": 2, "row_tokens": row_tokens, "warmup_steps": 0, "threads": 1},
    }
    return SFTRecipe.model_validate(content | fields)


def trained_weights(tmp_path, name: str, **settings) -> dict[str, torch.Tensor]:
    directory = tmp_path / name
    directory.mkdir()
    train(recipe(tmp_path, **settings), directory)
    return load_model(directory / "hf").state_dict()


def test_trains_counts_and_exports(tmp_path):
    result = train(recipe(tmp_path), tmp_path)
    start = load_start(recipe(tmp_path))[0].state_dict()
    end = load_model(tmp_path / "hf").state_dict()
    assert not torch.equal(start["lm_head.weight"], end["lm_head.weight"])
    assert result.count.token_ratio == result.count.trained["reasoning"] / result.count.trained["non_reasoning"]
    assert result.count.epochs == 1 and result.count.too_long == 0
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3]
    assert records[0]["loss"] > records[-1]["loss"] > 0


def test_same_seed_same_weights(tmp_path):
    first, second, other = (
        trained_weights(tmp_path, name, run={"seed": seed, "output": tmp_path})
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_source_is_read_again_and_long_dialogues_are_counted(tmp_path):
    result = train(recipe(tmp_path, steps=12, row_tokens=36), tmp_path)
    assert result.count.epochs > 1
    assert result.count.too_long > 0


def test_no_dialogue_fits(tmp_path):
    with pytest.raises(UserError, match=r"no dialogue fits training.row_tokens \(16\)"):
        train(recipe(tmp_path, row_tokens=16), tmp_path)


def test_misspelt_argument_names_the_key(tmp_path):
    with pytest.raises(UserError, match=r"data\.args: data\.arithmetic:dialogues does not take them.*sise"):
        read_dialogues(recipe(tmp_path, args={"sise": 1}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "column 'messages'"),
        ({"messages": [{"role": "user", "content": "q"}], "mode": "reasoning"}, "ends with the assistant's turn"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "column 'mode' is None"),
    ],
)
def test_rows_that_cannot_be_trained_on(row, message):
    with pytest.raises(UserError, match=message):
        check_dialogue(row, "source: row 1")
