"""World knowledge, several languages, math, logic: exact rows, and answers found again in another way."""

import json
import re
from datetime import date, timedelta
from itertools import permutations, product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agapo.errors import UserError
from data import multilingual, reasoning_sft, world_knowledge
from data.generated.culture import ROWS
from data.generated.facts import COUNTRIES, ELEMENTS, MONTHS, OPPOSITES, UNITS, WEEKDAYS
from data.generated.korean import with_particles
from data.generated.list_functions import MAKERS as FUNCTIONS
from data.generated.numerals import in_words
from rewards.unit_tests import extract_code
from rewards.unit_tests import score as passes
from tests.sandboxed import needs_sandbox


def question(row: dict[str, Any]) -> str:
    return row["messages"][0]["content"]


def test_a_row_of_world_knowledge() -> None:
    (row,) = world_knowledge.prompts("test", size=1, kinds=["unit"], languages=["en"])
    assert row == {
        "id": row["id"],
        "messages": [{"role": "user", "content": question(row)}],
        "domain": "world",
        "task": "unit",
        "language": "en",
        "answer": row["answer"],
        "tolerance": 0.0,
    }
    assert question(row) == "How many centimetres are 8 metres? Put the final answer within \\boxed{}."
    assert row["answer"] == "800"


def test_weekdays_by_the_calendar() -> None:
    monday = date(2024, 1, 1)
    for row in world_knowledge.prompts("train", size=300, kinds=["weekday"], languages=["en"]):
        day, days = re.findall(r"Today is (\w+)\. .* in (\d+) days", question(row))[0]
        start = [name.en for name in WEEKDAYS].index(day)
        later = monday + timedelta(start + int(days))
        assert row["answer"] == later.strftime("%A")


def test_protons_and_months_by_the_tables() -> None:
    number = {element.name.ko: element.number for element in ELEMENTS}
    for row in world_knowledge.prompts("train", size=200, kinds=["protons"], languages=["ko"]):
        one, other = re.findall(r"(\S+) 원자 하나와 (\S+) 원자", question(row))[0]
        assert row["answer"] == str(number[one] + number[other])
    months = [month.es for month in MONTHS]
    for row in world_knowledge.prompts("train", size=200, kinds=["month"], languages=["es"]):
        month, count = re.findall(r"Estamos en (\w+)\. .*dentro de (\d+)", question(row))[0]
        assert row["answer"] == months[(months.index(month) + int(count)) % 12]


def test_tables_have_no_gaps_and_no_doubles() -> None:
    for table in (COUNTRIES, ELEMENTS):
        for code in range(3):
            assert len({row.name[code] for row in table}) == len(table)
    assert len({row.number for row in ELEMENTS}) == len(ELEMENTS) == 30
    assert len(OPPOSITES) == 16 and len(UNITS) == 9
    for rows in ROWS.values():
        assert len(rows) == len({asked for asked, *_ in rows}) == 24
        assert all(len(row) == 3 and all(row) for row in rows)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("서울은(는) 부산이(가) 아니다", "서울은 부산이 아니다"),
        ("프랑스은(는) 나라이(라)", "프랑스는 나라라"),
        ("물와(과) 차와(과)", "물과 차와"),
        ("서울(으)로 강원(으)로 바다(으)로", "서울로 강원으로 바다로"),
        ("3을(를) 2을(를) 10은(는)", "3을 2를 10은"),
        ("'송편'은(는) 5권이(가)", "'송편'은 5권이"),
        ("ROAD 58(으)로 A4이(가)", "ROAD 58로 A4가"),
    ],
)
def test_particles(template: str, text: str) -> None:
    assert with_particles(template) == text


# --- math ---


def test_word_problems_by_their_numbers() -> None:
    seen = set()
    for row in reasoning_sft.prompts("train", size=400, kinds=["math"], languages=["es"]):
        n = [int(text) for text in re.findall(r"\d+", question(row))]
        seen.add(row["task"])
        value = {
            "shop": lambda n=n: n[3] - (n[0] * n[1] - n[2]),
            "trip": lambda n=n: n[0] * n[1] + n[2] * (n[1] + n[3]),
            "tank": lambda n=n: n[0] // (n[1] - n[2]),
            "ages": lambda n=n: (n[0] + n[1]) // 2,
        }[row["task"]]()
        assert row["answer"] == str(value), question(row)
    assert seen == {"shop", "trip", "tank", "ages"}


def test_every_equation_of_a_derivation_holds() -> None:
    checked = 0
    chain = re.compile(r"[\d(][\d()+*/ -]*(?: = [\d(][\d()+*/ -]*)+")
    for row in reasoning_sft.dialogues("train", size=300, kinds=["math"], responses=3, reasoning=1.0):
        for found in chain.findall(row["messages"][-1]["reasoning_content"]):
            sides = [side.strip() for side in found.split(" = ")]
            if all(side.count("(") == side.count(")") for side in sides):
                assert len({eval(side) for side in sides}) == 1, row
                checked += 1
    assert checked > 500


# --- logic ---


def test_orders_have_one_solution() -> None:
    for row in logic("order"):
        asked = question(row)
        clues = re.findall(r"(\w+) (?:is taller than|is older than|finished before) (\w+)\.", asked)
        people = {name for clue in clues for name in clue}
        (order,) = (o for o in permutations(people) if all(o.index(a) < o.index(b) for a, b in clues))
        last = any(word in asked for word in ("shortest?", "youngest?", "the last?"))
        assert row["answer"] == order[-1 if last else 0]


def test_knights_and_knaves_have_one_solution() -> None:
    for row in logic("knights"):
        claims = re.findall(
            r"(\w+) says: (\w+) (is a knave|is a knight|and I are of the same kind|and I are of d)", question(row)
        )
        people = sorted({claim[0] for claim in claims})
        fitting = []
        for kinds in product((True, False), repeat=len(people)):
            knight = dict(zip(people, kinds, strict=True))
            truth = {
                "is a knave": lambda a, b, k=knight: not k[b],
                "is a knight": lambda a, b, k=knight: k[b],
                "and I are of the same kind": lambda a, b, k=knight: k[a] == k[b],
                "and I are of d": lambda a, b, k=knight: k[a] != k[b],
            }
            if all(knight[a] == truth[said](a, b) for a, b, said in claims):
                fitting.append(sum(kinds))
        assert [row["answer"]] == [str(count) for count in fitting]


def test_truth_tables_by_another_evaluation() -> None:
    for row in logic("truth_table"):
        formula = re.findall(r"p, q and r is (.*) true\?", question(row))[0]
        assert row["answer"] == str(sum(holds(formula, bits) for bits in product((True, False), repeat=3)))


def logic(task: str) -> list[dict[str, Any]]:
    rows = [row for row in reasoning_sft.prompts("train", size=600, kinds=["logic"]) if row["task"] == task]
    assert len(rows) > 100
    return rows


def holds(formula: str, bits: tuple[bool, ...]) -> bool:
    """Replace the letters, then the innermost pairs, until one value is left."""
    text = f"({formula})"
    for letter, bit in zip("pqr", bits, strict=True):
        text = re.sub(rf"\b{letter}\b", "T" if bit else "F", text)
    table = {"and": "TFFF", "or": "TTTF", "implies": "TFTT", "xor": "FTTF"}
    while len(text) > 1:
        text = text.replace("not T", "F").replace("not F", "T")
        pairs = r"\(?([TF]) (and|or|implies|xor) ([TF])\)?"
        text = re.sub(pairs, lambda m: table[m[2]][2 * (m[1] == "F") + (m[3] == "F")], text, count=1)
        text = re.sub(r"\(([TF])\)", r"\1", text)
    return text == "T"


# --- code ---


def test_functions_have_three_different_programs_that_agree() -> None:
    for seed in range(60):
        item = FUNCTIONS[("sums", "counts", "extremes")[seed % 3]](Random(seed))
        programs = [extract_code(response.content) for response in item.responses]
        assert len(set(programs)) == 3
        for program in programs:
            scope: dict[str, Any] = {}
            exec(program, scope)
            for test in item.columns["test_list"]:
                exec(test, scope)


@needs_sandbox
def test_functions_pass_in_the_sandbox() -> None:
    for row in reasoning_sft.dialogues("train", size=15, kinds=["code"], responses=3):
        turns = [row["messages"][-1]]
        columns = {name: [row[name]] for name in ("test_list", "test_setup_code")}
        assert passes([""], [turns], mode=[row["mode"]], **columns) == [1.0]


def test_kinds_that_a_language_lacks_are_named() -> None:
    with pytest.raises(UserError, match="code come in English only"):
        reasoning_sft.prompts("train", kinds=["code"], languages=["ko"])


# --- several languages ---


@pytest.mark.parametrize(
    ("number", "en", "ko", "es"),
    [
        (0, "zero", "영", "cero"),
        (16, "sixteen", "십육", "dieciséis"),
        (21, "twenty-one", "이십일", "veintiuno"),
        (42, "forty-two", "사십이", "cuarenta y dos"),
        (100, "one hundred", "백", "cien"),
        (101, "one hundred and one", "백일", "ciento uno"),
        (555, "five hundred and fifty-five", "오백오십오", "quinientos cincuenta y cinco"),
        (1000, "one thousand", "천", "mil"),
        (1110, "one thousand one hundred and ten", "천백십", "mil ciento diez"),
        (2003, "two thousand and three", "이천삼", "dos mil tres"),
        (9876, "nine thousand eight hundred and seventy-six", "구천팔백칠십육", "nueve mil ochocientos setenta y seis"),
    ],
)
def test_numbers_in_words(number: int, en: str, ko: str, es: str) -> None:
    assert [in_words(number, code) for code in ("en", "ko", "es")] == [en, ko, es]


@pytest.mark.parametrize("language", ["en", "ko", "es"])
def test_numbers_have_different_words(language: str) -> None:
    assert len({in_words(number, language) for number in range(10_000)}) == 10_000


def test_a_translation_is_in_the_language_asked_for_and_its_way_back_in_the_same_split() -> None:
    rows = list(multilingual.prompts("test", size=1500, kinds=["translation"]))
    pairs = {(question(row).partition(": ")[2], row["answer"]) for row in rows}
    train = {row["answer"] for row in multilingual.prompts("train", size=3000, kinds=["translation"])}
    assert not train & {text for pair in pairs for text in pair}


def test_translations_of_three_kinds() -> None:
    rows = multilingual.prompts("test", size=3, kinds=["translation"])
    assert [(question(row), row["answer"], row["language"]) for row in rows] == [
        (
            "다음을 한국어로 번역하세요: El estudiante aprende coreano en la estación por la tarde.",
            "학생은 저녁에 역에서 한국어를 배웁니다.",
            "ko",
        ),
        (
            "Traduce al español: 의사는 매일 아침 역에서 책을 읽습니다.",
            "El médico lee un libro en la estación todas las mañanas.",
            "es",
        ),
        (
            "다음을 한국어로 번역하세요: The student eats an apple at home in winter.",
            "학생은 겨울에 집에서 사과를 먹습니다.",
            "ko",
        ),
    ]


def test_aya_is_filtered_by_language(tmp_path: Path) -> None:
    rows = [
        {"inputs": f"q{code}", "targets": "a", "language": name, "language_code": code, "annotation_type": "original"}
        for name, code in (("English", "eng"), ("Korean", "kor"), ("Spanish", "spa"), ("Thai", "tha"))
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(multilingual.public("train", path=tmp_path, languages=["ko", "es"]))
    assert [(question(row), row["language"], row["domain"]) for row in found] == [
        ("qkor", "ko", "multilingual"),
        ("qspa", "es", "multilingual"),
    ]
    assert found[0].keys() >= {"annotation_type", "place"} and "language_code" not in found[0]


def test_smoltalk_is_read_as_it_is(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": turns, "source": "everyday"}))
    (row,) = world_knowledge.public("train", path=tmp_path)
    assert (row["messages"], row["domain"], row["source"]) == (turns, "world", "everyday")
