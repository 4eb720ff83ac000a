"""Science answers: letters, numbers with units, texts, hedges, hostile units, and the judge behind the rule."""

import time
from typing import Any

import pytest

from agapo.errors import UserError
from rewards.science import check, score
from tests.fakes.openai_server import serving

METALS = ["iron", "copper", "mercury", "gold"]


def one(text: str, gold: Any, choices: Any = None, **columns: Any) -> float | None:
    options = {
        name: value for name, value in columns.items() if name in ("unit_optional", "judge", "relative_tolerance")
    }
    lists = {name: [value] for name, value in columns.items() if name not in options}
    return score(["Which metal is liquid?"], [text], answer=[gold], choices=[choices], **lists, **options)[0]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("C", True),
        ("(C)", True),
        ("C.", True),
        ("C) mercury", True),
        ("C: mercury", True),
        ("**C**", True),
        (r"\boxed{C}", True),
        (r"\boxed{\text{C}}", True),
        (r"\boxed{\text{(C) mercury}}", True),
        ("The answer is C.", True),
        ("The answer is (C) mercury.", True),
        ("Answer: C", True),
        ("A is a solid, and so is B.\nSo the correct answer is C", True),
        ("mercury", True),
        ("The answer is mercury.", True),
        ("정답은 C입니다", True),
        ("La respuesta es C.", True),
        ("I think of A first. Then again, B.\n\nC", True),
        ("B", False),
        ("c", False),
        ("A or C", False),
        ("A, B, C, D", False),
        ("The answer is A or C.", False),
        (r"\boxed{A} or \boxed{C}? Well: \boxed{A}", False),
        ("The answer is C. No, the answer is B.", False),
        ("C) gold", False),
        ("gold", False),
        ("It is one of A, B, C and D.", False),
        ("", False),
        ("I do not know.", False),
    ],
)
def test_choices(text: str, right: bool) -> None:
    assert one(text, "C", METALS) == float(right)


@pytest.mark.parametrize(
    "choices", [METALS, dict(zip("ABCD", METALS, strict=True)), {"text": METALS, "label": list("ABCD")}]
)
def test_choices_come_in_several_forms(choices: Any) -> None:
    assert one("mercury", "C", choices) == 1.0
    assert one("C", "mercury", choices) == 1.0
    assert one("B", "mercury", choices) == 0.0


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("9.8 m/s^2", "9.8 m/s^2", True),
        ("9.8 m/s²", "9.8 m/s^2", True),
        ("980 cm/s^2", "9.8 m/s^2", True),
        (r"\boxed{9.8 \text{ m/s}^2}", "9.8 m/s^2", True),
        (r"$9.8\ \mathrm{m/s^{2}}$", "9.8 m/s^2", True),
        (r"9.8 \frac{m}{s^2}", "9.8 m/s^2", True),
        ("9.8 m s^-2", "9.8 m/s^2", True),
        ("9.85 m/s^2", "9.8 m/s^2", True),
        ("10 m/s^2", "9.8 m/s^2", False),
        ("9.8 m/s", "9.8 m/s^2", False),
        ("9.8", "9.8 m/s^2", False),
        ("9.8 m/s^2 or 10 m/s^2", "9.8 m/s^2", False),
        ("5 N*m", "5 J", True),
        ("5 kJ", "5 J", False),
        ("0.005 kJ", "5 J", True),
        (r"3.0 \times 10^{8} m/s", "3e8 m/s", True),
        ("3.0 x 10^8 m/s", "300000000 m/s", True),
        ("300,000 km/s", "3e8 m/s", True),
        ("25 °C", "298.15 K", True),
        (r"25^\circ\text{C}", "298.15 K", True),
        ("25 K", "25 °C", False),
        ("The answer is 12 g.", "0.012 kg", True),
        ("So x = 4 = 4 m", "4 m", True),
        ("about 4 m", "4 m", True),
        ("-4 m", "4 m", False),
        ("50%", "50 %", True),
        ("2.5 h", "150 min", True),
        ("42", "42", True),
        ("42.1", "42", True),
        ("43", "42", False),
        ("42 m", "42", False),
        ("mitochondria", "The mitochondria", True),
        ("The mitochondria.", "mitochondria", True),
        ("mitochondrion", "mitochondria", False),
        ("It is the\nAnswer: Photosynthesis!", "photosynthesis", True),
        ("not photosynthesis", "photosynthesis", False),
        ("H2O", "h2o", True),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", True),
    ],
)
def test_numbers_units_and_texts(text: str, gold: str, right: bool) -> None:
    assert one(text, gold) == float(right)


def test_a_units_column_a_rows_tolerance_and_an_optional_unit() -> None:
    assert one("4 m", 4, unit="m") == 1.0
    assert one("400 cm", 4.0, unit="m") == 1.0
    assert one("4", 4, unit="m") == 0.0
    assert one("4", 4, unit="m", unit_optional=True) == 1.0
    assert one("4.3 m", "4 m", tolerance=0.1) == 1.0
    assert one("4.3 m", "4 m", relative_tolerance=0.05) == 0.0


def test_no_gold_no_verdict_and_no_answer_is_wrong() -> None:
    assert score([""], ["4"]) == [None]
    assert one("4", None) is None
    assert one("4", "") is None
    assert score([""], ["I never came to an end"], answer=["4"], mode=["reasoning"]) == [0.0]


@pytest.mark.parametrize(
    "text",
    [
        "4 m^9^9^9",
        "4 10**10**10",
        "4 m**1000000000",
        "4 " + "(" * 30 + "m" + ")" * 30,
        "4 " + "m*" * 50_000,
        "9" * 100_000,
        "1e999 m",
        "4 __import__('os')",
        "answer is " * 20_000,
        "\\text{" * 20_000,
        "\n" * 100_000 + "4",
    ],
)
def test_hostile_answers_are_wrong_and_quick(text: str) -> None:
    started = time.monotonic()
    assert one(text, "4 m") == 0.0
    assert time.monotonic() - started < 2


def test_the_judge_is_asked_when_the_rule_says_wrong() -> None:
    with serving() as server:
        judge = {"base_url": server.url, "model": "judge", "cache_dir": ""}
        assert one("mercury", "C", METALS, judge=judge) == 1.0
        assert server.prompts == []
        assert one("It must be photosynthesis that does it, I believe", "photosynthesis", judge=judge) == 1.0
        assert one("It must be respiration", "photosynthesis", METALS, judge=judge) == 0.0
        assert len(server.prompts) == 2
        assert "A. iron" in server.prompts[1]
        check(judge=judge)
    with pytest.raises(UserError, match="does not answer"):
        check(judge=judge)
    with pytest.raises(ConnectionError):
        one("It must be respiration!", "photosynthesis", judge={**judge, "retries": 0})
