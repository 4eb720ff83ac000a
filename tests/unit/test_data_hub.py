"""Data sets by name, with subsets, splits, streaming and columns: through the hub's own library, on a local folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from agapo.errors import UserError
from data.hub import prompts

CARD = """---
configs:
- config_name: sums
  data_files:
  - {split: train, path: sums/train.jsonl}
  - {split: validation, path: sums/held.jsonl}
- config_name: words
  data_files:
  - {split: train, path: words.jsonl}
---
"""


@pytest.fixture
def data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A set with two subsets, as it lies on the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    (folder / "sums").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    write(folder / "sums/train.jsonl", [{"ask": f"{n} + 1?", "gold": f"#### {n + 1}"} for n in range(40)])
    write(folder / "sums/held.jsonl", [{"ask": "7 + 7?", "gold": "#### 14"}])
    write(folder / "words.jsonl", [{"prompt": [{"role": "user", "content": f"Say {n}"}]} for n in range(80)])
    return str(folder)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("streaming", [False, True])
def test_subset_splits_and_columns(data_set: str, streaming: bool) -> None:
    args: dict[str, Any] = {
        "name": data_set,
        "config": "sums",
        "splits": {"train": "train", "test": "validation"},
        "streaming": streaming,
        "prompt": "ask",
        "columns": {"gold": "answer"},
    }
    train, test = list(prompts("train", **args)), list(prompts("test", **args))
    assert len(train) == 40
    assert train[3] == {
        "messages": [{"role": "user", "content": "3 + 1?"}],
        "answer": "#### 4",
        "domain": "math",
        "language": "en",
    }
    assert [row["answer"] for row in test] == ["#### 14"]
    assert len(list(prompts("train", **args, limit=5))) == 5
    (row,) = prompts("test", **args, system="Be short.", instruction="Box it.", domain="sums")
    assert [turn["content"] for turn in row["messages"]] == ["Be short.", "7 + 7?\n\nBox it."]
    assert row["domain"] == "sums"


def test_one_split_serves_both(data_set: str) -> None:
    args: dict[str, Any] = {"name": data_set, "config": "words", "splits": {"train": "train"}}
    train, test = ({row["messages"][0]["content"] for row in prompts(split, **args)} for split in ("train", "test"))
    assert not train & test
    assert len(train | test) == 80
    assert 2 <= len(test) <= 25


def test_a_file_goes_the_same_way(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [{"question": f"{n}?", "answer": str(n)} for n in range(20)])
    rows = [row for split in ("train", "test") for row in prompts(split, path=path, prompt="question")]
    assert sorted(int(row["answer"]) for row in rows) == list(range(20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": "sum"}, "cannot load"),
        ({"splits": {"train": "trian", "test": "validation"}}, "trian"),
        ({"splits": {"test": "validation"}}, r"data\.args\.splits"),
        ({"prompt": "question"}, r"/train:1: no column 'question' \(data\.args\.prompt\); the row has 'ask', 'gold'"),
        ({"columns": {"label": "answer"}}, r"no column 'label' \(data\.args\.columns\)"),
        ({"name": ""}, "needs the name of a data set"),
    ],
)
def test_mistakes_are_one_line(data_set: str, changes: dict[str, Any], message: str) -> None:
    args = {"name": data_set, "config": "sums", "splits": {"train": "train", "test": "validation"}, "prompt": "ask"}
    with pytest.raises(UserError, match=message) as raised:
        list(prompts("train", **args | changes))
    assert "\n" not in str(raised.value)


def test_a_prompt_that_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [{"prompt": 5}])
    with pytest.raises(UserError, match=r"mine\.jsonl:1: column 'prompt' is '5'; should be a text or a list of turns"):
        list(prompts("train", path=path))


def test_a_split_that_is_not_there_is_the_reason_also_without_a_way_to_the_hub(
    data_set: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.files.missing_way", lambda: "there is no way to the hub")
    with pytest.raises(UserError, match=r"(?i)split.*name its own in data\.args\.splits") as caught:
        list(prompts("test", name=data_set, config="sums", prompt="ask"))
    assert "no way" not in str(caught.value)
