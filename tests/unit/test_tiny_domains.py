"""The five domains' generators: rows are right by their own rewards, splits share nothing, and every fact is taught."""

import re
from itertools import islice

import pytest

from agapo.chat import format_tool_call, parse_tool_calls, trained_turns
from agapo.schema import MODES
from data.tiny_domains import KINDS, dialogues, needles, prompts
from data.tiny_domains.tasks import LANGUAGES, particle
from data.tiny_domains.world import FACTS
from rewards import language, math_answer, needle, tool_calls, unit_tests

SHORT = {"long_context": {"lengths": [24, 64], "rivals": 2}}


def rows(kind, count=200, split="train", **phase):
    phase = {"size": count, "args": SHORT.get(kind, {}), **phase}
    return list(dialogues(split, kind=kind, phases=[phase]))


def asked(kind, size, split="test"):
    return list(prompts(split, kind=kind, size=size, **SHORT.get(kind, {})))


def question(row):
    return "\n".join(str(turn.get("content") or turn.get("tool_calls")) for turn in row["messages"])


def completion(turn):
    calls = "\n".join(map(format_tool_call, turn.get("tool_calls", [])))
    return "\n".join(part for part in (turn["content"], calls) if part)


def answers(kind, count):
    """Test prompts with the answer that a dialogue of the same question gives."""
    known = {}
    for row in rows(kind, 40 * count, split="test"):
        known[question({"messages": row["messages"][:-1]}), str(row.get("tools"))] = row["messages"][-1]
    found = [(row, known.get((question(row), str(row.get("tools"))))) for row in asked(kind, count)]
    return [(row, completion(turn)) for row, turn in found if turn]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_well_formed_in_three_languages_and_both_modes(kind):
    found = rows(kind)
    assert {row["language"] for row in found} == set(LANGUAGES)
    assert {row["mode"] for row in found} == set(MODES)
    assert {row["domain"] for row in found} == {kind}
    for row in found:
        assert ("reasoning_content" in row["messages"][-1]) == (row["mode"] == "reasoning")
        assert row["messages"][-1]["role"] == "assistant" and row["messages"][-2]["role"] in ("user", "tool")
        assert not re.search(r"(?<!boxed)\{[a-z]*\}", "".join(str(turn["content"]) for turn in row["messages"]))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_repeat_and_train_and_test_share_no_question(kind):
    assert rows(kind, 50) == rows(kind, 50)
    trained = {question({"messages": row["messages"][:-1]}) for row in rows(kind, 2000)}
    tested = [question(row) for row in asked(kind, 200)]
    assert len(set(tested)) == len(tested) and len(tested) >= 100
    assert not trained & set(tested)


@pytest.mark.parametrize(
    ("kind", "reward"),
    [("world", math_answer), ("math", math_answer), ("logic", math_answer), ("multilingual", math_answer)],
)
def test_answers_are_right_by_the_reward_and_others_wrong(kind, reward):
    found = answers(kind, 60)
    assert len(found) >= 20
    gold = [row["answer"] for row, _ in found]
    right = [text for _, text in found]
    assert reward.score(right, right, answer=gold) == [1.0] * len(found)
    shifted = [*gold[1:], gold[0]]
    assert reward.score(right, right, answer=shifted) == [float(a == b) for a, b in zip(gold, shifted, strict=True)]


def test_words_are_not_read_as_products():
    assert math_answer.score([""], [r"\boxed{amor}"], answer=[r"\text{Roma}"]) == [0.0]


def test_needles_are_found_by_the_reward_and_not_next_to_others():
    found = answers("long_context", 60) or [(row, row["answer"]) for row in asked("long_context", 20)]
    columns = {name: [row[name] for row, _ in found] for name in ("answer", "candidates")}
    texts = [text for _, text in found]
    assert needle.score(texts, texts, **columns) == [1.0] * len(texts)
    others = [row["candidates"][1] for row, _ in found]
    assert needle.score(others, others, **columns) == [0.0] * len(texts)


def test_calls_are_right_by_the_reward():
    found = answers("tool_use", 60)
    columns = {name: [row[name] for row, _ in found] for name in ("function", "ground_truth")}
    texts = [text for _, text in found]
    assert len(texts) >= 20 and tool_calls.score(texts, texts, **columns) == [1.0] * len(texts)
    assert any(parse_tool_calls(text) for text in texts) and not all(parse_tool_calls(text) for text in texts)


def test_code_passes_its_tests():
    found = [row for row in answers("code", 60) if row[0]["task"] != "write"][:2] + answers("code", 60)[:2]
    texts = [text for _, text in found]
    tests = [row["test_list"] for row, _ in found]
    assert unit_tests.score(texts, texts, test_list=tests) == [1.0] * len(texts)
    for row in rows("code", 300):
        program = row["messages"][-1]["content"].removeprefix("```python\n").removesuffix("```")
        assert compile(program, "f", "exec")


def test_a_broken_function_fails_before_it_is_mended():
    broken = [row for row in asked("code", 200) if row["task"] == "fix"]
    for row in broken:
        body = re.search(r"return (\S+)", row["messages"][0]["content"])[1]
        x, got, wanted = map(int, re.search(r"f\((\d+)\)\D+(\d+)\D+(\d+)", row["messages"][0]["content"]).groups())
        assert eval(body, {"x": x}) == got != wanted


def test_every_fact_is_taught_in_every_language():
    text = "\n".join(row["messages"][-1]["content"] for row in rows("world", 12_000, reasoning=0))
    missing = [
        (relation, pair)
        for relation, by_language in FACTS.items()
        for pairs in by_language.values()
        for pair in pairs
        if not any(pair[0] in line and f"{{{pair[1]}}}" in line for line in text.splitlines())
    ]
    assert missing == []


def test_tool_use_recovers_from_errors_and_follows_up():
    tasks = {row["task"] for row in rows("tool_use", 600)}
    assert tasks >= {"single/first_call", "chain/call", "error/call", "follow_up/call", "none/first_answer"}
    mended = next(row for row in rows("tool_use", 600) if row["task"] == "error/call" and row["language"] == "en")
    *_, first, result, again = mended["messages"]
    assert result == {
        "role": "tool",
        "content": f"error: unknown city, use {again['tool_calls'][0]['arguments']['city']}",
    }
    assert first["tool_calls"][0]["name"] == again["tool_calls"][0]["name"]
    assert first["tool_calls"][0]["arguments"] != again["tool_calls"][0]["arguments"]


def test_only_the_last_turn_is_trained():
    for row in rows("tool_use", 300):
        turns = [index for index, turn in enumerate(row["messages"]) if turn["role"] == "assistant"]
        assert trained_turns(row["messages"], row["mode"]) == turns[-1:]


def test_thinking_comes_long_and_short_for_the_same_question():
    pairs = zip(rows("math", 100, reasoning=1, worked=1), rows("math", 100, reasoning=1, worked=0), strict=True)
    lengths = []
    for long, short in pairs:
        assert long["messages"][0] == short["messages"][0]
        assert long["messages"][-1]["content"] == short["messages"][-1]["content"]
        lengths.append([len(row["messages"][-1]["reasoning_content"]) for row in (long, short)])
    assert sum(long for long, _ in lengths) > 3 * sum(short for _, short in lengths)


def test_phases_follow_one_another():
    phases = [{"size": 30, "args": {"lengths": [24]}}, {"size": 20, "args": {"lengths": [96]}, "reasoning": 1}]
    found = list(dialogues("train", kind="long_context", phases=phases))
    lengths = [row["context_length"] for row in found]
    assert len(found) == 50 and max(lengths[:30]) < 32 and min(lengths[30:]) >= 94
    assert {row["mode"] for row in found[30:]} == {"reasoning"}


def test_worked_answers_are_in_the_language_of_the_prompt():
    for kind in ("world", "math", "logic"):
        found = rows(kind, 150, reasoning=1, worked=1)
        texts = [
            f"{row['messages'][-1]['reasoning_content']}\n</think>\n\n{completion(row['messages'][-1])}"
            for row in found
        ]
        verdicts = language.score(texts, texts, language=[row["language"] for row in found], mode=["reasoning"] * 150)
        assert sum(verdict == 0 for verdict in verdicts) <= 15


def test_needles_vary_length_and_place_systematically():
    found = list(needles("test", lengths=[64, 128], positions=[0.0, 0.5, 1.0], per_cell=6))
    assert len(found) == 36 and len({row["id"] for row in found}) == 36
    for cell, row in enumerate(found):
        length, position = (64, 128)[cell // 18], (0.0, 0.5, 1.0)[cell // 6 % 3]
        assert abs(row["context_length"] - length) <= 7 and row["position"] == position
        text = row["messages"][0]["content"].split("\n")[0]
        thing = re.search(r"(\S+)(?: 암호는 무엇입니까)?\?$", row["messages"][0]["content"])[1]
        place = re.search(rf"(of|de) {thing}:|{thing} 암호:", text).start() / len(text)
        assert abs(place - position) < 0.3
        assert row["language"] == LANGUAGES[cell % 6 % 3]


def test_particles_follow_the_last_sound():
    assert [particle(word, "을", "를") for word in ("빵", "치즈", "물")] == ["빵을", "치즈를", "물을"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("dev", "world"), "split should be 'train' or 'test'"),
        (("train", "science"), "kind should be world, math"),
    ],
)
def test_mistakes_are_named(args, message):
    split, kind = args
    with pytest.raises(ValueError, match=message):
        prompts(split, kind=kind)
    with pytest.raises(ValueError, match=message):
        dialogues(split, kind=kind)


def test_prompts_end_with_the_turn_to_answer():
    for kind in KINDS:
        for row in islice(asked(kind, 50), 50):
            assert row["messages"][-1]["role"] in ("user", "tool")


def test_a_share_of_sums_is_answered_in_another_language_and_stays_right() -> None:
    rows = list(dialogues("train", kind="math", phases=[{"size": 400, "foreign": 0.5}]))
    answers = {"en": "The answer is", "ko": "답은", "es": "La respuesta es"}
    foreign = [row for row in rows if answers[row["language"]] not in row["messages"][-1]["content"]]
    assert 0.4 < len(foreign) / len(rows) < 0.6
    for row in rows:
        text = row["messages"][-1].get("reasoning_content") or row["messages"][-1]["content"]
        steps = re.findall(r"(\d+)([+-]\d+)=(\d+)", text)
        assert all(int(start) + int(term) == int(total) for start, term, total in steps)
        assert f"\\boxed{{{steps[-1][2]}}}" in row["messages"][-1]["content"]
    with pytest.raises(ValueError, match="only sums stay right in another language"):
        next(iter(dialogues("train", kind="world", phases=[{"foreign": 0.1}])))
