"""IFEval's 25 constraint types: pairs that keep to one and break it, at the boundary, in three languages."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rewards.constraints import CONSTRAINTS, count_words
from rewards.instructions import score, share, unsupported
from rewards.sentences import count_sentences, punkt_sentences


def one(function: Any, name: str, kwargs: dict[str, Any], text: str, **options: Any) -> float | None:
    return function([""], [text], instruction_id_list=[[name]], kwargs=[[kwargs]], **options)[0]


P3 = "First.\n***\nSecond.\n***\nThird."
PARTS = "One here.\n\nHowever, two.\n\nThree."
BULLETS = "* one\n* two\n- three"
LOWER = "this is an answer in small letters, about the weather today."
HINDI = "यह एक छोटा सा वाक्य है जो हिंदी में लिखा गया है।"
GERMAN = "Das ist ein kurzer Satz, der auf Deutsch geschrieben wurde."

PAIRS: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["mom", "Mother"]}, "My MOM is a mother.", "My mom."),
    ("keywords:existence", {"keywords": ["c++ (17)"]}, "I like C++ (17).", "I like C (17)."),
    ("keywords:existence", {"keywords": ["café"]}, "un cafe\u0301", "un cafe"),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "at least"}, "War and war.", "War."),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "less than"}, "War.", "War and war."),
    ("keywords:frequency", {"keyword": "평화", "frequency": 1, "relation": "최소"}, "평화를 빈다.", "자유를 빈다."),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "A rocket.", "A Rock."),
    ("keywords:existence", {"keywords": ["strasse"]}, "Die STRASSE.", "Die Straße."),
    ("keywords:forbidden_words", {"forbidden_words": ["a.b"]}, "axb", "a.b"),
    ("keywords:forbidden_words", {"forbidden_words": ["연인"]}, "사람이", "연인이 왔다"),
    (
        "keywords:letter_frequency",
        {"letter": "q", "let_frequency": 2, "let_relation": "at least"},
        "Quick q.",
        "Quick.",
    ),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "# a #", "# a"),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "less than"}, "Oh!", "Oh!!"),
    ("language:response_language", {"language": "hi"}, HINDI, "This is an English sentence."),
    ("language:response_language", {"language": "de"}, GERMAN, "Esta es una frase corta escrita en español."),
    (
        "language:response_language",
        {"language": "ko"},
        "이것은 한국어로 쓴 문장입니다.",
        "This is an English sentence.",
    ),
    ("language:response_language", {"language": "es"}, "Esta es una frase en español.", GERMAN),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "One, two!"),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        "One. Two.",
        "A box. A dog. A fox.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, P3, P3 + "\n***\nFourth."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\nA\n***\nB", "A\n\nB"),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "at least"},
        "One two three four",
        "One two three",
    ),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "less than"},
        "One, two: three.",
        "One two three 4",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "however"},
        PARTS,
        PARTS.replace("However", "Howeverest"),
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "however"},
        '"' + PARTS + '"',
        PARTS + "\n\nFour.",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "however"},
        PARTS.replace("However", "'HOWEVER's"),
        PARTS.replace("However,", "However:"),
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 3, "nth_paragraph": 3, "first_word": "three"},
        PARTS.replace("However", "\nHowever"),
        PARTS.replace("\n\nHowever", "\n\n\n\nHowever"),
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "however"},
        PARTS.replace("However,", "However\n"),
        PARTS.replace("However", "**However**"),
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[[a] b] [] c]", "] [a] b ]"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [street]", "[name] of [street\n]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. I was here.", "Bye. PS"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\n\nP. P. S. More", "Bye.\nP.S. More"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye. p.p.s", "Bye. PPS"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye. And p. s. so on", "Bye.\nP.S: so"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye. **P.S.**", "Bye.\nPost scriptum"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}, BULLETS, BULLETS + "\n* four"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* **two**", "**one**\n* two"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}, "* one\n---\n  - two", "* one\n***\n- two"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "My answer is perhaps."),
    ("detectable_format:constrained_response", {}, "Well. My answer is no.", "No."),
    ("detectable_format:constrained_response", {}, "My answer is yes. My answer is yes.", "my answer is yes."),
    (
        "detectable_format:constrained_response",
        {},
        "My answer is maybe. It depends.",
        "My answer is yes. My answer is no. My answer is maybe.",
    ),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and ** **"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "a *b c* d", "* b\n* c"),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        "* *b* c\n* **d**: e",
        "* *b* c\n* d * e * f",
    ),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "- *b* c\n  * *d* e", "- *b* c\n- d"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "(*b*)", "x*y*z is (a+1)*b*(c-1)"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*2*3 = 6*", "2 * 3 * 4 = 2*3*4 = 24"),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 1},
        "*중요*합니다.",
        "def f(*args, **kwargs):",
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "SECTION 1\na\nSection two\nb",
    ),
    ("detectable_format:json_format", {}, '{"a": [1, 2]}', '{"a": [1, 2}'),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', 'Here:\n```json\n{"a": 1}\n```'),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "**Section 1**\na\nSubSection2: b",
        "section 1\na\nSection 2",
    ),
    ("detectable_format:json_format", {}, '``` json\n{"a": 1}\n```', '``` python\n{"a": 1}\n```'),
    ("detectable_format:json_format", {}, "```\t JSON \n[1]```", "```jsonl\n[1]```"),
    ("detectable_format:title", {}, "<<a < b>>", "<<On\npeace>>"),
    ("detectable_format:title", {}, "<<On peace>>\nText", "<< >>\nText"),
    ("detectable_format:title", {}, "Text <<a>>", "<On peace>\nText"),
    ("combination:two_responses", {}, "One\n******\nTwo", "One\n******\nOne"),
    ("combination:two_responses", {}, "******\nOne\n******\nTwo\n******", "One\n******\nTwo\n******\nThree"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. So: it", "So: say it."),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, 'Yes. any questions?"', "Any questions? No."),
    ("startend:quotation", {}, '"All of it."', 'All "of it."'),
    ("startend:quotation", {}, '""', '"'),
    ("startend:quotation", {}, '"a" and "b"', "“All of it.”"),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "NASA and ESA",
        "Nasa ESA",
    ),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "DON'T", "DO-NOT"),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "I'm A.",
        "U.S.A.",
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        "NASA it is",
        "WE ARE it",
    ),
    ("change_case:english_capital", {}, "THIS IS ALL IN CAPITALS, AS ASKED.", "THIS IS NOT aLL IN CAPITALS."),
    (
        "change_case:english_capital",
        {},
        "STOP IT NOW, PLEASE, MY FRIEND.",
        "DAS IST EIN KURZER SATZ AUF DEUTSCH, DER NICHT GILT.",
    ),
    ("change_case:english_lowercase", {}, LOWER, LOWER.capitalize()),
    ("change_case:english_capital", {}, "TACO, BURRITO, QUESADILLA, SALSA.", "RECETA DE TACO: TOMATE, CEBOLLA, SAL."),
    ("change_case:english_capital", {}, "WOW!", "¡HOLA, AMIGO!"),
    ("change_case:english_capital", {}, "MARIA AND CARLOS LIVE IN MADRID.", "ME ENCANTA LA PIZZA Y LA PASTA."),
    ("change_case:english_capital", {}, "LEONARDO PAINTED THE MONA LISA.", "BUGÜN HAVA ÇOK GÜZEL."),
    ("change_case:english_lowercase", {}, "yes", "j'adore la pizza et les pâtes."),
    ("change_case:english_lowercase", {}, "my dog paco is a chihuahua.", "saya suka pizza dan pasta."),
    ("change_case:english_lowercase", {}, "sure.", "да."),
    ("change_case:english_lowercase", {}, "ok.", "12."),
    ("language:response_language", {"language": "th"}, "สวัสดี", "Hello"),
    ("language:response_language", {"language": "th"}, "นี่คือคำตอบเกี่ยวกับ Python API", "This is Python."),
    ("language:response_language", {"language": "th"}, '"สวัสดีครับ ผมชื่อสมชาย"', '"My name is Somchai."'),
    ("language:response_language", {"language": "ja"}, "東京", "我们都是中国人，今天天气很好，我们去公园。"),
    ("language:response_language", {"language": "fr"}, "Oui.", "Yes, it is what you have."),
    ("language:response_language", {"language": "de"}, "Guten Tag", "Good day to you"),
    ("language:response_language", {"language": "en"}, '"It is in quotes."', '"Das steht in Anführungszeichen."'),
    ("language:response_language", {"language": "it"}, "Ciao!", "42"),
    ("change_case:english_lowercase", {}, LOWER + " 123", "das ist ein kurzer satz, der nicht auf englisch ist."),
    ("punctuation:no_comma", {}, "No pause; none.", "A pause, here."),
    ("punctuation:no_comma", {}, "쉼표 없음.", "쉼표、있음."),
    (
        "es:length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "como máximo"},
        "¿Qué? ¡Ya!",
        "A ver. Sí. Ya.",
    ),
    ("es:length_constraints:number_words", {"num_words": 3, "relation": "al menos"}, "El niño está", "El niño"),
    ("es:change_case:spanish_capital", {}, "ESTA FRASE ESTÁ EN MAYÚSCULAS.", "ESTA FRASE NO ESTÁ EN MAYÚSCULAs."),
    ("es:change_case:spanish_lowercase", {}, "esta frase está en minúsculas.", "Esta frase está en minúsculas."),
    ("es:detectable_format:constrained_response", {}, '"Quizás."', "Quizás sí."),
    ("es:punctuation:question_marks", {}, "¿Por qué?", "Por esto."),
    ("es:punctuation:exclamation_marks", {}, "¡Vaya!", "Vaya."),
    ("es:special_character:enie", {"let_frequency": 2}, "El niño y el año", "El niño"),
    ("es:special_character:dieresis", {"let_frequency": 1}, "pingüino", "pingüino y cigüeña"),
    ("es:special_character:tildes", {"num_words": 2, "relation": "al menos"}, "Está aquí", "Está acá y ahí"[:4]),
    ("es:detectable_content:postscript", {"postscript_marker": "P.D."}, "Adiós.\nP.D. Vuelvo.", "Adiós.\nPosdata"),
    ("es:startend:end_checker", {"end_phrase": "Un saludo"}, "Hasta pronto. Un saludo", "Un saludo y adiós"),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "최소"},
        "비가 왔다. 춥다.",
        "비가 와서 춥다.",
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": "적어도"}, "오늘은 비가 온다", "오늘은 비가온다"),
    ("Korean:acrostic_poem", {"target_word": "자유"}, "자: 자전거를 타고\n유: 유유히 간다", "유: 유유히\n자: 자전거"),
    ("Korean:honorifics", {"direction_to": "honorific"}, "고생하셨어요. 쉬십시오.", "고생했어. 쉬십시오."),
    ("Korean:honorifics", {"direction_to": "non-honorific"}, "고생했어. 이제 쉬어.", "고생했어요. 쉬어."),
]


@pytest.mark.parametrize(("name", "kwargs", "keeps", "breaks"), PAIRS)
def test_a_constraint_is_kept_or_broken(name: str, kwargs: dict[str, Any], keeps: str, breaks: str) -> None:
    assert one(score, name, kwargs, keeps) == 1.0
    assert one(score, name, kwargs, breaks) == 0.0


def test_the_pairs_cover_all_types_of_ifeval() -> None:
    own = {name for name in CONSTRAINTS if not name.startswith(("es:", "Korean:"))}
    assert len(own) == 25
    assert own <= {name for name, *_ in PAIRS}
    assert len(PAIRS) >= 60


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Mr. Smith went to Washington, D.C. on Jan. 5. He left.", 2),
        ("It costs 3.50 dollars. Really?", 2),
        ("Wait... what?! No.", 3),
        ('He said "Stop." Then he left.', 2),
        ("1. First\n2. Second\n3. Third", 1),
        ("Use e.g. this one. It works, i.e. it runs.", 2),
        ("J. R. R. Tolkien wrote it.", 1),
        ("At 5 p.m. we met. We ate etc. Then we left.", 3),
        ("No full stop at all", 1),
        ("", 0),
        ("...", 0),
        ("¿Cómo estás? ¡Muy bien! Gracias.", 3),
        ("El Sr. Pérez vive en EE.UU. desde 1990. Es feliz.", 2),
        ("안녕하세요. 오늘은 날씨가 좋네요! 그렇죠?", 3),
        ("비가 왔다\n그래서 집에 있었다\n", 2),
        ("버전 2.0은 좋다. 끝.", 2),
    ],
)
def test_sentences_are_counted(text: str, number: int) -> None:
    assert count_sentences(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Mr. Smith went to Washington, D.C. on Jan. 5. He left.", 2),
        ("1. First\n2. Second\n3. Third", 4),
        ("1) First\n2) Second", 1),
        ("# A heading\n\nA line without an end\nanother one", 1),
        ("Wait... what?! No.", 3),
        ("Wait... what? No.", 2),
        ("Wait... However it ends.", 2),
        ('He said "Stop." Then he left!!! Really?', 3),
        ("At 5 p.m. we met. We ate etc. Then we left.", 3),
        ("At 5 p.m. The rest came. Use e.g. this one.", 4),
        ("J. R. R. Tolkien wrote it. He did.", 2),
        ("Take option B. The other is worse.", 2),
        ("It costs 3.50 dollars. Really?", 2),
        ("Visit example.com. It is good.Is it", 2),
        ("**Bold end.** Then more.", 2),
        ("(An aside.) And so on.", 2),
        ("She has a Ph.D. in law. Nice.", 2),
        ("No full stop at all", 1),
        ("", 0),
    ],
)
def test_sentences_are_counted_as_ifeval_counts_them(text: str, number: int) -> None:
    """The numbers are NLTK's, from its English model."""
    assert punkt_sentences(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("One two-three, four.", 4), ("El niño está aquí", 4), ("나는 학교에 간다", 3), ("", 0), ("— …", 0)],
)
def test_words_are_counted(text: str, number: int) -> None:
    assert count_words(text) == number


def test_all_constraints_of_a_row_count_and_their_share() -> None:
    ids = ["punctuation:no_comma", "detectable_format:title"]
    columns: dict[str, Any] = {"instruction_id_list": [ids], "kwargs": [[{}, {}]]}
    assert score([""], ["<<T>>, x"], **columns) == [0.0]
    assert share([""], ["<<T>>, x"], **columns) == [0.5]
    assert score([""], ["<<T>> x"], **columns) == [1.0]


def test_loose_forgives_a_first_line_and_asterisks() -> None:
    text = "Sure, here it is:\n**MY TEXT IS HERE NOW.**"
    assert one(score, "change_case:english_capital", {}, text) == 0.0
    assert one(score, "change_case:english_capital", {}, text, loose=True) == 1.0


def test_only_the_answer_is_judged() -> None:
    row: dict[str, Any] = {"instruction_id_list": [["punctuation:no_comma"]], "kwargs": [[{}]], "mode": ["reasoning"]}
    assert score([""], ["I think, so.</think>No pause."], **row) == [1.0]
    assert score([""], ["No pause and no end of thinking."], **row) == [0.0]


@pytest.mark.parametrize(
    ("ids", "kwargs", "reason"),
    [
        (["no:such"], [{}], "no:such: unknown"),
        (["keywords:existence"], [{}], "keywords is missing"),
        (["keywords:existence"], [{"keywords": "word"}], "should be a list"),
        (["length_constraints:number_words"], [{"relation": "about", "num_words": 3}], "relation is 'about'"),
        (["length_constraints:number_words"], [{"relation": "at least", "num_words": "x"}], "num_words should be"),
        (["language:response_language"], [{"language": "xx"}], "cannot be told"),
        (["punctuation:no_comma"], [], "one dict for each"),
        (["punctuation:no_comma"], "{", "not JSON"),
        ([], [], "no instruction"),
        (["Korean:numbers"], [{"direction_to": "chinese"}], "parser of Korean"),
    ],
)
def test_a_row_that_cannot_be_judged_says_why_and_has_no_verdict(ids: Any, kwargs: Any, reason: str) -> None:
    assert reason in (unsupported(ids, kwargs) or "")
    assert score([""], ["Text"], instruction_id_list=[ids], kwargs=[kwargs]) == [None]


def test_missing_columns_nulls_and_json_text() -> None:
    assert score([""], ["x"]) == [None]
    assert score([""], ["x"], instruction_id_list=[None], kwargs=[None]) == [None]
    filled = json.dumps([{"num_words": 1, "relation": "at least", "keywords": None}])
    assert score([""], ["x"], instruction_id_list=[["length_constraints:number_words"]], kwargs=[filled]) == [1.0]


@pytest.mark.parametrize(
    "text", ["*" * 100_000, "a. " * 33_000, "[" * 100_000, "<<" * 50_000, "\n\n" * 50_000, "다\n" * 50_000]
)
def test_long_texts_are_quick(text: str) -> None:
    started = time.monotonic()
    for name, kwargs, *_ in PAIRS:
        one(score, name, kwargs, text)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("file", "accepted", "refused"),
    [
        ("input_data", 541, {}),
        ("es_input_data", 115, {}),
        ("ko_kite_general", 386, {"combination:repeat_prompt: prompt_to_repeat is missing": 41}),
        ("ko_kite_korean", 50, {"Korean:numbers": 25, "Korean:postposition_drop": 25}),
    ],
)
def test_every_row_of_the_sets_is_accepted_or_refused_by_name(
    real_data: Path, file: str, accepted: int, refused: dict[str, int]
) -> None:
    rows = [json.loads(line) for line in (real_data / f"ifeval/{file}.jsonl").open()]
    reasons = [unsupported(row["instruction_id_list"], row["kwargs"]) for row in rows]
    found = Counter(
        next((known for known in refused if (reason or "").startswith(known)), reason) for reason in reasons
    )
    assert found == Counter({None: accepted, **refused})


@pytest.mark.parametrize(
    ("text", "number"),
    [  # NLTK's word_tokenize gave these numbers
        ("CANNOT", 2), ("I CANNOT.", 3), ("GONNA GO", 3), ("GOTTA GO", 3), ("WANNA", 2), ("GIMME", 2), ("LEMME", 2),
        ("D'YE KNOW", 3), ("MORE'N", 2), ("DON'T", 2), ("CAN'T", 2), ("CANNOT-GO", 3), ("CANNOTS", 1), ("CAN NOT", 2),
        ("ARGONNA", 1), ("cannot", 0), ("E-MAIL", 1),
    ],
)  # fmt: skip
def test_words_in_capitals(text: str, number: int) -> None:
    instruction = "change_case:capital_word_frequency"
    for relation, bound, holds in (("at least", number, 1.0), ("at least", number + 1, 0.0)):
        arguments = {"capital_relation": relation, "capital_frequency": bound}
        assert score([""], [text], instruction_id_list=[[instruction]], kwargs=[[arguments]]) == [holds]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("**Title: *x***", 1),
        ("***x***", 1),
        ("*a* ***b***", 2),
        ("**a** *b*", 2),
        ("**Title: *x* and *y***", 2),
        ("****", 0),
    ],
)
def test_a_highlight_in_a_highlight(text: str, number: int) -> None:
    instruction = "detectable_format:number_highlighted_sections"
    for bound, holds in ((number, 1.0), (number + 1, 0.0)):
        arguments = {"num_highlights": bound}
        assert score([""], [text], instruction_id_list=[[instruction]], kwargs=[[arguments]]) == [holds]
