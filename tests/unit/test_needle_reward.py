"""rewards.needle: the answer as a whole word, in three languages, and no other candidate."""

import pytest

from rewards.needle import contains, score


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("The number is 4821.", "4821", True),
        ("4821", "4821", True),
        ("It is 14821.", "4821", False),
        ("It is 48210.", "4821", False),
        ("It is 4821.5", "4821", False),
        ("It is 4,821,000", "821", False),
        ("It is 7.4821", "4821", False),
        ("4821, I think", "4821", True),
        ("The code is X-4821!", "X-4821", True),
        ("in busan", "Busan", True),
        ("in Busanjin", "Busan", False),
        ("번호는 4821입니다.", "4821", True),
        ("4821번지", "4821", False),
        ("부산입니다", "부산", True),
        ("부산에서는", "부산", True),
        ("부산항", "부산", False),
        ("동부산", "부산", False),
        ("Kim은 왔다", "Kim", True),
        ("La ciudad es Málaga.", "málaga", True),
        ("La ciudad es Malagueña.", "Mala", False),
        ("\uff14\uff18\uff12\uff11", "4821", True),
        ("부산".encode().decode(), "\u1107\u116e\u1109\u1161\u11ab", True),
        ("C++ it is", "C++", True),
    ],
)
def test_whole_words(text: str, answer: str, found: bool) -> None:
    assert contains(text, answer) is found


def one(text: str, answer: object, mode: str = "non_reasoning", **columns: object) -> float | None:
    return score(["?"], [text], [answer], [mode], **{name: [value] for name, value in columns.items()})[0]  # type: ignore[arg-type, list-item]


def test_only_the_final_answer_counts() -> None:
    assert one("4821 it is\n</think>\n\nI do not know", "4821", "reasoning") == 0.0
    assert one("hm\n</think>\n\n4821", "4821", "reasoning") == 1.0
    assert one("4821, but I never came to an answer", "4821", "reasoning") == 0.0


def test_other_candidates_make_it_wrong() -> None:
    rivals = ["4821", "1234"]
    assert one("4821", "4821", candidates=rivals) == 1.0
    assert one("4821 or 1234", "4821", candidates=rivals) == 0.0
    assert one("4821 or 1234", "4821") == 1.0
    assert one("Kim Minsu", "Kim Minsu", candidates=["Kim", "Lee"]) == 1.0
    assert one("Kim Minsu or Kim", "Kim Minsu", candidates=["Kim", "Lee"]) == 0.0
    assert one("Kim Minsu", "Kim", candidates=["Kim", "Kim Minsu"]) == 0.0


def test_several_needles_should_all_be_there() -> None:
    assert one("4821 and 1234", ["4821", 1234]) == 1.0
    assert one("4821", ["4821", 1234]) == 0.0


def test_without_an_answer_there_is_no_verdict() -> None:
    assert one("4821", None) is None
    assert one("4821", []) is None
    assert score(["?"], ["x"]) == [None]
