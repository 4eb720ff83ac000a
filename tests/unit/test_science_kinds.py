"""Ways in which chat models state a science answer, and near misses, by kind."""

from typing import Any

import pytest

from rewards.science import score

CHANGES = ["increases", "decreases", "stays the same", "oscillates"]
TEN = [f"{letter}{number}" for number, letter in enumerate("qrstuvwxyz", 1)]
VALUES = ["10 N", "12 N", "15 N", "20 N"]


def one(text: str, gold: Any, choices: Any = None) -> float | None:
    return score([""], [text], answer=[gold], choices=[choices])[0]


@pytest.mark.parametrize(
    "text",
    [
        "**Answer:** 10 N",
        "**Answer: 10 N**",
        "**Answer**: 10 N",
        "**Answer:** **10 N**",
        "**Answer:**\n\n10 N",
        "**Answer:**\n\n**10 N**",
        "Answer: _10 N_",
        "Answer: ***10 N***",
        "Answer: `10 N`",
        "The answer is **10 N**.",
        "The final answer is **10** N.",
        "### Answer: 10 N",
        "> **10 N**",
        "F = **10 N**",
        "So F ≈ **10.0 N**",
        "**F = 10 N**",
        "Answer: **$10\\ \\text{N}$**",
        "The force is 10 N.",
        "Therefore, the force is about **10 N**.",
        "Answer: 10 newtons",
        "Answer: ten newtons",
        "Answer: 10 N (downward)",
        "Answer: 10 N, downward",
        "Answer: 10 N because m = 2 and a = 5",
        "\\[ F = 10\\text{ N} \\]",
        "So\n\\[\nF = 10\\text{ N}\n\\]",
        "\\boxed{F=ma}\n\nAnswer: 10 N",
        "\\boxed{\\mathbf{10\\ N}}",
        "Answer: 1e1 N",
        "Answer: 10 kg·m·s⁻²",
        "Answer: 10 kg m s^{-2}",
        "Answer: 10⁴ mN",
        "Answer: 1×10⁴ mN",
        "Answer: 20/2 N",
        "Answer: \\frac{20}{2} N",
        "Answer: $\\frac{20}{2}\\,\\mathrm{N}$",
        "Answer: 9 3/3 N",
        "Answer: 10 000 mN",
        "Answer: 10,000 mN",
    ],
)
def test_ten_newtons(text: str) -> None:
    assert one(text, "10 N") == 1.0
    assert one(text, "11 N") == 0.0
    assert one(text, "1 N") == 0.0
    assert one(text, "10 J") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "Answer: 10 N or 11 N",
        "Answer: 10 N (or 11 N)",
        "The force is not 10 N",
        "The force is 9 N or is 10 N",
        "Answer: 1/10 N",
        "Answer: 10/2 N",
        "Answer: -10 N",
        "Answer: - 10 N",
        "Answer: 10 N^2",
        "Answer: 10² N",
        "Answer: 10^2 N",
        "Answer: **1**0 N",
        "**Answer:** 10 kN",
        "Answer: 10 million N",
        "\\boxed{12 N}\n\nAnswer: 10 N",
        "Answer: 12 N because 2 N is 10 N less",
        "Answer: 10 to 12 N",
        "Answer: between 9 and 10 N",
        "Answer: 10 ± 2 N",
        "Answer: 10**2 N",
    ],
)
def test_not_ten_newtons(text: str) -> None:
    assert one(text, "10 N") == 0.0


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("1/4 m", "0.25 m", True),
        ("½ m", "0.5 m", True),
        ("2½ m", "2.5 m", True),
        ("2 1/2 m", "2.5 m", True),
        ("\\frac14", "0.25", True),
        ("-\\frac{1}{4}", "-0.25", True),
        ("-\\frac{1}{4}", "0.25", False),
        ("\\dfrac{3}{4}\\ \\text{mol}", "0.75 mol", True),
        ("0.25", "1/4", True),
        ("1/4", "1/4", True),
        ("1/4", "4", False),
        ("1/4", "1", False),
        ("1/0", "1", False),
        ("0.333", "1/3", True),
        ("0.4", "1/3", False),
        ("10 1/s", "10 Hz", True),
        ("3×10⁸ m/s", "3e8 m/s", True),
        ("3×10⁻⁸ m", "3e-8 m", True),
        ("3×10⁸ m/s", "3e7 m/s", False),
        ("9.8 m s⁻²", "9.8 m/s^2", True),
        ("9.8 m·s⁻²", "9.8 m/s^2", True),
        ("10^{-3} m", "1 mm", True),
        ("10^-3", "0.001", True),
        ("10^-3", "10", False),
        ("3 million years", "3e6 years", True),
        ("3 million", "3", False),
        ("twenty-five", "25", False),
        ("twenty-five kg", "25 kg", True),
        ("50 percent", "50 %", True),
        ("1e-20 J s", "6.63e-34 J s", False),
        ("1e-15", "2e-15", False),
        ("0", "0", True),
        ("**0.5**", "0.5", True),
        ("Answer: 5 m**2", "5 m^2", True),
        ("Answer: 2*3", "2", False),
        ("The answer is photosynthesis because plants need light.", "photosynthesis", True),
        ("The answer is photosynthesis, not respiration.", "photosynthesis", True),
        ("**Answer:** Photosynthesis", "photosynthesis", True),
        ("Answer: **Photosynthesis**.", "photosynthesis", True),
        ("The answer is photosynthesis or respiration.", "photosynthesis", False),
        ("The answer is not photosynthesis.", "photosynthesis", False),
        ("\\boxed{E=mc^2}\n\nAnswer: relativity", "relativity", True),
        ("\\boxed{gravity}\n\nAnswer: relativity", "relativity", False),
    ],
)
def test_numbers_and_texts(text: str, gold: str, right: bool) -> None:
    assert one(text, gold) == float(right)


SETTLES_ON_C = [
    "The answer is C, as I showed.",
    "Answer: C (not B)",
    "Answer: C, not B",
    "Answer: C rather than B",
    "The answer is C (I checked).",
    "The answer is C; I am sure.",
    "Answer: I think it is C",
    "I believe the answer is C.",
    "I'd say C.",
    "**Answer: C** – A and B are too small.",
    "Answer: C - because A and B are too small",
    "Answer: C. A and B are too small.",
    "Answer: C, since A or B would be too small",
    "The answer is C because D contradicts A.",
    "**Answer: C**. Option A is wrong, and option B is a typo.",
    "**C**",
    "**C)**",
    "**(C)**",
    "*C*",
    "__C__",
    "**Answer:** C",
    "**Answer:** **C**",
    "**Answer:**\n\nC",
    "The correct option is **C**.",
    "Option C",
    "It is C because A, B and D fail.",
    "Option C is correct.",
    "(C) is correct",
    "The correct answer is c.",
    "The correct answer is (c).",
    "Answer: c",
    "Answer: c) ...",
    "(c)",
    "c)",
    "\\boxed{c}",
    "\\boxed{\\text{Option C}}",
    "\\boxed{\\mathbf{C}}",
    "\\boxed{\\textbf{(C)}}",
    "Using \\boxed{F=ma} we choose C.\n\n**C**",
    "\\boxed{F = 12}\n\nSo we choose C.",
    "So $\\boxed{x^2 = 2}$. The right choice is therefore C.",
    "\\boxed{A = \\pi r^2}\n\nThe correct choice is (C).",
    "Since A is wrong and B is as well, I choose C.",
    "It is not A. It must be C.",
    "The answer is definitely C!",
    "Final answer: C",
    "La respuesta correcta es la C.",
    "정답: C",
    "Answer: C\n\nThe answer is not D.",
]


@pytest.mark.parametrize("text", SETTLES_ON_C)
@pytest.mark.parametrize("choices", [CHANGES, TEN], ids=["four", "ten"])
def test_a_letter_with_what_is_around_it(text: str, choices: list[str]) -> None:
    assert [one(text, letter, choices) for letter in "ABCD"] == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "text",
    [
        "C or D",
        "Answer: C or D",
        "Answer: C (or D)",
        "Answer: C, or maybe D",
        "Answer: C/D",
        "Answer: C, D",
        "Answer: C and D",
        "Answer: C & D",
        "Answer: both C and D",
        "Answer: either C or D",
        "Answer: C. Actually, D.",
        "Answer: C, no wait, D",
        "Answer: C; possibly D",
        "Answer: C – or D",
        "Answer: (C) or (D)",
        "**Answer: C** or **D**",
        "The answer is not C",
        "The answer is neither C nor D",
        "Answer: C is wrong",
        "Answer: none of these, C is wrong",
        "\\boxed{C or D}",
        "\\boxed{C, D}",
        "\\boxed{C = 5}",
        "Answer: A, B, C, D",
        "Answer: C) increases",
        "The answer is a matter of taste.",
        "I think so.",
        "A good question.",
        "c",
        "The pressure does not stay the same; it increases or decreases",
        "C u later alligator, I would say that A would be the right thing to have in such a case",
    ],
)
def test_what_settles_on_nothing(text: str) -> None:
    assert [one(text, letter, CHANGES) for letter in "ABCD"] == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "letter", "choices"),
    [
        ("The answer is that it decreases.", "B", CHANGES),
        ("The pressure stays the same.", "C", CHANGES),
        ("**Answer:** it **oscillates**", "D", CHANGES),
        ("So the pressure decreases over time.", "B", CHANGES),
        ("The force is 12 N.", "B", VALUES),
        ("Answer: 12 N", "B", VALUES),
        ("\\boxed{12\\text{ N}}\n\nThe correct choice is (D).", "B", VALUES),
        ("\\boxed{12\\text{ N}}\n\nThe correct choice is (D).", "D", CHANGES),
    ],
)
def test_a_choice_by_its_text(text: str, letter: str, choices: list[str]) -> None:
    assert [one(text, other, choices) for other in "ABCD"] == [float(other == letter) for other in "ABCD"]


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("Not A.", "A", False),
        ("Definitely not B.", "B", False),
        ("It can't be C.", "C", False),
        ("It cannot be C.", "C", False),
        ("It couldn’t be option C.", "C", False),
        ("C can't be right.", "C", False),
        ("Answer: A. Not B", "A", True),
        ("Answer: A. Not B.", "B", False),
        ("\\boxed{x^2} hence answer A. Not B", "A", True),
        ("It can't be A, so C.", "C", True),
        ("Answer: C. Can't be B.", "C", True),
        ("Answer: C. It cannot be B.", "C", True),
        ("C is not B.", "C", False),
        ("C cannot be right.", "C", False),
        ("It isn't B. Answer: C", "C", True),
    ],
)
def test_what_is_denied_is_not_chosen(text: str, gold: str, right: bool) -> None:
    assert one(text, gold, CHANGES) == float(right)


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("Answer: two", "2", True),
        ("Answer: **two**.", "2", True),
        ("\\boxed{\\text{two}}", "2", True),
        ("Answer: twenty-one", "21", True),
        ("Answer: two\nHope this helps!", "2", True),
        ("Answer: three", "2", False),
        ("Answer: two or three", "2", False),
        ("Answer: 2\\pi", "6.283", True),
        ("Answer: $2\\pi$ rad", "6.283 rad", True),
        ("Answer: 2π m", "6.283 m", True),
        ("Answer: 3\\pi", "6.283", False),
        ("Answer: 2\\pi m", "6.283 s", False),
        ("\\boxed{\\pi}", "3.1416", True),
        ("Answer: \\frac{\\pi}{2}", "1.5708", True),
        ("Answer: -\\pi/2", "-1.5708", True),
        ("Answer: \\frac{3\\pi}{4}", "2.356", True),
        ("Answer: \\frac{3\\pi}{4}", "9.42", False),
        ("Answer: 2\\pi", "2\\pi", True),
        ("Answer: \\frac{\\pi}{2}", "\\pi/2", True),
        ("Answer: $\\pi + \\pi$", "2\\pi", True),
        ("two", "2", False),
        ("One is enough.", "1", False),
    ],
)
def test_numbers_in_words_and_multiples_of_pi(text: str, gold: str, right: bool) -> None:
    assert one(text, gold) == float(right)


@pytest.mark.parametrize(
    "text",
    ["H2O", "H₂O", "$H_2O$", "$H_{2}O$", "\\ce{H2O}", "$\\ce{H2O}$", "$\\text{H}_2\\text{O}$", "$\\mathrm{H_{2}O}$"],
)
@pytest.mark.parametrize("place", ["Answer: {}", "The answer is {}.", "\\boxed{{{}}}", "It is **{}**."])
def test_subscripts_of_formulae(text: str, place: str) -> None:
    assert one(place.format(text), "H2O") == 1.0
    assert one(place.format(text), "H_2O") == 1.0
    assert one(place.format(text), "HO2") == 0.0
    assert one(place.format(text.replace("2", "3").replace("₂", "₃")), "H2O") == 0.0
    assert one(place.format(text.replace("H", "C").replace("O", "O_2")), "H2O") == 0.0
