"""Pairs that exist already: every layout of rows, every bad row by file and line, and their tokens."""

import json
from pathlib import Path
from typing import Any

import pytest

from agapo.chat import prompt_ids
from agapo.curation.pairs import row_prompt
from agapo.errors import UserError
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe import DPORecipe
from agapo.recipe.pairs import PairRowsConfig
from agapo.stages.dpo.given import given_pairs
from data.preferences import pairs

TOKENIZER = build_tokenizer()
ASK = {"role": "user", "content": "2 + 2?"}
GOOD, BAD = {"role": "assistant", "content": "It is 4"}, {"role": "assistant", "content": "It is 5"}
SYSTEM = {"role": "system", "content": "Be short."}


def file_of(folder: Path, *rows: Any) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(folder: Path, *rows: Any, **args: Any) -> list[dict[str, Any]]:
    return list(pairs("train", path=file_of(folder, *rows), **args))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2 + 2?", "chosen": "It is 4", "rejected": "It is 5"},
        {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [ASK], "chosen": GOOD, "rejected": BAD},
        {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {"chosen": "2 + 2? It is 4", "rejected": "2 + 2? It is 5"},
        {"prompt": "2 + 2?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD], "score_chosen": 7.0},
        {"question": "2 + 2?", "chosen": "It is 4", "rejected": "It is 5"},
        {"question": "2 + 2?", "response_j": "It is 4", "response_k": "It is 5"},
        {"prompt": "2 + 2?", "chosen_response": "It is 4", "rejected_response": "It is 5"},
        {"instruction": "2 + 2?", "chosen": "It is 4", "rejected": "It is 5"},
        {
            "conversations": [{"from": "human", "value": "2 + 2?"}],
            "chosen": {"from": "gpt", "value": "It is 4"},
            "rejected": {"from": "gpt", "value": "It is 5"},
        },
        {
            "chosen": "\n\nHuman: 2 + 2?\n\nAssistant: It is 4",
            "rejected": "\n\nHuman: 2 + 2?\n\nAssistant: It is 5",
        },
        {"prompt": "\n\nHuman: 2 + 2?\n\nAssistant:", "chosen": " It is 4", "rejected": " It is 5"},
    ],
    ids=lambda row: "+".join(row),
)
def test_layouts(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,) = read(tmp_path, row)
    said = [found["chosen"]["content"].strip(), found["rejected"]["content"].strip()]
    split_by_words = "prompt" not in row and isinstance(row.get("chosen"), str) and row["chosen"][0] == "2"
    if split_by_words:  # as TRL does: the words that both begin with
        assert (found["prompt"], said) == ([{**ASK, "content": "2 + 2? It is"}], ["4", "5"])
    else:
        assert (found["prompt"], said) == ([ASK], ["It is 4", "It is 5"])
    assert (found["mode"], found["place"]) == ("non_reasoning", f"{tmp_path}/pairs.jsonl:1")


def test_systems_contexts_tools_and_thinking(tmp_path: Path) -> None:
    system, context, tools, thinking = read(
        tmp_path,
        {"system": "Be short.", "question": "2 + 2?", "chosen": "4", "rejected": "5"},
        {"instruction": "Add", "input": "2, 2", "chosen": "4", "rejected": "5"},
        {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD], "tools": [{"name": "add"}], "domain": "math"},
        {"prompt": "2?", "chosen": "<think>so</think>4", "rejected": "<think>hm</think>5", "id": "x"},
    )
    assert system["prompt"] == [SYSTEM, ASK]
    assert context["prompt"][0]["content"] == "Add\n\n2, 2"
    assert tools["tools"] == [{"type": "function", "function": {"name": "add"}}]
    assert tools["domain"] == "math"
    assert (thinking["mode"], thinking["chosen"]["reasoning_content"], thinking["id"]) == ("reasoning", "so", "x")


def test_columns_are_renamed(tmp_path: Path) -> None:
    row = {"ask": "2 + 2?", "yes": "4", "no": "5"}
    (found,) = read(tmp_path, row, columns={"ask": "prompt", "yes": "chosen", "no": "rejected"})
    assert found["prompt"] == [ASK]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ([1], "no object; rows need 'prompt', 'chosen' and 'rejected'"),
        ({"prompt": "2?", "chosen": "4"}, "no two responses; rows need 'chosen' and 'rejected'"),
        ({"prompt": "2?", "chosen": "4", "rejected": None}, "no two responses"),
        ({"prompt": "2?", "chosen": "4", "rejected": ""}, "'rejected' is ''; should be a text"),
        ({"prompt": "2?", "chosen": 4, "rejected": "5"}, "'chosen' is '4'; should be a text, or a turn with one"),
        ({"chosen": "4", "rejected": "5"}, "do not begin alike; give the prompt"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "'chosen' has no prompt"),
        ({"chosen": [ASK, GOOD], "rejected": [SYSTEM, ASK, BAD]}, "answer different prompts"),
        ({"prompt": "3?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, "does not ask the row's prompt"),
        ({"prompt": [ASK], "chosen": [GOOD, ASK], "rejected": [BAD]}, "should end with the assistant's turn"),
        ({"prompt": "2?", "chosen": "<think>so</think>4", "rejected": "5"}, "reasoning"),
        ({"prompt": "2?", "chosen": "4", "rejected": "5", "mode": "fast"}, "mode"),
    ],
)
def test_bad_rows_are_one_line_with_file_and_line(tmp_path: Path, row: Any, message: str) -> None:
    path = file_of(tmp_path, {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}, row)
    own = PairRowsConfig(path=path)
    with pytest.raises(UserError) as raised:
        given_pairs(own, TOKENIZER)
    line, mend = str(raised.value).splitlines()
    assert f"{path}:2" in line
    assert message in line
    assert mend == "mend these rows, or leave them out with pairs.rows.malformed=drop"
    rows, left_out = given_pairs(own.model_copy(update={"malformed": "drop"}), TOKENIZER)
    assert (len(rows), left_out.without) == (1, {"malformed": 1})


def test_tokens_are_prompt_and_what_the_model_should_say(tmp_path: Path) -> None:
    row = {"chosen": [ASK, BAD, ASK, GOOD], "rejected": [ASK, BAD, ASK, BAD]}
    ((found,), _) = given_pairs(PairRowsConfig(path=file_of(tmp_path, row)), TOKENIZER)
    assert found["prompt_ids"] == list(prompt_ids(TOKENIZER, row_prompt(found)))
    assert str(TOKENIZER.decode(found["chosen_ids"])).startswith("It is 4")
    assert found["chosen_ids"][-1] == TOKENIZER.eos_token_id
    assert (found["chosen"], found["rejected"], found["kind"]) == ("It is 4", "It is 5", "given")
    assert found["rejected_tokens"] == len(found["rejected_ids"])


def test_pairs_that_teach_nothing_are_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": "2?", "chosen": "4", "rejected": text} for text in ("4", "5", "6" * 100)]
    found, left_out = given_pairs(PairRowsConfig(path=file_of(tmp_path, *rows), max_tokens=64), TOKENIZER)
    assert [row["rejected"] for row in found] == ["5"]
    assert left_out.without == {"chosen and rejected alike": 1, "longer than pairs.rows.max_tokens 64": 1}


def test_a_recipe_says_where_its_pairs_come_from() -> None:
    rows = {"pairs": {"rows": {"path": "x.jsonl"}}}
    with pytest.raises(ValueError, match=r"or 'pairs\.rows'"):
        DPORecipe.model_validate({})
    with pytest.raises(ValueError, match="'data' and 'reward' go together"):
        DPORecipe.model_validate({**rows, "data": {"source": "a:b"}})
    assert DPORecipe.model_validate(rows).data is None


def test_rows_without_a_place_are_one_line() -> None:
    with pytest.raises(UserError, match=r"^pairs.rows: give 'path' .*, or args: \{name: HUB_NAME\}$"):
        given_pairs(PairRowsConfig(), TOKENIZER)
