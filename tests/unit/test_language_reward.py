"""Languages told apart, and responses that keep to the prompt's or change it in mid-text."""

import gzip
import json
import time
from pathlib import Path

import pytest

from rewards.language import detect, foreign_share, score

ENGLISH = "The train leaves at nine and arrives two hours later."
SPANISH = "El tren sale a las nueve y llega dos horas más tarde."
KOREAN = "기차는 아홉 시에 떠나서 두 시간 뒤에 도착합니다."
THINKING = "We add the two hours to the time of departure, which was nine."


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        (SPANISH, "es"),
        (KOREAN, "ko"),
        ("Der Zug fährt um neun Uhr ab und kommt zwei Stunden später an.", "de"),
        ("Le train part à neuf heures et arrive deux heures plus tard.", "fr"),
        ("電車は九時に出発して、二時間後に着きます。", "ja"),
        ("火车九点出发，两小时后到达。", "zh"),
        ("Поезд отправляется в девять и прибывает через два часа.", "ru"),
        ("Поїзд відправляється о дев'ятій і прибуває через дві години.", "uk"),
        ("GPU 메모리가 부족하면 batch 크기를 줄이세요.", "ko"),
        ("42", None),
        ("```python\nprint('hello world, this is code')\n```", None),
        (r"\boxed{4}", None),
        ("", None),
    ],
)
def test_languages_are_told(text, language):
    assert detect(text) == language


@pytest.mark.parametrize(
    ("language", "answer", "keeps"),
    [
        ("en", ENGLISH, True),
        ("en", SPANISH, False),
        ("es", SPANISH, True),
        ("es", ENGLISH, False),
        ("ko", KOREAN, True),
        ("ko", ENGLISH, False),
        ("en", KOREAN, False),
        ("ko", f"{KOREAN} {ENGLISH}", False),
        ("en", f"{ENGLISH}\n{KOREAN}", False),
        ("es", f"{SPANISH} {ENGLISH}", False),
        ("ko", "PyTorch와 Hugging Face Transformers를 설치하세요.", True),
        ("ko", f'{KOREAN} 제목은 "The Old Man and the Sea by Ernest Hemingway"입니다.', True),
        ("ko", f"{KOREAN}\n```python\n# the answer is printed here, as a comment in English\n```", True),
        ("es", r"Entonces \boxed{12}", True),
        ("ko", r"\boxed{12}", True),
        ("es", "42", True),
        ("en", "Kim Min-su (김민수) was born in Seoul, the capital of South Korea.", True),
    ],
)
def test_an_answer_keeps_to_its_language_or_not(language, answer, keeps):
    assert score([""], [answer], language=[language], mode=["non_reasoning"]) == [float(keeps)]


def test_thinking_and_answer_are_judged_apart():
    both = f"{THINKING}</think>{KOREAN}"
    assert score([""], [both], language=["ko"], mode=["reasoning"]) == [0.0]
    assert score([""], [both], language=["ko"], mode=["reasoning"], thinking="any") == [1.0]
    assert score([""], [both], language=["ko"], mode=["reasoning"], thinking="en") == [1.0]
    assert score([""], [f"{KOREAN}</think>{ENGLISH}"], language=["ko"], mode=["reasoning"], thinking="any") == [0.0]


def test_the_prompts_language_is_used_where_no_column_says_it():
    chat = [{"role": "user", "content": SPANISH}]
    assert score([chat, SPANISH, "1+1"], [SPANISH, ENGLISH, ENGLISH]) == [1.0, 0.0, None]
    assert score([""], [ENGLISH], language=["tlh"]) == [None]


def test_the_share_is_one_of_letters():
    assert foreign_share(f"{ENGLISH} {ENGLISH} {ENGLISH} {SPANISH}", "en") == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "가" * 100_000, "word " * 20_000, "$" * 100_000, '"' * 99_999, "<" * 100_000]
)
def test_long_texts_are_quick(text):
    started = time.monotonic()
    score([""], [text], language=["en"])
    assert time.monotonic() - started < 2


def rows(path: Path) -> list[dict]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("file", "column", "language"),
    [
        ("ifeval/input_data.jsonl", "prompt", "en"),
        ("ifeval/es_input_data.jsonl", "prompt", "es"),
        ("mgsm/mgsm_en.jsonl", "question", "en"),
        ("mgsm/mgsm_es.jsonl", "question", "es"),
        ("chat/en_chatterbot_sft.jsonl.gz", "messages", "en"),
        ("chat/es_chatterbot_sft.jsonl.gz", "messages", "es"),
        ("chat/ko_chatbot_sft.jsonl.gz", "messages", "ko"),
    ],
)
def test_real_texts_of_five_words_are_told_in_99_of_100(real_data: Path, file: str, column: str, language: str) -> None:
    found = [row[column] if column != "messages" else row[column][-1]["content"] for row in rows(real_data / file)]
    texts = [text for text in found if len(text.split()) >= 5]
    told = sum(detect(text) == language for text in texts) / len(texts)
    kept = sum(score([""], [text], language=[language]) == [1.0] for text in texts) / len(texts)
    assert told >= 0.99
    assert kept >= 0.99


TINY = {"among": ["en", "ko", "es"], "telling_words": 2, "telling_letters": 6}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Empiezo con 3. Luego 3+4=7. El resultado es 7.</think>La respuesta es \\boxed{7}.", "es"),
        ("I start with 3. Then 3+4=7. The result is 7.</think>The answer is \\boxed{7}.", "en"),
        ("3에서 시작합니다. 다음은 3+4=7. 결과는 7입니다.</think>답은 \\boxed{7}입니다.", "ko"),
        ("3+4=7</think>La respuesta es \\boxed{7}.", "es"),
    ],
)
def test_among_few_languages_short_sentences_can_be_told(text: str, language: str) -> None:
    for asked in ("en", "ko", "es"):
        found = score(["?"], [text], language=[asked], mode=["reasoning"], **TINY)
        assert found == [float(asked == language)]
    # As a rule they are too short to tell.
    assert score(["?"], ["3+4=7</think>La respuesta es \\boxed{7}."], language=["en"], mode=["reasoning"]) == [1.0]
