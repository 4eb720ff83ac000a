"""Long contexts: needles lie where they should, lengths hold, formats agree, real documents are restructured."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agapo.errors import UserError
from data import korean_documents, long_context
from data.generated.haystacks import count_words, draw_needle, filler
from data.generated.korean_texts import FORMATS, KINDS, Section, draw_sections, render
from data.korean_documents import split_text

GRID = {"lengths": [100, 300, 900], "positions": [0.0, 0.3, 0.5, 1.0]}


def text(row: dict[str, Any]) -> str:
    return row["messages"][0]["content"]


def context(row: dict[str, Any]) -> str:
    return text(row).partition("\n\n")[2].rpartition("\n\n")[0]


# --- needles ---


@pytest.mark.parametrize("language", ["en", "ko", "es"])
def test_the_needle_lies_at_its_position_and_the_context_has_its_length(language: str) -> None:
    rows = list(long_context.needles("test", per_cell=3, language=language, **GRID))
    cells = [(row["context_length"], row["position"]) for row in rows]
    assert cells == [
        (length, position) for length in GRID["lengths"] for position in GRID["positions"] for _ in range(3)
    ]
    for row in rows:
        assert row["context_length"] - 20 <= count_words(context(row)) <= row["context_length"]
        sentences = re.split(r"(?<=\.)\s+", context(row))
        (place,) = [number for number, sentence in enumerate(sentences) if row["answer"] in sentence]
        assert place == round(row["position"] * (len(sentences) - 1))
        assert row["candidates"] == [row["answer"]]


def test_a_needle() -> None:
    (row,) = long_context.needles("test", lengths=[25], positions=[1], per_cell=1)
    assert row == {
        "id": row["id"],
        "messages": [
            {
                "role": "user",
                "content": "Read the text and answer the question.\n\nAround noon a patient gardener planted young "
                "trees beside the well. The access code of the white laboratory in Turin is 37319.\n\nQuestion: "
                "What is the "
                "access code of the white laboratory in Turin? Answer with the name or number alone.",
            }
        ],
        "task": "needle",
        "answer": "37319",
        "candidates": ["37319"],
        "tolerance": 0.0,
        "domain": "long_context",
        "language": "en",
        "context_length": 25,
        "position": 1,
    }


def test_longer_contexts_have_the_same_needles_and_rivals_are_candidates() -> None:
    short, long = (list(long_context.needles("test", lengths=[n], positions=[0.5], rivals=4)) for n in (150, 600))
    assert [row["answer"] for row in short] == [row["answer"] for row in long]
    for row in long:
        assert row["candidates"][0] == row["answer"] and len(row["candidates"]) == 5
        assert all(context(row).count(code) == 1 for code in row["candidates"])
        needle = next(sentence for sentence in re.split(r"(?<=\.)\s+", context(row)) if row["answer"] in sentence)
        place = re.split(r"(?<=\.)\s+", context(row)).index(needle)
        assert place / len(re.split(r"(?<=\.)\s+", context(row))) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("language", ["en", "ko", "es"])
def test_filler_varies_and_holds_no_digits(language: str) -> None:
    sentences = filler(language, Random(0))
    found = [next(sentences) for _ in range(5000)]
    assert len(set(found)) > 4500
    assert not re.search(r"\d", "".join(found))
    needles = [draw_needle(language, Random(seed)) for seed in range(300)]
    assert len({needle.question for needle in needles}) > 200
    assert not any(word in " ".join(found) for word in ("access code", "출입 번호", "código"))


def test_two_documents_are_needed() -> None:
    for row in long_context.prompts("test", kinds=["multi_document"], languages=["en"], per_cell=2, **GRID):
        parts = context(row).split("[Document ")[1:]
        who = re.findall(r"for which (.*) works\?", text(row))[0]
        firm = re.findall(rf"{who} works for ([^.]*)\.", context(row))
        city = re.findall(rf"{firm[0]} is based in (\w+)\.", context(row))
        assert city == [row["answer"]] and len(firm) == 1
        holding = next(number for number, part in enumerate(parts) if f"{firm[0]} is based" in part)
        assert holding == round(row["position"] * (len(parts) - 1))
        assert who not in parts[holding]
        assert len(row["candidates"]) == 4
        if row["context_length"] == 900:
            assert 870 <= count_words(context(row)) <= 900
            assert len(parts) >= 11


def test_public_chats_have_their_length_and_chinese_is_left_out(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}], "length": 9}
        for asked, said in (
            ("one two three", "four"),
            ("这是一个很长的文件，请回答问题。", "好的"),
            ("漢字 조문 하나", "둘"),
        )
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(long_context.public("train", path=tmp_path))
    assert [(text(row), row["context_length"], row["domain"]) for row in found] == [
        ("one two three", 3, "long_context"),
        ("漢字 조문 하나", 3, "long_context"),
    ]
    assert len(list(long_context.public("train", path=tmp_path, chinese=True))) == 3


# --- Korean documents ---


def test_a_section_in_each_format() -> None:
    section = Section(
        "제1조", "도로 시설 설치", (("처리 기한", "30일"), ("보존 기간", "5년")), "도로청은 30일 이내에 알린다."
    )
    assert {name: render("도로법", [section], name) for name in FORMATS} == {
        "plain": "도로법\n\n제1조(도로 시설 설치) 도로청은 30일 이내에 알린다.",
        "table": "# 도로법\n\n| 번호 | 제목 | 항목 | 내용 |\n|---|---|---|---|\n"
        "| 제1조 | 도로 시설 설치 | 처리 기한 | 30일 |\n| 제1조 | 도로 시설 설치 | 보존 기간 | 5년 |",
        "json": '{"문서": "도로법", "항목": [\n{"번호": "제1조", "제목": "도로 시설 설치", "처리 기한": "30일", '
        '"보존 기간": "5년"}\n]}',
        "clauses": "【도로법】\n\n제1조 도로 시설 설치\n  ① 처리 기한: 30일\n  ② 보존 기간: 5년",
        "qa": "도로법 질의응답\n\n문: 제1조 도로 시설 설치의 처리 기한은?\n답: 30일\n"
        "문: 제1조 도로 시설 설치의 보존 기간은?\n답: 5년",
        "form": "<서식> 도로법\n\n□ 제1조 도로 시설 설치\n   - 처리 기한 [ 30일 ]\n   - 보존 기간 [ 5년 ]",
    }


def test_answers_are_found_in_the_section_asked_for_and_at_its_position() -> None:
    for row in korean_documents.prompts("test", lengths=[200, 600], formats=["json"]):
        document = json.loads(context(row))
        name, heading, label = re.findall(r"질문: (\S+)\((.*)\)에서 (.*?)(?:은|는) 무엇", text(row))[0]
        sections = document["항목"]
        (place,) = [n for n, found in enumerate(sections) if found["번호"] == name and found["제목"] == heading]
        assert sections[place][label] == row["answer"]
        assert place == round(row["position"] * (len(sections) - 1))


def test_lengths_hold_in_each_format() -> None:
    rows = list(korean_documents.prompts("train", lengths=[300], positions=[0.5]))
    assert {(row["task"], row["format"]) for row in rows} == {(kind, form) for kind in KINDS for form in FORMATS}
    for row in rows:
        assert 300 - 50 <= count_words(context(row)) <= 300
        assert row["answer"] in context(row)


@pytest.mark.parametrize("kind", KINDS)
def test_prose_states_every_fact(kind: str) -> None:
    sections = draw_sections(kind, Random(0))
    for _ in range(100):
        section = next(sections)
        assert all(value in section.prose for _, value in section.facts)
        assert "(는)" not in section.prose and "(가)" not in section.prose and "(를)" not in section.prose


LAW = """도로법

제1조(목적) 이 법은 도로를 정한다.
제2조(정의) 용어의 뜻은
다음과 같다.
제3조의2(벌칙) 벌금에 처한다.
"""


def test_texts_are_split_into_articles_headings_or_paragraphs() -> None:
    assert [(section.name, section.heading, section.prose) for section in split_text(LAW)] == [
        ("제1조", "목적", "이 법은 도로를 정한다."),
        ("제2조", "정의", "용어의 뜻은 다음과 같다."),
        ("제3조의2", "벌칙", "벌금에 처한다."),
    ]
    assert [
        (section.name, section.heading, section.prose)
        for section in split_text("# 준비\n전원을 끈다.\n## 점검\n볼트를 조인다.\n")
    ] == [
        ("1번", "준비", "전원을 끈다."),
        ("2번", "점검", "볼트를 조인다."),
    ]
    assert [section.prose for section in split_text("하나 둘.\n\n셋\n넷.")] == ["하나 둘.", "셋 넷."]


def answered(rows: list[dict[str, Any]]) -> None:
    """Each answer is a section's number, heading or text."""
    for row in rows:
        said = row["messages"][-1]["content"]
        assert said == row["answer"] and said in text(row)
        assert row["context_length"] == count_words(context(row)) and 0 <= row["position"] <= 1


def test_own_text_files_are_restructured(tmp_path: Path) -> None:
    for number in range(16):
        (tmp_path / f"법{number}.txt").write_text(LAW)
    rows = {split: list(korean_documents.public(split, path=tmp_path)) for split in ("train", "test")}
    places = {split: {row["place"] for row in found} for split, found in rows.items()}
    assert len(places["train"]) + len(places["test"]) == 16 and not places["train"] & places["test"]
    answered(rows["train"] + rows["test"])
    assert len({row["format"] for row in rows["train"]}) == len(FORMATS)
    assert list(korean_documents.public("train", path=tmp_path)) == rows["train"]


def test_articles_of_a_law_are_one_document(tmp_path: Path) -> None:
    rows = [
        {
            "LawNameKor": law,
            "ClauseNumber": number,
            "ClauseTitle": "목적",
            "ClauseContent": f"{article}(목적) {law}의 내용이다.",
        }
        for law in ("가법", "나법")
        for number, article in (("1", "제1조"), ("2", "제2조"), ("2의2", "제2조의2"))
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(korean_documents.public("train", path=tmp_path, formats=["plain"]))
    answered(found)
    assert [row["place"].rpartition(":")[2] for row in found] == ["1", "1", "1", "4", "4", "4"]
    assert "제2조의2(목적) 가법의 내용이다." in text(found[0]) and "나법" not in text(found[0])


def test_long_documents_are_cut_to_a_window_around_the_answer(tmp_path: Path) -> None:
    articles = "\n".join(f"제{n}조(제목{n}) 내용 {n}번을 여기에 적는다 그리고 끝낸다." for n in range(1, 201))
    for number in range(8):
        (tmp_path / f"긴법{number}.txt").write_text(articles)
    rows = list(korean_documents.public("train", path=tmp_path, most_words=120, per_document=10, formats=["plain"]))
    answered(rows)
    assert all(80 <= row["context_length"] <= 125 for row in rows)
    assert {round(row["position"]) for row in rows} == {0, 1}


def test_rows_in_no_layout_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"ClauseContent": "x"}\n')
    with pytest.raises(UserError, match=r"train\.jsonl:1: rows need 'LawNameKor'"):
        list(korean_documents.public("train", path=tmp_path))
