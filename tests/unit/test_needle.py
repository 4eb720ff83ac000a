"""The needle test: prompts as long as asked for, a grid that counts right, and an error that names the red cells."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import ValidationError

from agapo.errors import UserError
from agapo.evaluation import needle_prompts as fitting
from agapo.evaluation.needle import needle_test, print_needle, require_green, require_green_start
from agapo.evaluation.needle_prompts import needle_prompts
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.needle import NeedleConfig
from agapo.schema import Group, Response, Segment
from agapo.tracking.progress import make_console

TOKENIZER = build_tokenizer()
SOURCE = "tests.fakes.needles:needles"


def config(**changes: object) -> NeedleConfig:
    return NeedleConfig.model_validate({"source": SOURCE, "lengths": [128, 256], "per_cell": 4, **changes})


@dataclass
class Oracle:
    """Stands in for the rollout actors: finds every needle but those of prompts that `misses` names."""

    misses: tuple[tuple[int, float], ...] = ()
    chunks: list[tuple[int, int]] = field(default_factory=list)

    def generate(self, requests, params, *, chunk_prompts):
        assert (params.temperature, params.group_size) == (0.0, 1)
        self.chunks.append((len(requests), chunk_prompts))
        yield from reversed([(place, self._answer(request)) for place, request in enumerate(requests)])

    def _answer(self, request):
        columns = request.prompt.columns
        near = [length for length, position in self.misses if position == columns["position"]]
        missed = any(0.9 * length < len(request.prompt_ids) <= length for length in near)
        text = "0000" if missed else str(columns["answer"])
        thought = "so.\n</think>\n\n" if request.prompt.mode == "reasoning" else ""
        response = Response((Segment((7, 2), (-0.1, -0.1)),), f"{thought}{text}", "stop")
        return Group(request.prompt, request.prompt_ids, (response,))


def run(needle: NeedleConfig, oracle: Oracle, folder: Path, context: int | None = 4096):
    prompts = needle_prompts(needle, TOKENIZER, context=context)
    return needle_test(needle, oracle, prompts, folder)  # type: ignore[arg-type]


def test_prompts_have_the_tokens_asked_for_in_every_language_and_mode() -> None:
    needle = config(lengths=[96, 700, 3000], positions=[0, 0.5, 1], modes=["reasoning", "non_reasoning"])
    prompts = needle_prompts(needle, TOKENIZER, context=4096)
    assert len(prompts) == 3 * 3 * 2 * 4
    for item in prompts:
        own = 4 if item.prompt.mode == "reasoning" else 0  # the shorter of the two generation prompts
        assert 0.95 * item.length - own <= len(item.token_ids) <= item.length, item
        assert item.prompt.columns["position"] == item.position
    longest = [item.prompt.columns["context_length"] for item in prompts if item.length == 3000]
    # "dust " is 5 bytes, "먼지 " is 7: rows of a cell are fitted each by itself.
    assert min(longest) < 430 and max(longest) > 570


def test_a_source_is_asked_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    plain = fitting._rows
    monkeypatch.setattr(
        fitting, "_rows", lambda needle, words, *rest: asked.append(words) or plain(needle, words, *rest)
    )
    needle_prompts(config(lengths=[3000], positions=[0, 0.25, 0.5, 0.75, 1]), TOKENIZER, context=None)
    assert len(asked) <= 14  # two for each position, and some to find out how long words are


@pytest.mark.parametrize(
    ("changes", "context", "message"),
    [
        ({"lengths": [300]}, 256, "300 tokens and needle.max_new_tokens 64 exceed the model's context of 256"),
        ({"lengths": [200], "max_new_tokens": 100}, 240, "exceed the model's context of 240"),
        ({"lengths": [20]}, 256, "20 tokens are too few for a needle of the source"),
        ({"source": "tests.fakes.needles:stubborn"}, 4096, "tokens at most where 128 are wanted"),
        ({"source": "tests.fakes.needles:too_few"}, 4096, "gives 3 rows for per_cell=4"),
        ({"args": {"units": 1}}, 4096, "needle.args: tests.fakes.needles:needles .*units"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(changes: dict, context: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        needle_prompts(config(**changes), TOKENIZER, context=context)
    assert "\n" not in str(caught.value)


def test_at_the_whole_context_the_prompt_leaves_room_for_the_response() -> None:
    prompts = needle_prompts(config(lengths=[512], max_new_tokens=32), TOKENIZER, context=512)
    assert all(0.95 * 480 <= len(item.token_ids) <= 480 and item.length == 512 for item in prompts)


def test_a_green_grid(tmp_path: Path) -> None:
    result = run(config(), Oracle(), tmp_path)
    assert result.red_cells == []
    assert result.tokens == 2 * 5 * 4 * 2
    require_green(result)
    require_green_start({"needle": result.summary}, Path("a.yaml"))
    assert result.summary == {
        "green": True,
        "stop": True,
        "threshold": 0.9,
        "cells": 10,
        "red": [],
        "lowest": 1.0,
        "found": {"non_reasoning": 1.0},
    }
    assert (tmp_path / "needle.png").read_bytes().startswith(b"\x89PNG")


def test_red_cells_are_named_and_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(config(positions=[0, 0.5, 1]), Oracle(misses=((256, 0.5), (128, 1.0))), tmp_path)
    assert [(cell.length, cell.position, cell.share) for cell in result.red_cells] == [(128, 1.0, 0.0), (256, 0.5, 0.0)]
    named = "2 of 6 cells below 0.9: length 128 at 100 %: 0.00, length 256 at 50 %: 0.00"
    with pytest.raises(UserError) as caught:
        require_green(result)
    assert str(caught.value) == (
        f"needle: {named}; see {tmp_path / 'needle.json'}; train longer on contexts of these lengths, "
        "or accept it with needle.stop=false"
    )
    with pytest.raises(UserError) as caught:
        require_green_start({"needle": result.summary}, Path("recipes/sft/a.yaml"))
    assert str(caught.value) == (
        f"model.start: the needle test of recipes/sft/a.yaml is not green ({named}); train that run longer, "
        "or accept it with needle.stop=false in its recipe"
    )
    stored = json.loads((tmp_path / "needle.json").read_text())
    assert stored["green"] is False
    assert [(cell["length"], cell["position"], cell["share"]) for cell in stored["grid"]] == [
        (128, 0, 1),
        (128, 0.5, 1),
        (128, 1, 0),
        (256, 0, 1),
        (256, 0.5, 0),
        (256, 1, 1),
    ]
    assert stored["grid"][2]["wrong"]["response"] == "0000"
    assert 0.95 * 128 <= stored["grid"][2]["tokens"][0] <= stored["grid"][2]["tokens"][1] <= 128
    print_needle(tmp_path, make_console())
    printed = capsys.readouterr().out
    assert "✗ 0%" in printed and printed.count("100%") == 5 and "green from 90%" in printed


def test_no_needle_test_and_an_accepted_red_one_stop_nothing(tmp_path: Path) -> None:
    result = run(config(stop=False), Oracle(misses=((256, 0.5),)), tmp_path)
    assert result.red_cells
    require_green(result)
    require_green(None)
    require_green_start({"needle": result.summary}, Path("a.yaml"))
    require_green_start({}, Path("a.yaml"))


def test_many_red_cells_are_counted_rather_than_listed(tmp_path: Path) -> None:
    everywhere = tuple((length, position) for length in (128, 256) for position in (0, 0.25, 0.5, 0.75, 1))
    with pytest.raises(UserError, match=r"10 of 10 cells .*, and 4 more; see"):
        require_green(run(config(), Oracle(misses=everywhere), tmp_path))


def test_modes_are_cells_of_their_own(tmp_path: Path) -> None:
    result = run(config(modes=["reasoning", "non_reasoning"], positions=[0.5]), Oracle(((256, 0.5),)), tmp_path)
    assert [str(cell) for cell in result.red_cells] == [
        "length 256 at 50 % in reasoning mode: 0.00",
        "length 256 at 50 %: 0.00",
    ]
    assert result.summary["found"] == {"reasoning": 0.5, "non_reasoning": 0.5}


def test_long_prompts_are_asked_alone_and_short_ones_together(tmp_path: Path) -> None:
    oracle = Oracle()
    run(config(lengths=[128, 512, 2048], positions=[0, 1], chunk_tokens=1024), oracle, tmp_path)
    assert oracle.chunks == [(8, 8), (8, 2), (8, 1)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [256, 128]}, "ascending"),
        ({"lengths": []}, "at least 1"),
        ({"lengths": [0]}, "above 0"),
        ({"positions": [0, 0]}, "without repeats"),
        ({"positions": [0.5, 1.5]}, "between 0"),
        ({"modes": ["reasoning", "reasoning"]}, "each mode once"),
        ({"green": 0}, "greater than 0"),
        ({"legnths": [1]}, "not permitted"),
    ],
)
def test_configs_that_make_no_sense(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)
