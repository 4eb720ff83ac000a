"""What the SFT stage trains on, before any of it is trained: read, checked, tokenised, mixed, packed, counted."""

import json
from pathlib import Path

import numpy as np
import pytest

from agapo.errors import Interrupted, UserError
from agapo.learner.trl.token_file import TokenFile
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe import SFTRecipe
from agapo.schema import Prompt
from agapo.stages.sft.data import TrainingData, question_keys, training_data
from agapo.stages.sft.loop import data_summary, dialogue_texts, mix_metrics

TOKENIZER = build_tokenizer()
LONG = "It was a bright cold day in April, and the clocks were striking thirteen; a man slipped quickly through doors."


def recipe(*, data: dict | None = None, training: dict | None = None, **fields) -> SFTRecipe:
    content = {
        "run": {"name": "test"},
        "model": {},
        "create": {},
        "data": {"source": "data.arithmetic:dialogues", "args": {"phases": [{"size": 400}]}} | (data or {}),
        "prompts": {"source": "data.arithmetic:prompts"},
        "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
        "training": {"rows_per_step": 4, "row_tokens": 96} | (training or {}),
    }
    return SFTRecipe.model_validate(content | ({} if "epochs" in fields else {"steps": 50}) | fields)


def prepared(folder: Path, **changes) -> TrainingData:
    return training_data(recipe(**changes), TOKENIZER, folder / "data")


def rows_file(folder: Path, *rows: dict | str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def dialogue(question: str, answer: str, *, thinking: str = "", **columns) -> dict:
    turn = {"role": "assistant", "content": answer} | ({"reasoning_content": thinking} if thinking else {})
    mode = "reasoning" if thinking else "non_reasoning"
    return {"messages": [{"role": "user", "content": question}, turn], "mode": mode, **columns}


def from_file(path: Path, **data) -> dict:
    return {"source": "data.files:dialogues", "args": {}, "path": path, **data}


class TestHeldOut:
    """Without questions the loss on some dialogues is the measure: they are not trained on, nor others to the same."""

    def data(self, folder: Path, **changes) -> TrainingData:
        path = rows_file(folder, *(dialogue(f"q{n // 2}", f"an answer {n}") for n in range(100)))
        return prepared(folder, data=from_file(path), prompts=None, reward=None, **changes)

    def test_one_in_twenty_and_every_answer_to_its_question(self, tmp_path):
        data = self.data(tmp_path)
        assert len(data.held) == 4  # five, and no half of a question
        assert data.held[::2] == [index - 1 for index in data.held[1::2]]
        assert all(index % 2 == 0 for index in data.held[::2])
        assert {index for row in data.rows for index in row} == set(range(100)) - set(data.held)
        assert data.amount == sum(data.trained) - sum(data.trained[index] for index in data.held)
        texts = [TOKENIZER.decode(example.token_ids) for example in data.held_out()]
        assert all(f"an answer {index}" in text for index, text in zip(data.held, texts, strict=True))

    def test_as_many_as_the_recipe_says_and_none_beside_questions(self, tmp_path):
        assert self.data(tmp_path, evaluation={"held_out": 0}).held == []
        assert len(self.data(tmp_path, evaluation={"held_out": 10}).held) == 10
        assert prepared(tmp_path / "x").held == []

    def test_something_is_left_to_train_on(self, tmp_path):
        with pytest.raises(
            UserError, match=r"evaluation\.held_out: 100 of 100 dialogues \(to 50 questions\) leave none"
        ):
            self.data(tmp_path, evaluation={"held_out": 100})

    def test_the_seed_chooses(self, tmp_path):
        assert self.data(tmp_path).held == self.data(tmp_path).held
        assert self.data(tmp_path).held != self.data(tmp_path, run={"name": "test", "seed": 1}).held


class TestMix:
    def test_ratio_and_steps(self, tmp_path):
        data = prepared(tmp_path)
        assert (data.steps, len(data.rows)) == (50, 200)
        assert data_summary(data)["token_ratio"] == pytest.approx(1.5, rel=0.01)
        assert data.fill() > 0.85

    def test_counts_are_those_of_the_masks(self, tmp_path):
        data = prepared(tmp_path)
        examples = TokenFile(data.folder)
        trained = sum(sum(examples[index].mask[1:]) for row in data.rows[:40] for index in row)
        assert sum(data.totals("mode", until=10).values()) == trained
        metrics = mix_metrics(data, 10)
        assert metrics["data/tokens/reasoning"] + metrics["data/tokens/non_reasoning"] == trained
        assert metrics["data/domain/math"] == metrics["data/language/en"] == 1

    def test_never_far_off_in_any_window(self, tmp_path):
        by_step = prepared(tmp_path).tokens_by_step
        data = prepared(tmp_path)
        modes = [kind.mode for kind in data.kinds]
        for start in range(40):
            window = by_step[start : start + 10].sum(axis=0)
            counts = {mode: sum(n for m, n in zip(modes, window, strict=True) if m == mode) for mode in set(modes)}
            assert counts["reasoning"] / counts["non_reasoning"] == pytest.approx(1.5, rel=0.12)

    def test_is_repeatable_and_differs_by_seed(self, tmp_path):
        first, again = prepared(tmp_path / "a"), prepared(tmp_path / "b")
        assert first.rows == again.rows
        assert first.rows != prepared(tmp_path / "c", run={"name": "test", "seed": 1}).rows

    def test_epochs_are_passes_over_the_trained_tokens(self, tmp_path):
        data = prepared(tmp_path, epochs=2.0)
        assert data.passes() == pytest.approx(2, rel=0.05)

    def test_domains_and_languages_are_counted(self, tmp_path):
        path = rows_file(
            tmp_path,
            *(dialogue(f"q{i}", "a" * 10, domain="world", language="ko") for i in range(8)),
            *(dialogue(f"p{i}", "b", thinking="c" * 10, domain="math", language="es") for i in range(8)),
        )
        summary = data_summary(prepared(tmp_path, data=from_file(path)))
        assert set(summary["trained_tokens_by_domain"]) == {"reasoning/math", "non_reasoning/world"}
        assert set(summary["trained_tokens_by_language"]) == {"reasoning/es", "non_reasoning/ko"}

    def test_a_run_that_goes_on_keeps_its_rows(self, tmp_path):
        rows = prepared(tmp_path).rows
        other = recipe(data={"args": {"phases": [{"size": 7}]}})
        assert training_data(other, TOKENIZER, tmp_path / "data", keep=True).rows == rows
        assert training_data(other, TOKENIZER, tmp_path / "data").rows != rows

    def test_a_run_does_not_go_on_with_files_that_have_changed(self, tmp_path):
        good = [dialogue("q", "a"), dialogue("q", "a", thinking="t")]
        path = rows_file(tmp_path, *good)
        own = recipe(data=from_file(path))
        training_data(own, TOKENIZER, tmp_path / "data")
        rows_file(tmp_path, *good, dialogue("r", "a"))
        with pytest.raises(UserError, match=r"rows\.jsonl: has changed since this run began"):
            training_data(own, TOKENIZER, tmp_path / "data", keep=True)
        assert len(training_data(own, TOKENIZER, tmp_path / "data").lengths) == 3

    def test_test_questions_are_not_trained_on(self, tmp_path):
        system = {"role": "system", "content": "S"}
        follow_up = dialogue("first", "a")
        follow_up["messages"] += [{"role": "user", "content": "tested"}, {"role": "assistant", "content": "b"}]
        other_system = dialogue("tested", "a")
        other_system["messages"].insert(0, system)
        good = [dialogue("tested, too", "a"), dialogue("q", "a", thinking="t")]
        path = rows_file(tmp_path, dialogue("tested", "a", thinking="t"), other_system, follow_up, *good)
        prompt = Prompt("p", ({"role": "user", "content": "tested"},))
        tested = question_keys([prompt, Prompt("r", (*follow_up["messages"][:2], prompt.messages[0]))])
        data = training_data(recipe(data=from_file(path)), TOKENIZER, tmp_path / "data", tested=tested)
        assert next(item for item in data.report["dropped"] if item["filter"] == "test")["rows"] == 3
        assert len(data.lengths) == 2

    def test_a_stop_is_seen_while_rows_are_read(self, tmp_path):
        with pytest.raises(Interrupted):
            training_data(recipe(), TOKENIZER, tmp_path / "data", should_stop=lambda: True)
        assert not (tmp_path / "data").exists()


class TestBadRows:
    def test_all_are_named_by_file_and_line(self, tmp_path):
        path = rows_file(
            tmp_path,
            dialogue("q", "a"),
            {"mode": "reasoning"},
            {"messages": [{"role": "user", "content": "q"}, {"role": "robot", "content": "a"}], "mode": "reasoning"},
            dialogue("q", ""),
        )
        with pytest.raises(UserError) as caught:
            prepared(tmp_path, data=from_file(path))
        message = str(caught.value)
        for line in (2, 3, 4):
            assert f"{path}:{line}" in message
        assert "'robot'" in message

    def test_wrong_json_names_the_line(self, tmp_path):
        path = rows_file(tmp_path, dialogue("q", "a"), '{"messages": [')
        with pytest.raises(UserError, match=r"rows\.jsonl:2: not JSON"):
            prepared(tmp_path, data=from_file(path))

    def test_those_left_out_are_written_down(self, tmp_path):
        good = [dialogue("q", "a"), dialogue("q", "a", thinking="t")]
        path = rows_file(tmp_path, *good, {"messages": []}, dialogue("q", LONG))
        data = prepared(tmp_path, data=from_file(path, malformed="drop"))
        left_out = [json.loads(line) for line in (data.folder / "dropped.jsonl").read_text().splitlines()]
        assert [(row["place"], row["filter"]) for row in left_out] == [
            (f"{path}:3", "malformed"),
            (f"{path}:4", "overlong"),
        ]
        assert (data.report["seen"], len(data.lengths)) == (4, 2)

    def test_overlong_refused_or_cut(self, tmp_path):
        path = rows_file(tmp_path, dialogue("q", "a"), dialogue("q", LONG, thinking="t"))
        with pytest.raises(UserError, match=r"rows\.jsonl:2: \d+ tokens, training\.row_tokens is 96"):
            prepared(tmp_path / "x", data=from_file(path, overlong="refuse"))
        data = prepared(tmp_path / "y", data=from_file(path, overlong="truncate"))
        assert max(data.lengths) == 96
        assert data.report["verdicts"] == {"truncated": 1}
        last = TokenFile(data.folder)[1]
        assert last.mask[-1] == 1
        assert TOKENIZER.eos_token_id not in last.token_ids[-1:]

    def test_a_context_that_fills_the_row_cannot_be_cut(self, tmp_path):
        path = rows_file(tmp_path, dialogue("q", "a"), dialogue("q", "a", thinking="t"), dialogue("q" * 200, "a"))
        data = prepared(tmp_path, data=from_file(path, overlong="truncate"))
        assert [item["filter"] for item in data.report["dropped"]] == ["overlong"]

    def test_nothing_left(self, tmp_path):
        with pytest.raises(UserError, match="no dialogue is left to train on"):
            prepared(tmp_path, training={"row_tokens": 16})

    def test_a_mode_without_dialogues(self, tmp_path):
        path = rows_file(tmp_path, dialogue("q", "a"))
        with pytest.raises(UserError, match=r"data\.mix\.modes: no dialogues in mode 'reasoning'"):
            prepared(tmp_path, data=from_file(path, mix={"modes": {"reasoning": 1, "non_reasoning": 1}}))
        assert set(prepared(tmp_path, data=from_file(path)).totals("mode")) == {"non_reasoning"}

    def test_one_row_that_thinks_is_not_most_of_the_training(self, tmp_path):
        """At 1.5 : 1 it would have 60 % of the trained tokens: by default the modes are mixed as they are."""
        rows = [dialogue("q", "an answer", thinking="t"), *(dialogue(f"q{n}", "an answer") for n in range(200))]
        path = rows_file(tmp_path, *rows)
        data = prepared(tmp_path / "x", data=from_file(path), steps=None, epochs=2.0)
        times = np.bincount([index for row in data.rows for index in row])
        assert times.max() <= 3
        assert len(data.warnings) == 1
        assert "the modes are mixed as the data has them" in data.warnings[0]
        assert data_summary(data)["warnings"] == data.warnings
        asked = from_file(path, mix={"modes": {"reasoning": 1.5, "non_reasoning": 1}, "max_repeats": 4})
        data = prepared(tmp_path / "y", data=asked, steps=None, epochs=2.0)
        assert 7 <= np.bincount([index for row in data.rows for index in row])[0] <= 9
        assert "held to 4.0" in data.warnings[0]

    def test_a_row_that_comes_again_and_again_is_warned_of(self, tmp_path):
        path = rows_file(tmp_path, *(dialogue("q", "a", thinking=t, domain="world") for t in ("", "t")))
        data = prepared(tmp_path, data=from_file(path))
        times = np.bincount([index for row in data.rows for index in row])
        most, mode = max(times), data.kinds[data.codes[np.argmax(times)]].mode
        assert data.warnings == [
            f"data: 2 dialogues are trained on more than 10 times, up to {most:,} times (of 'data.files:dialogues', "
            f"world, {mode}); add rows, or train for fewer steps"
        ]
        assert most > 100

    def test_misspelt_argument_names_the_key(self, tmp_path):
        with pytest.raises(UserError, match=r"data\.args: data\.arithmetic:dialogues got an unexpected .*'sise'"):
            prepared(tmp_path, data={"args": {"sise": 1}})

    def test_failure_leaves_no_half_made_data(self, tmp_path):
        path = rows_file(tmp_path, {"messages": []})
        with pytest.raises(UserError):
            prepared(tmp_path, data=from_file(path))
        assert not (tmp_path / "data").exists()


class TestRecipe:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"training": {"rows_per_step": 6, "ranks": 4}}, "6 is not a multiple of ranks 4"),
            ({"training": {"rows_per_step": 8, "ranks": 2, "micro_batch_rows": 3}}, "micro_batch_rows 3"),
            ({"training": {"offload": True}}, "offload: needs zero_stage"),
            ({"training": {"offload_folder": "nvme"}}, "offload_folder: is where offload puts things"),
            ({"steps": 5, "epochs": 1.0}, "either 'steps' or 'epochs'"),
            ({"create": {"heads": 4, "kv_heads": 3}}, "heads: 4 is not a multiple of kv_heads 3"),
            ({"model": {"path": "x/y"}}, "give one of 'create'"),
            ({"data": {"mix": {"domains": {"math": 1, "reasoning": {"code": 1}}}}}, "not both"),
            ({"data": {"mix": {"modes": {"reasoning": 0}}}}, "shares of reasoning, non_reasoning"),
        ],
    )
    def test_mistakes(self, changes, message):
        with pytest.raises(ValueError, match=message):
            recipe(**changes)

    def test_batch_arithmetic(self):
        own = recipe(training={"rows_per_step": 32, "ranks": 4, "micro_batch_rows": 2}).training
        assert (own.micro_rows, own.accumulation) == (2, 4)


def test_texts_for_a_tokenizer_hold_tools_and_calls():
    call = {"function": {"name": "f", "arguments": {"x": "é"}}}
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "reasoning_content": "t", "tool_calls": [call]},
            {"role": "tool", "content": {"y": 1}},
        ],
        "tools": [{"name": "f"}],
    }
    assert list(dialogue_texts(row)) == [
        "q",
        "t",
        '<tool_call>{"name": "f", "arguments": {"x": "é"}}</tool_call>',
        "{'y': 1}",
        '{"name": "f"}',
    ]
