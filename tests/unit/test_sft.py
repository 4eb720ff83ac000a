"""The SFT stage's training on a model of a few thousand parameters: repeatable, counted, and exported."""

import pytest
import torch

from agapo.errors import UserError
from agapo.model.loading import load_model
from agapo.recipe import SFTRecipe
from agapo.stages.sft import check_dialogue, load_start, train

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
    own = recipe(tmp_path / name, **settings)
    train(own, ignore)
    return load_model(own.hf_directory).state_dict()


def ignore(step: int, metrics: dict[str, float]) -> None:
    """A report that nobody reads."""


def test_trains_counts_and_exports(tmp_path):
    own, records = recipe(tmp_path), []
    result = train(own, lambda step, metrics: records.append((step, metrics["train/loss"])))
    start = load_start(own)[0].state_dict()
    end = load_model(own.hf_directory).state_dict()
    assert not torch.equal(start["lm_head.weight"], end["lm_head.weight"])
    assert result.token_ratio == result.trained_tokens["reasoning"] / result.trained_tokens["non_reasoning"]
    assert (result.epochs, result.dialogues_too_long) == (1, 0) and 0 < result.dialogues <= 40
    assert [step for step, _ in records] == [1, 2, 3]
    assert records[0][1] > records[-1][1] > 0


def test_same_seed_same_weights(tmp_path):
    first, second, other = (
        trained_weights(tmp_path, name, run={"seed": seed, "name": name, "output": tmp_path})
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_source_is_read_again_and_long_dialogues_are_counted(tmp_path):
    result = train(recipe(tmp_path, steps=12, row_tokens=36), ignore)
    assert result.epochs > 1
    assert result.dialogues_too_long > 0


def test_no_dialogue_fits(tmp_path):
    with pytest.raises(UserError, match=r"no dialogue fits training.row_tokens \(16\)"):
        train(recipe(tmp_path, row_tokens=16), ignore)


def test_misspelt_argument_names_the_key(tmp_path):
    with pytest.raises(
        UserError, match=r"data\.args: data\.arithmetic:dialogues got an unexpected keyword argument 'sise'"
    ):
        train(recipe(tmp_path, args={"sise": 1}), ignore)


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
