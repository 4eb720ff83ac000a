import gzip
import json
import random
import re
import signal
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agapo.rewarding.pool import Sample, VerifierPool
from rewards import math_answer
from rewards.math_answer import extract_answer, parseable, score


def one(completion, gold, mode=None):
    return score([None], [completion], [gold], None if mode is None else [mode])[0]


def boxed(answer):
    return f"so it is $\\boxed{{{answer}}}$."


# --- finding the answer ---


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}} #### 3", r"\{1, 2\}"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed 5", "5"),
        (r"\boxed{6} and, cut off, \boxed{7", "6"),
        (r"\boxed{}", None),
        ("2 + 2\n#### 1,234", "1,234"),
        ("#### 72\n\nQuestion: what is 3 + 4?", "72"),
        ("#### Step 2\nso it is 9", "9"),
        ("####", None),
        ("It costs $1,250.50!", "1,250.50"),
        ("a $5 hat and a $10 hat", "10"),
        (r"is $\frac12$.", r"\frac12"),
        (r"gives \[ x^2 + 1 \]", "x^2 + 1"),
        (r"the root \(\sqrt{2}\), not 3, so $$\sqrt{5}$$", r"\sqrt{5}"),
        ("she ate 3/4 of them", "3/4"),
        ("it falls to -5.", "-5"),
        ("it falls to -.5.", "-.5"),
        ("from 3-5", "5"),
        ("**20%**", "20%"),
        ("no idea", None),
        ("", None),
    ],
)
def test_the_final_answer(text, answer):
    assert extract_answer(text) == answer


# --- modes and shapes of completions ---


def test_reasoning_needs_a_closed_thinking_block():
    thinking, closed = boxed(72), f"{boxed(72)}</think>"
    assert one(f"{closed} The answer is 72.", "72", "reasoning") == 1.0
    assert one(f"{closed} The answer is 71.", "72", "reasoning") == 0.0
    assert one(closed, "72", "reasoning") == 0.0
    assert one(thinking, "72", "reasoning") == 0.0
    assert one(thinking, "72", "non_reasoning") == 1.0
    assert one(thinking, "72") == 1.0
    assert one(f"72 </think> {boxed(71)}", "72") == 0.0


def test_conversational_completions():
    turn = {"role": "assistant", "content": f"</think>{boxed(72)}"}
    assert one([{"role": "user", "content": boxed(1)}, turn], "72", "reasoning") == 1.0
    apart = {"role": "assistant", "content": boxed(72), "reasoning_content": "hm"}
    assert one([apart], "72", "reasoning") == 1.0
    assert one([{"role": "assistant", "content": boxed(72)}], "72", "reasoning") == 0.0
    assert one([{"role": "assistant", "content": None}], "72", "non_reasoning") == 0.0
    assert one([], "72", "non_reasoning") == 0.0


def test_a_batch_keeps_its_order_and_takes_further_columns():
    completions = [boxed(1), boxed(2), f"</think>{boxed(3)}"]
    modes = ["non_reasoning", "reasoning", "reasoning"]
    assert score(["q"] * 3, completions, ["1", "2", 3], modes, domain=["math"] * 3) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "gold", [None, "", "  ", "$$", "####", "work ####", r"\boxed{}", r"\frac{1", float("nan"), "?"]
)
def test_no_verdict_without_a_usable_gold(gold):
    assert one(boxed(1), gold) is None


@pytest.mark.parametrize("gold", [72, 72.0, "72", "$72", "9*8 = <<9*8=72>>72 clips\n#### 72", r"thus $\boxed{72}$."])
def test_forms_of_gold(gold):
    assert one("#### 72", gold) == 1.0
    assert one("#### 27", gold) == 0.0


# --- comparing ---

SAME = [
    (r"\frac{2}{4}", r"\frac12"),
    ("0.5", r"\dfrac{1}{2}"),
    ("0.333333", "1/3"),
    (r"1\frac{4}{5}", "9/5"),
    ("1 4/5", "9/5"),
    ("1,000", "1000"),
    ("10{,}000", r"10,\!000"),
    ("72.0", "72"),
    ("1e3", "1000"),
    (r"5 \times 10^3", "5000"),
    ("72 clips", "72"),
    (r"\$5.50", "5.5"),
    ("90", r"90^\circ"),
    (r"12\text{ m}^2", "12"),
    (r"10 cm", r"10\text{ cm}"),
    (r"50\%", "0.5"),
    ("50", r"50\%"),
    ("−5", "-5"),
    ("x=5", "5"),
    ("5", "x = 5"),
    ("2,1", "1,2"),
    (r"\{2,1\}", r"\{1,2\}"),
    (r"\left(1, 2\right)", "(1,2)"),
    ("25,40,71", "[25,40,71]"),
    (r"\frac{\sqrt{8}}{2}", r"\sqrt{2}"),
    ("(x+1)^2", "x^2+2x+1"),
    ("2i+3", "3+2i"),
    (r"3 < x \le 5", "(3,5]"),
    (r"\begin{pmatrix} 1/2 \\ -1 \end{pmatrix}", r"\begin{pmatrix}0.5\\-1\end{pmatrix}"),
    ("B", r"\text{(B)}"),
    ("friday", r"\text{Friday}"),
    ("220110_{3}", "220110_3"),
    (r"2^{2004}\cdot 2", "2^{2005}"),
]

DIFFERENT = [
    ("0.333", "1/3"),
    ("306956.33", "306,956.63"),
    ("72.5", "72"),
    ("0.5", "50"),
    ("5000", r"50\%"),
    (r"100\%", r"1\%"),
    ("2x", "2"),
    ("2", "2x"),
    ("14/5", r"1\frac45"),
    ("2 1/2", "21/2"),
    ("(2,1)", "(1,2)"),
    ("[2,1,3]", "[1,2,3]"),
    ("(1,2)", "[1,2]"),
    ("40,25,71", "[25,40,71]"),
    ("(x+1)^2", "x^2+2x+2"),
    (r"\begin{pmatrix} 5 \\ 0 \end{pmatrix}", r"\begin{pmatrix} 4 \\ 0 \end{pmatrix}"),
    (r"\frac{1}{4^{98}}", r"\frac{1}{2^{98}}"),
    ("2^{2004}", "2^{2005}"),
    ("2215_2", "2215_6"),
    ("4:51 a.m.", r"4\!:\!51\text{ p.m.}"),
    (r"\text{two}", r"\text{three}"),
    ("A", r"\text{(B)}"),
    (r"\frac{1}{0}", "1"),
    ("", "0"),
]


@pytest.mark.parametrize(("found", "gold"), SAME)
def test_equal_answers(found, gold):
    assert one(boxed(found), gold) == 1.0


@pytest.mark.parametrize(("found", "gold"), DIFFERENT)
def test_different_answers(found, gold):
    assert one(boxed(found), gold) == 0.0


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
@settings(max_examples=200, deadline=None)
def test_fractions_are_equal_exactly_when_they_are(a, b):
    latex = f"{'-' if a < 0 else ''}\\frac{{{abs(a.numerator) * 3}}}{{{a.denominator * 3}}}"
    assert one(boxed(latex), str(a)) == 1.0
    assert one(boxed(latex), str(b)) == float(a == b)


# --- hostile text ---

HOSTILE = [
    boxed("9**9**9"),
    boxed("9^{9^9}"),
    boxed("9^9^9"),
    boxed("((9^{99})^{99})^{99}"),
    boxed("10^{1000000000}x"),
    boxed("1E999999999"),
    boxed("x+1E999999999"),
    boxed("99999!"),
    boxed("((3!)!)!"),
    boxed(r"\sum_{i=1}^{10^{9}} i^i"),
    boxed("(x+y+z)^{9999}"),
    boxed("(" * 400 + "1" + ")" * 400),
    boxed(r"\frac{1}{1+" * 25 + "2" + "}" * 25),
    boxed(r"\frac" * 150),
    boxed(r"x^2+" * 25_000),
    r"\boxed{" * 15_000,
    r"\boxed{" * 15_000 + "}" * 15_000,
    "$" * 100_000,
    r"\(" * 50_000,
    "#### " * 20_000,
    "#### 1\n" * 15_000,
    "9" * 100_000,
    "1," * 50_000,
    "1/" * 50_000,
    "\\" * 100_000,
    "</think>" * 12_000,
    "\x00\ud800",
]


@pytest.mark.parametrize("completion", HOSTILE, ids=lambda text: text[:20].encode("unicode_escape").decode())
def test_hostile_text_is_wrong_soon(completion):
    """Without an alarm, as inside the verifier pool: nothing here may rest on being interrupted."""
    scores = []
    thread = threading.Thread(target=lambda: scores.append(one(completion, "x^2+1")), daemon=True)
    started = time.monotonic()
    thread.start()
    thread.join(timeout=20)
    assert scores == [0.0]
    assert time.monotonic() - started < 5


def test_a_long_answer_is_right_only_letter_for_letter():
    long = "+".join(["x"] * 1000)
    assert one(boxed(long), long) == 1.0
    assert one(boxed(long + "+0"), long) == 0.0


# --- timeouts ---

SLOW_ANSWER = r"\exp(\exp(\exp(100)))"
"""Passes the bounds, and keeps sympy busy against a gold that is an expression."""


def test_a_timeout_in_the_main_thread_scores_zero(monkeypatch):
    monkeypatch.delenv("AGAPO_VERIFIER", raising=False)
    monkeypatch.setattr(math_answer, "_TIMEOUT_S", 1)
    before = signal.getsignal(signal.SIGALRM)
    started = time.monotonic()
    assert one(boxed(SLOW_ANSWER), r"\sqrt{2}") == 0.0
    assert 0.5 < time.monotonic() - started < 4
    assert signal.getsignal(signal.SIGALRM) == before


def test_no_alarm_inside_the_pool_nor_in_other_threads(monkeypatch):
    monkeypatch.delenv("AGAPO_VERIFIER", raising=False)
    assert math_answer._timeout() == 5
    seen = []
    thread = threading.Thread(target=lambda: seen.append(math_answer._timeout()))
    thread.start()
    thread.join()
    assert seen == [None]
    monkeypatch.setenv("AGAPO_VERIFIER", "1")
    assert math_answer._timeout() is None


def test_the_pool_counts_a_hang_as_a_timeout():
    with VerifierPool({"answer": "rewards.math_answer:score"}, workers=1, deadline_s=1.5) as verifiers:
        columns = {"answer": r"\sqrt{2}", "mode": "non_reasoning"}
        texts = [boxed(r"\sqrt{2}"), boxed(SLOW_ANSWER), boxed(r"\frac{2}{\sqrt{2}}"), boxed("3")]
        scores = verifiers.score([Sample([], text, columns) for text in texts])
    assert [score["answer"].value for score in scores] == [1.0, 0.0, 1.0, 0.0]
    assert [score["answer"].error for score in scores] == [None, "timeout", None, None]


# --- real data ---


def rows(path):
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.decode().splitlines()]


def rate(pairs):
    """Share of (completion, gold) pairs that are judged correct; every one gets a verdict."""
    completions, golds = zip(*pairs, strict=True)
    scores = score([None] * len(pairs), completions, golds)
    assert None not in scores
    return sum(map(float, scores)) / len(pairs)


@pytest.fixture(scope="module")
def gsm8k(real_data):
    """Worked solutions that end in `#### 72`."""
    return [row["answer"] for name in ("train", "test") for row in rows(real_data / "gsm8k" / f"{name}.jsonl.gz")]


@pytest.fixture(scope="module")
def math_rows(real_data):
    folder = real_data / "math"
    return rows(folder / "math_train.jsonl.gz") + rows(folder / "math500_test.jsonl")


def test_gsm8k_solutions_are_right_about_their_own_answers(gsm8k):
    golds = [solution.rpartition("####")[2].strip() for solution in gsm8k]
    assert len(golds) == 8792
    assert rate(list(zip(gsm8k, golds, strict=True))) == 1
    assert rate([(f"After 3 days that makes ${gold} in all.", gold) for gold in golds[::10]]) == 1
    assert rate([(boxed(f"\\${gold}.00\\text{{ dollars}}"), gold) for gold in golds[::10] if "." not in gold]) == 1


def test_gsm8k_changed_answers_are_wrong(gsm8k):
    golds = [solution.rpartition("####")[2].strip() for solution in gsm8k][::4]
    assert rate([(f"#### {int(float(gold.replace(',', ''))) + 1}", gold) for gold in golds]) == 0
    assert rate([(f"#### {gold}0", gold) for gold in golds if gold not in ("0", ".0") and "." not in gold]) == 0
    assert rate([(f"#### -{gold}", gold) for gold in golds if gold.strip("0.-") and gold[0] != "-"]) == 0


def test_math_solutions_are_right_about_their_own_answers(math_rows):
    solved = [(row["solution"], row["answer"]) for row in math_rows if "solution" in row]
    assert len(solved) == 500
    assert rate(solved) >= 0.995
    answers = [row["answer"] for row in math_rows]
    assert rate([(boxed(answer), answer) for answer in answers]) >= 0.995
    assert rate([(f"Hence ${respelled(answer)}$", answer) for answer in answers]) >= 0.995


def respelled(answer):
    """Write the same answer another way."""
    answer = re.sub(r"\\[dt]?frac(?=\{)", r"\\dfrac", answer).replace(r"\left", "").replace(r"\right", "")
    return re.sub(r" ?([(,=+]) ?(?!\\!)", r"\1\\, ", answer.replace("(", r"\left(").replace(")", r"\right)"))


def test_math_changed_answers_are_wrong(math_rows):
    draw = random.Random(0)
    answers = draw.sample([row["answer"] for row in math_rows], 800)
    changed = [(boxed(with_another_digit(draw, answer)), answer) for answer in answers if re.search(r"\d", answer)]
    assert rate(changed) <= 0.005
    others = [(boxed(other), answer) for other, answer in pairwise(answers) if other != answer]
    assert rate(others) <= 0.005


def with_another_digit(draw, answer):
    place = draw.choice(list(re.finditer(r"\d", answer)))
    digit = (int(place[0]) + draw.randint(1, 9)) % 10
    return f"{answer[: place.start()]}{digit}{answer[place.end() :]}"


def test_parseable_wants_a_marked_answer_outside_the_thinking():
    completions = ["2+2=4\n</think>\n\n\\boxed{4}", "it is 4\n</think>\n\n4", "\\boxed{4}", "so\n#### 72"]
    modes = ["reasoning", "reasoning", "reasoning", "non_reasoning"]
    assert parseable([None] * 4, completions, mode=modes) == [1.0, 0.0, 0.0, 1.0]
