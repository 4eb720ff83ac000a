"""Answers in another language than their row's; no verdict on what is too short, or is no prose."""

from typing import Any

import pytest

from agapo.curation.language import foreign_language, language_mismatch

EN = "The train leaves the station at nine in the morning, and it arrives at the coast before noon. People like it."
ES = "El tren sale de la estación a las nueve de la mañana y llega a la costa antes del mediodía. A la gente le gusta."
KO = "기차는 아침 아홉 시에 역을 떠나 정오 전에 바닷가에 도착합니다. 사람들이 좋아합니다."
JA = "電車は朝九時に駅を出て、正午前に海岸に着きます。みんなが好きです。とても便利です。"
ZH = "火车早上九点离开车站，中午之前到达海边。人们都很喜欢它，因为它非常方便。"
TEXTS = {"en": EN, "es": ES, "ko": KO, "ja": JA, "zh": ZH}


def row(answer: str, language: str, question: str = "?", thinking: str = "", system: str = "") -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if thinking:
        turns[1]["reasoning_content"] = thinking
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *turns], "language": language}


def reason(*args: str, mode: str = "any", **kwargs: str) -> str:
    found = language_mismatch(row(*args, **kwargs), tolerated=0.3, thinking=mode)
    return found.reason if found else ""


@pytest.mark.parametrize("language", ["en", "es", "ko"])
@pytest.mark.parametrize("found", TEXTS)
def test_every_language_is_told_from_every_other(language: str, found: str) -> None:
    assert reason(TEXTS[found], language) == ("" if language == found else f"answer in '{found}', not '{language}'")


@pytest.mark.parametrize(
    ("answer", "language"),
    [
        ("Paris", "ko"),
        ("OK, thanks!", "ko"),
        ("Buenos Aires", "en"),
        ("42", "ko"),
        ("$$x^2 + y^2 = z^2 \\text{ for all right triangles in the whole plane}$$", "ko"),
        ("```python\n# the train leaves the station at nine in the morning\nx = 1\n```", "ko"),
        ("def f(x):\n    return x\n\n\ndef the_train_leaves(y):\n    return y\n", "ko"),
        ("| The train leaves the station | at nine in the morning every day |", "ko"),
        ('그는 "The train leaves the station at nine in the morning" 이라고 말했습니다.', "ko"),
        ("Transformer의 attention mechanism은 query, key, value로 이루어진 weighted sum 입니다.", "ko"),
        ("Los jugadores son:\n- Juan Pérez\n- José Martínez\n- Andrés Iniesta", "es"),
        ("The best players are:\n- Sergio Ramos García\n- Andrés Iniesta Luján\n- Iker Casillas", "en"),
        (EN, "xx"),
        (EN, ""),
    ],
)
def test_no_verdict_where_there_is_little_to_tell(answer: str, language: str) -> None:
    assert reason(answer, language) == ""


@pytest.mark.parametrize(
    ("question", "system"),
    [
        ("Translate into Korean: the train leaves.", ""),
        ("How do I say that in Korean?", ""),
        (f"다음을 요약해 줘: {KO}", ""),
        ("?", "Always answer in Korean."),
        ("'기차는 아침에 떠납니다. 우리는 그것을 좋아합니다'는 무슨 뜻이야?", ""),
    ],
)
def test_a_question_about_a_language_may_be_answered_in_it(question: str, system: str) -> None:
    assert reason(KO, "en", question=question, system=system) == ""


def test_thinking_may_be_in_any_language_by_default() -> None:
    assert reason(KO, "ko", thinking=EN) == ""
    assert reason(KO, "ko", thinking=EN, mode="same") == "thinking in 'en', not 'ko'"


def test_a_share_is_tolerated() -> None:
    mixed = f"{KO} {KO} {EN}"
    assert foreign_language(mixed, "ko", 0.6) is None
    assert foreign_language(mixed, "ko", 0.3) == (
        "en",
        "The train leaves the station at nine in the morning, and it arrives at the coast before noon.",
    )
