"""All filters together: what stays is untouched and in order, what goes is reported, and good data stays."""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from agapo.cli import app
from agapo.curation.curate import Item, Judged, curate, curate_rows
from agapo.curation.lengths import out_of_bounds
from agapo.curation.report import CurationReport, Finding, shorten
from agapo.errors import UserError
from agapo.recipe import SFTRecipe
from agapo.recipe.curation import CurationConfig
from agapo.recipe.reward import RewardConfig
from agapo.rewarding.pool import Term, VerifierPool
from agapo.rewarding.scorer import Scorer
from agapo.stages.curate import verify_by
from data.arithmetic import dialogues

FAKES = "tests.fakes.rewards"
Row = dict[str, Any]


def row(text: str, thinking: str = "", question: str | list[Row] = "?", language: str = "en", **columns: Any) -> Row:
    turn = {"role": "assistant", "content": text, **({"reasoning_content": thinking} if thinking else {})}
    before = question if isinstance(question, list) else [{"role": "user", "content": question}]
    mode = "reasoning" if thinking else "non_reasoning"
    return {"messages": [*before, turn], "mode": mode, "language": language, "domain": "math", **columns}


def config(**sections: Any) -> CurationConfig:
    return CurationConfig.model_validate(sections)


def dropped(report: CurationReport) -> dict[str, int]:
    return {f"{name}: {reason}": rows for (_, name, reason), rows in report.dropped.items()}


LOOP, GOOD = "Wait, let me see. " * 30, "That is four."


def test_what_is_dropped_is_reported_by_source_filter_and_reason() -> None:
    report = CurationReport()
    rows = [("a", row(GOOD)), ("a", row(LOOP, place="rows.jsonl:7")), ("b", row("")), ("b", row(GOOD, language="ko"))]
    assert list(curate(rows, config(), seed=0, report=report)) == [rows[0], rows[3]]
    written = json.loads(json.dumps(report.as_dict()))
    assert written["sources"] == {"a": {"seen": 2, "kept": 1}, "b": {"seen": 2, "kept": 1}}
    assert written["dropped"] == [
        {"source": "a", "filter": "degeneration", "reason": "loop in the answer", "rows": 1},
        {"source": "b", "filter": "degeneration", "reason": "no answer", "rows": 1},
    ]
    assert [(sample["place"], sample["detail"]) for sample in written["samples"]] == [
        ("rows.jsonl:7", "Wait, let me see."),
        ("b 1", ""),
    ]
    assert written["samples"][0]["messages"][1]["content"] == shorten(LOOP)


def test_duplicates_are_found_across_sources() -> None:
    report = CurationReport()
    rows = [("a", row(GOOD)), ("b", row(GOOD))]
    assert list(curate(rows, config(duplicates={}), seed=0, report=report)) == rows[:1]
    assert report.samples[0].detail == "a 1"


def test_every_dropped_row_can_be_listened_to() -> None:
    heard: list[str] = []
    report = CurationReport(most_samples=1, on_drop=lambda item: heard.append(item.place))
    list(curate_rows([row("")] * 3, config(), seed=0, report=report))
    assert heard == ["row 1", "row 2", "row 3"]
    assert [sample.place for sample in report.samples] == ["row 1"]


def test_rows_stream() -> None:
    def endless() -> Iterator[Row]:
        while True:
            yield row(GOOD)

    kept = curate_rows(endless(), config(near_duplicates=None, distinct={"most": 1, "choose": "first"}), seed=0)
    assert next(kept) == row(GOOD)


@given(st.lists(st.sampled_from([GOOD, LOOP, "", "Four.", "```\nx"]), max_size=8))
def test_what_stays_stays_when_curated_again(answers: list[str]) -> None:
    settings = config(duplicates={}, near_duplicates={}, distinct={"most": 2}, lengths={"least_answer": 5})
    kept = list(curate_rows([row(text) for text in answers], settings, seed=3))
    assert list(curate_rows(kept, settings, seed=3)) == kept
    assert [item["messages"][-1]["content"] for item in kept] == list(
        dict.fromkeys(text for text in answers if text in (GOOD, "Four."))
    )


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"answer": (5, None)}, "answer of less than 5 characters"),
        ({"answer": (None, 3)}, "answer of more than 3 characters"),
        ({"thinking": (7, None)}, "thinking of less than 7 characters"),
        ({"thinking": (None, 5)}, "thinking of more than 5 characters"),
        ({"answer": (4, 4), "thinking": (6, 6)}, ""),
    ],
)
def test_bounds_on_lengths(bounds: Mapping[str, Any], reason: str) -> None:
    full = {"answer": (None, None), "thinking": (None, None)} | dict(bounds)
    found = out_of_bounds(row("four", "I add."), **full)
    assert (found.reason if found else "") == reason


def test_lengths_in_tokens_are_counted_by_the_caller() -> None:
    settings = config(lengths={"unit": "tokens", "most_answer": 2})
    rows = [row("one two three"), row("one two")]
    assert list(curate_rows(rows, settings, seed=0, count=lambda text: len(text.split()))) == rows[1:]
    with pytest.raises(ValueError, match=r"lengths\.unit: tokens"):
        curate_rows(rows, settings, seed=0)


def test_a_row_that_does_not_think_has_no_thinking_to_be_too_short() -> None:
    assert list(curate_rows([row(GOOD)], config(lengths={"least_thinking": 100}), seed=0)) == [row(GOOD)]


def judge(rows: list[Row], *terms: Mapping[str, Any], **keys: Any) -> tuple[list[Row], CurationReport]:
    reward = RewardConfig.model_validate({"terms": list(terms), **keys})
    pool = VerifierPool(
        {t.name: Term(t.function, t.args, t.deadline_s) for t in reward.terms}, workers=1, deadline_s=10
    )
    report = CurationReport()
    with pool:
        settings = config(verify=reward)
        verify = verify_by(Scorer(pool, reward), report)
        return list(curate_rows(rows, settings, seed=0, verify=verify, report=report)), report


MATH = {"name": "answer", "function": "rewards.math_answer:score", "domains": ["math"]}


def test_rows_that_a_reward_calls_wrong_are_dropped() -> None:
    rows = [
        row("\\boxed{4}", answer="4"),
        row("\\boxed{5}", answer="4", place="x.jsonl:2"),
        row("\\boxed{4}", "2+2=4", answer="4"),
        row("\\boxed{5}"),
        row("\\boxed{5}", answer="4") | {"domain": "world"},
    ]
    kept, report = judge(rows, MATH)
    assert kept == [rows[0], rows[2], rows[3], rows[4]]
    assert dropped(report) == {"verify: wrong by answer": 1}
    assert dict(report.verdicts) == {"correct": 2, "wrong": 1, "no verdict": 2}
    assert report.samples[0].place == "x.jsonl:2"


def test_more_rows_than_a_chunk_keep_their_order() -> None:
    rows = [row(f"\\boxed{{{n % 3}}}", answer="1", n=n) for n in range(300)]
    kept, _ = judge(rows, MATH)
    assert [item["n"] for item in kept] == list(range(1, 300, 3))


def test_a_reward_that_fails_on_most_rows_stops_it() -> None:
    with pytest.raises(UserError, match=r"curation\.verify\.max_error_rate: 10 of 10 rows met errors"):
        judge([row(GOOD)] * 10, {"name": "bad", "function": f"{FAKES}:raises"})


def test_a_row_that_hangs_its_reward_is_wrong() -> None:
    kept, report = judge([row("hang")], {"name": "slow", "function": f"{FAKES}:hang", "deadline_s": 0.5})
    assert (kept, dropped(report)) == ([], {"verify: wrong by slow (timeout)": 1})


def test_rewards_need_someone_to_ask_them() -> None:
    with pytest.raises(ValueError, match=r"curation\.verify needs"):
        curate_rows([], config(verify={"terms": [MATH]}), seed=0)


def test_a_wrong_row_does_not_take_the_place_of_a_right_one() -> None:
    def verify(items: Iterator[Item]) -> Judged:
        return ((item, None if item.row["right"] else Finding("wrong")) for item in items)

    text = "The train leaves at nine in the morning and it arrives at the coast before noon, so the answer is {}."
    rows = [row(text.format("five"), right=False), row(text.format("four"), right=True)]
    settings = config(verify={"terms": [MATH]}, near_duplicates={})
    assert list(curate_rows(rows, settings, seed=0, verify=verify)) == rows[1:]


def test_the_default_keeps_all_arithmetic_dialogues() -> None:
    rows = list(dialogues("train", phases=[{"size": 1000, "reasoning": 0.5, "worked": 0.5}]))
    assert list(curate_rows(rows, CurationConfig(), seed=0)) == rows


def test_sections_of_a_recipe() -> None:
    default = SFTRecipe.model_fields["curation"].default
    on = {name for name, value in default if value is not None}
    assert on == {"degeneration", "language"}
    with pytest.raises(ValueError, match="least_answer 5 is above most_answer 4"):
        config(lengths={"least_answer": 5, "most_answer": 4})


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    rows = [row(GOOD, task="chat"), row(LOOP), row("", "Hm."), row(GOOD)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
    out = tmp_path / "kept" / "train.jsonl"
    options = ["data.source=data.files:dialogues", f"data.path={tmp_path}", "data.args=null", "curation.duplicates={}"]
    done = CliRunner().invoke(
        app, ["curate", "recipes/sft/tiny.yaml", *options, "data.args={}", "--explain", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "kept 1 of 4 rows" in done.output
    for text in ("loop in the answer", "no answer", "same row again", "train.jsonl:2 (Wait, let me see.)"):
        assert text in done.output
    assert [item["messages"] for item in lines(out)] == [rows[0]["messages"]]
    assert lines(out)[0]["task"] == "chat"
    assert json.loads(out.with_name("train.jsonl.report.json").read_text())["kept"] == 1


def read(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def solutions(folder: Path) -> Iterator[Row]:
    for item in read(folder / "gsm8k/train.jsonl.gz")[::3]:
        yield row(item["answer"], question=item["question"])
        yield row(item["answer"].split("#### ")[1], item["answer"].split("#### ")[0], question=item["question"])
    for item in read(folder / "math/math500_test.jsonl"):
        yield row(item["solution"], question=item["problem"])
    for item in read(folder / "humaneval/HumanEval.jsonl.gz"):
        code = item["prompt"] + item["canonical_solution"]
        yield row(code, question=item["prompt"])
        yield row(f"```python\n{code}\n```\nDone.", question=item["prompt"])
        yield row(item["test"], question=item["prompt"])


def chats(folder: Path) -> Iterator[Row]:
    for name in ("en_chatterbot_sft", "es_chatterbot_sft", "ko_chatterbot_sft", "ko_chatbot_sft"):
        for item in read(folder / f"chat/{name}.jsonl.gz"):
            *before, last = item["messages"]
            yield row(last["content"], question=before, language=name[:2])
    for name in ("en_oasst_preference", "es_mifeval_preference"):
        for item in read(folder / f"chat/{name}.jsonl.gz"):
            yield row(item["chosen"], question=item["messages"], language=name[:2])


@pytest.mark.parametrize(("source", "size"), [(solutions, 5974), (chats, 5434)])
def test_good_data_stays(real_data: Path, source: Any, size: int) -> None:
    report = CurationReport()
    list(curate_rows(source(real_data), CurationConfig(), seed=0, report=report))
    assert (report.seen.total(), dropped(report)) == (size, {})


def test_degenerate_responses_of_a_real_model_are_found(real_data: Path) -> None:
    """The rejected responses of 47 Spanish pairs: loops, lists of one phrase, and one that was cut off."""
    report = CurationReport()
    rows = read(real_data / "chat/es_mifeval_preference.jsonl.gz")
    rejected = [row(item["rejected"], question=item["messages"], language="es") for item in rows]
    list(curate_rows(rejected, CurationConfig(), seed=0, report=report))
    assert dropped(report) == {
        "degeneration: loop in the answer": 3,
        "degeneration: repeated phrases in the answer": 4,
        "degeneration: code fence of the answer is not closed": 1,
    }
