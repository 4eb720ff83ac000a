"""The sets of `recipes/eval/`: real files load whole; by the recipe's reward gold answers are right, others wrong."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agapo.curation.prompts import read_prompts
from agapo.recipe import EvalRecipe, load_recipe
from agapo.resolve import resolve
from agapo.schema import Prompt
from tests.sandboxed import needs_sandbox
from tests.unit.test_tool_calls import first_accepted

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes/eval").glob("*.yaml"))


def suite(name: str, source: str, path: Path, **more: Any) -> tuple[EvalRecipe, list[Prompt]]:
    """Return a recipe, and the questions of one of its sources, read from a file in its place."""
    recipe = load_recipe(EvalRecipe, ROOT / f"recipes/eval/{name}.yaml")
    assert recipe.prompts
    own = recipe.prompts.parts[source]
    return recipe, read_prompts(own.source, "test", {**own.args, **more}, path, "prompts")


def judged(recipe: EvalRecipe, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float | None]:
    """Return what the recipe's verdict says of an answer to each question."""
    assert recipe.reward
    terms = {term.name: term for term in recipe.reward.terms}
    values = []
    for prompt, answer in zip(prompts, answers, strict=True):
        term = terms[recipe.reward.verdict_for(prompt.domain)]
        columns = {name: [value] for name, value in prompt.columns.items()}
        function = resolve(term.function, key="reward")
        values += function([list(prompt.messages)], [answer], mode=["non_reasoning"], **columns, **term.args)
    return values


def boxed(prompt: Prompt) -> str:
    return f"So it is \\boxed{{{prompt.columns['answer']}}}."


def a_call(prompt: Prompt) -> str:
    """The first call that is accepted, with the first of the values of each argument."""
    ((name, arguments),) = prompt.columns["ground_truth"][0].items()
    given = {key: first_accepted(values[0]) for key, values in arguments.items() if values[0] != ""}
    return f"<tool_call>{json.dumps({'name': name, 'arguments': given})}</tool_call>"


@pytest.mark.parametrize(
    ("name", "source", "file", "args", "count", "gold"),
    [
        ("math", "gsm8k", "gsm8k", {}, 1319, boxed),
        ("math", "math500", "math/math500_test.jsonl", {"whole": True}, 500, boxed),
        ("multilingual", "mgsm_es", "mgsm/mgsm_es.jsonl", {"whole": True}, 250, boxed),
        ("tool_use", "data.bfcl:prompts", "bfcl_simple/simple_python_100.jsonl", {}, 100, a_call),
    ],
)
def test_gold_answers_are_right_and_others_wrong(
    real_data: Path, name: str, source: str, file: str, args: Any, count: int, gold: Callable[[Prompt], str]
) -> None:
    recipe, prompts = suite(name, source, real_data / file, **args)
    assert len(prompts) == count == len({prompt.id for prompt in prompts})
    # Every row of GSM8K and MATH is in test_math_answer.py.
    some = prompts[:: max(1, count // 100)]
    assert judged(recipe, some, [gold(prompt) for prompt in some]) == [1.0] * len(some)
    assert judged(recipe, some, ["I cannot say; \\boxed{-987654321}."] * len(some)) == [0.0] * len(some)


@needs_sandbox
def test_humaneval_is_asked_whole(real_data: Path) -> None:
    path = real_data / "humaneval/HumanEval.jsonl.gz"
    recipe, prompts = suite("code", "humaneval", path)
    assert len(prompts) == 164
    with gzip.open(path, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    # All of them are in test_unit_tests.
    some = range(0, 164, 20)
    right = [f"```python\n{rows[n]['prompt']}{rows[n]['canonical_solution']}\n```" for n in some]
    empty = [f"```python\n{rows[n]['prompt']}    pass\n```" for n in some]
    asked = [prompts[n] for n in some]
    assert judged(recipe, asked, right) == [1.0] * len(some)
    assert judged(recipe, asked, empty) == [0.0] * len(some)


def test_instructions_are_asked_whole_in_each_language(real_data: Path) -> None:
    recipe, english = suite("instructions", "ifeval", real_data / "ifeval/input_data.jsonl")
    assert len(english) == 541
    assert judged(recipe, english[::10], [""] * 55) == [0.0] * 55
    _, spanish = suite("instructions", "ifeval", real_data / "ifeval/es_input_data.jsonl", language="es")
    assert len(spanish) == 115
    by_text = {prompt.messages[-1]["content"]: prompt for prompt in spanish}
    with gzip.open(real_data / "chat/es_mifeval_preference.jsonl.gz", "rt") as lines:
        pairs = [row for row in map(json.loads, lines) if row["messages"][-1]["content"] in by_text]
    asked = [by_text[row["messages"][-1]["content"]] for row in pairs]
    # What M-IFEval's own program accepts and refuses; the two differ on first words that are several, and on sentences.
    assert len(pairs) == 47
    assert judged(recipe, asked, [row["chosen"] for row in pairs]).count(1.0) >= 44
    assert judged(recipe, asked, [row["rejected"] for row in pairs]).count(0.0) >= 45


GPQA = {"Question": "Metal?", "Correct Answer": "iron", **{f"Incorrect Answer {n}": f"wood {n}" for n in (1, 2, 3)}}
MMLU_PRO = {"question": "Metal?", "options": ["wood", "iron", "clay"], "answer": "B", "answer_index": 1}
MMMLU = {"Question": "¿Metal?", "A": "madera", "B": "barro", "C": "hierro", "D": "cal", "Answer": "C"}
AIME = {"id": "0", "problem": "Find $m+n$.", "answer": "70"}
HMMT = {"problem_idx": 1, "problem": "Compute.", "answer": "\\frac{1}{576}", "problem_type": ["Algebra"]}


@pytest.mark.parametrize(
    ("name", "source", "row", "said"),
    [
        ("competition", "aime2025", AIME, "70"),
        ("competition", "aime2025", {**AIME, "answer": 70}, "70"),
        ("competition", "hmmt2025", HMMT, "1/576"),
        ("science", "gpqa", GPQA, "iron"),
        ("science", "mmlu_pro", MMLU_PRO, "iron"),
        ("multilingual", "mmmlu_es", MMMLU, "hierro"),
        ("multilingual", "mmmlu_es", {"question": "금속?", "answer": 3, **{k: MMMLU[k] for k in "ABCD"}}, "hierro"),
        ("multilingual", "mgsm_es", {"question": "¿1+1?", "answer": None, "answer_number": 2}, "2"),
        ("multilingual", "hrm8k_ko", {"question": "1+1은?", "answer": 2.0}, "2"),
    ],
)
def test_rows_of_the_other_public_sets(name: str, source: str, row: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    recipe, (prompt,) = suite(name, source, path, whole=True)
    choices = prompt.columns.get("choices")
    right = next(letter for letter, text in choices.items() if text == said) if choices else said
    wrong = next(letter for letter, text in choices.items() if text != said) if choices else "71"
    assert judged(recipe, [prompt] * 2, [f"\\boxed{{{right}}}", f"\\boxed{{{wrong}}}"]) == [1.0, 0.0]


@needs_sandbox
@pytest.mark.parametrize(
    ("name", "source", "row", "right"),
    [
        (
            "livecodebench",
            "data.coding:prompts",
            {
                "question_content": "Print the sum.",
                "question_id": "1",
                "starter_code": "",
                "metadata": "{}",
                "public_test_cases": '[{"input": "1 2", "output": "3", "testtype": "stdin"}]',
                "private_test_cases": '[{"input": "2 2", "output": "4", "testtype": "stdin"}]',
            },
            "print(sum(map(int, input().split())))",
        ),
        (
            "code",
            "mbpp",
            {"task_id": 11, "text": "Add.", "code": "def add(a, b): ...", "test_list": ["assert add(1, 2) == 3"]},
            "def add(a, b): return a + b",
        ),
    ],
)
def test_programs_of_the_other_public_sets(name: str, source: str, row: Any, right: str, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    recipe, (prompt,) = suite(name, source, tmp_path)
    assert judged(recipe, [prompt] * 2, [f"```python\n{right}\n```", "```python\nadd = print\n```"]) == [1.0, 0.0]


def test_a_set_that_is_asked_whole_has_nothing_to_train_on(real_data: Path) -> None:
    with pytest.raises(Exception, match=r"data\.args\.whole: all rows are for testing"):
        read_prompts("data.math:prompts", "train", {"whole": True}, real_data / "math/math500_test.jsonl")


CANONICAL = {
    "rewards.math_answer": ([r"\boxed{\frac{1}{2}}", r"It is \boxed{0.5}", r"\boxed{x^2 + 1}", "nothing"], {}),
    "rewards.science": (["The answer is B.", "\\boxed{B}", "A", "A or B"], {"choices": {"A": "iron", "B": "wood"}}),
}


@pytest.mark.parametrize("module", CANONICAL)
def test_the_same_answer_has_one_form(module: str) -> None:
    texts, columns = CANONICAL[module]
    asked = {name: [value] * 4 for name, value in columns.items()}
    one, same, other, none = resolve(f"{module}:canonical", key="reward")([""] * 4, texts, **asked)
    assert one == same and None not in (one, other) and one != other and none is None
