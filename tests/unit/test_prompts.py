"""Data sources: checked row by row, split without overlap, dealt out in a repeatable order."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agapo.curation.prompts import PromptStream, hold_out, read_prompts, require_own_ids
from agapo.errors import UserError
from agapo.evaluation.rendering import make_renderer
from agapo.model.tokenizer import build_tokenizer
from agapo.schema import Prompt


def source(rows: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """Name a function as a recipe would."""
    monkeypatch.setattr("tests.unit.test_prompts.current", rows, raising=False)
    return "tests.unit.test_prompts:current"


def question(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "answer": text}


def breaks(split: str) -> Iterator[dict[str, Any]]:
    yield question("1")
    raise KeyError("gone")


BAD = [
    (lambda split: iter([]), "has no train rows"),
    (lambda split: [question("1"), "text"], "train row 2 is a str; rows should be dicts"),
    (lambda split: [{"answer": "1"}], "train row 1: column 'messages' should be a list of turns"),
    (lambda split: [{"messages": "hello"}], "train row 1: column 'messages' should be a list of turns"),
    (lambda split: [{"messages": [{"role": "assistant", "content": ""}]}], "a prompt ends with the user's turn"),
    (breaks, r"failed after train row 1 \(KeyError: 'gone'\)"),
    (lambda split, path: [], "missing a required argument: 'path'"),
]


@pytest.mark.parametrize(("rows", "message"), BAD)
def test_bad_sources_are_named(rows: Callable[..., Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=message):
        read_prompts(source(rows, monkeypatch), "train", {}, None)


def test_rows_become_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    (prompt,) = read_prompts(source(lambda split: [question("1+1")], monkeypatch), "train", {}, None)
    assert prompt.columns == {"answer": "1+1"}
    assert prompt.id.startswith("train/")


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(id=text, messages=({"role": "user", "content": text},)) for text in texts]


def test_splits_share_no_question() -> None:
    train, validation, overlap = hold_out(prompts(*"abcdefgh"), prompts(*"gh"), 2)
    assert len(train) == 4
    assert len(validation) == 2
    assert overlap == 2
    assert {prompt.id for prompt in (*train, *validation)} == set("abcdef")


def test_two_questions_with_one_id_are_refused() -> None:
    twins = [Prompt(id="0", messages=({"role": "user", "content": text},)) for text in "ab"]
    with pytest.raises(UserError, match="two different questions have the id '0'"):
        require_own_ids(twins)
    require_own_ids([twins[0], twins[0]])


def test_one_set_for_both_splits_is_refused() -> None:
    with pytest.raises(UserError, match="every training question is also a test question"):
        hold_out(prompts("a"), prompts("a"), 1)


def test_the_stream_visits_every_prompt_once_an_epoch_in_another_order() -> None:
    stream = PromptStream(prompts(*"abcdefgh"), {"reasoning": 1.0}, seed=0)
    first, second = stream.take(0, 8), stream.take(8, 8)
    assert sorted(prompt.id for prompt, _ in first) == list("abcdefgh")
    assert {visit for _, visit in first} == {0}
    assert {visit for _, visit in second} == {1}
    assert [prompt.id for prompt, _ in first] != [prompt.id for prompt, _ in second]
    assert stream.take(5, 6) == [*first[5:], *second[:3]]


def test_modes_come_by_share() -> None:
    stream = PromptStream(prompts(*map(str, range(2000))), {"reasoning": 3.0, "non_reasoning": 1.0}, seed=0)
    taken = stream.take(0, 2000)
    assert sum(prompt.mode == "reasoning" for prompt, _ in taken) / 2000 == pytest.approx(0.75, abs=0.04)


def test_the_readme_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    train = read_prompts(source(names["prompts"], monkeypatch), "train", {}, None)
    test = read_prompts(source(names["prompts"], monkeypatch), "test", {}, None)
    assert hold_out(train, test, 128)[2] == 0
    assert names["score"]([None] * 2, ["it is 8", "9"], answer=["8", "8"]) == [1.0, 0.0]


def test_questions_of_one_id_are_rendered_each_by_itself() -> None:
    """As those of two `evaluation.sets` may be; tools are part of what is rendered."""
    render = make_renderer(build_tokenizer())
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    asked = [
        Prompt("q", ({"role": "user", "content": "1+1"},)),
        Prompt("q", ({"role": "user", "content": "7+7"},)),
        Prompt("q", ({"role": "user", "content": "7+7"},), columns={"tools": [tool]}),
        Prompt("q", ({"role": "user", "content": "7+7"},), mode="non_reasoning"),
    ]
    assert len({render(prompt) for prompt in asked}) == 4
    assert render(asked[0]) is render(replace(asked[0], id="another"))
