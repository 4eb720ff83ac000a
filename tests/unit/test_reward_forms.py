"""TRL's rewards work here and these work there: for chats, and for plain texts."""

import importlib
import inspect
import math
import pickle
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trl.rewards
from datasets import Dataset
from transformers import Qwen3Config, Qwen3ForSequenceClassification
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

import rewards
from agapo.errors import UserError
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.reward import RewardConfig
from agapo.rewarding.forms import Form, Forms
from agapo.rewarding.pool import GroupSample, Sample, Score, Term, VerifierPool
from agapo.rewarding.start import start_scorer
from agapo.schema import Group, Prompt, Response, Segment
from tests.builders import tiny_qwen
from tests.fakes.openai_server import serving
from tests.sandboxed import needs_sandbox

CHAT = [{"role": "system", "content": "Be kind, gold."}, {"role": "user", "content": "Where is gold?"}]

# --- TRL's rewards here ---

THINKS = "<think>\nhalf of it\n</think>\n\nIt is $\\boxed{\\frac{1}{2}}$."
GUESSES = "It is $\\boxed{\\frac{1}{3}}$."
LENGTHS = (90, 101)
"""Tokens of the two responses."""

THEIRS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "accuracy_reward": ({}, [1.0, 0.0]),
    "reasoning_accuracy_reward": ({}, [1.0, 0.0]),
    "think_format_reward": ({}, [1.0, 0.0]),
    "get_soft_overlong_punishment": ({"max_completion_len": 100, "soft_punish_cache": 20}, [-0.5, -1.0]),
    # All tokens are alike: of 89 and 100 pairs one is no repetition.
    "get_repetition_penalty_reward": ({"ngram_size": 2}, [-(1 - 1 / 89), -(1 - 1 / 100)]),
    # Right at half the length: half of the way from 1.0 to 0.5; wrong: from -0.5 to -1.0 along the cosine.
    "get_cosine_scaled_reward": ({"max_len": 180}, [0.75, -0.75 - 0.25 * math.cos(math.pi * 101 / 180)]),
}


def responses(*texts: str) -> Group:
    found = tuple(
        Response((Segment((7,) * length, (0.0,) * length),), text, "stop")
        for text, length in zip(texts, LENGTHS, strict=True)
    )
    columns = {"solution": "$\\frac{1}{2}$"}
    return Group(Prompt(id="p", messages=tuple(CHAT), mode="non_reasoning", columns=columns), (), found)


def judged(function: str, args: Mapping[str, Any], *groups: Group) -> list[Group]:
    term = {"name": "theirs", "function": function, "args": args}
    scorer = start_scorer(RewardConfig.model_validate({"terms": [term], "workers": 1}))
    try:
        return list(scorer.judge(groups))
    finally:
        scorer.close()


def test_every_reward_of_trl_is_here() -> None:
    known = {name for names in trl.rewards._import_structure.values() for name in names}
    assert known == set(THEIRS)


@pytest.mark.parametrize("name", THEIRS)
def test_trl_rewards_judge_chats(name: str) -> None:
    args, expected = THEIRS[name]
    (group,) = judged(f"trl.rewards:{name}", args, responses(THINKS, GUESSES))
    assert [response.reward_error for response in group.responses] == [None, None]
    assert [response.reward for response in group.responses] == pytest.approx(expected)


def test_what_makes_no_reward_of_its_arguments_is_refused_before_the_run() -> None:
    for args, message in (({}, "missing"), ({"ngram_size": 2, "max_penalty": 1.0}, "should not be positive")):
        name = "get_repetition_penalty_reward" if args else "get_soft_overlong_punishment"
        with pytest.raises(UserError, match=rf"'theirs': args: 'trl.rewards:{name}' makes no reward.*{message}"):
            judged(f"trl.rewards:{name}", args)


# --- which form a function reads ---


def values(name: str, *texts: str, form: Form = "auto") -> list[Score]:
    with VerifierPool({"it": Term(f"tests.fakes.forms:{name}", form=form)}, workers=1, deadline_s=10) as pool:
        return [found["it"] for found in pool.score([Sample(CHAT, text, {"gold": "gold"}) for text in texts])]


READERS = ["own", "messages", "last_message", "assistant_turns", "text"]


@pytest.mark.parametrize("name", READERS)
def test_a_function_is_given_the_form_that_it_reads(name: str) -> None:
    assert values(name, "all is gold", "all is well", "gold") == [Score(1.0), Score(0.0), Score(1.0)]


@pytest.mark.parametrize("name", READERS)
def test_an_empty_response_tells_nothing_and_hides_nothing(name: str) -> None:
    assert values(name, "", "gold") == [Score(0.0), Score(1.0)]


def test_an_empty_response_may_be_what_is_wanted() -> None:
    with VerifierPool({"it": "tests.fakes.forms:says_so"}, workers=1, deadline_s=10) as pool:
        (found,) = pool.score([Sample(CHAT, "", {"gold": ""})])
    assert found["it"] == Score(1.0)


def test_characters_are_no_messages() -> None:
    assert values("own_by_characters", "abcb", "abc") == [Score(1.0), Score(0.0)]
    assert values("own_by_characters", "")[0].error == "exception"


def test_a_response_does_not_decide_how_it_is_read() -> None:
    """A JSON text is indexed by a key, which is the response's error; the next ones are judged as ever."""
    found = values("own_json", '"a text"', "no JSON", '{"right": 1}')
    assert [(score.value, score.error) for score in found] == [(0.0, "exception"), (0.5, None), (1.0, None)]


def test_where_nothing_tells_the_recipe_says() -> None:
    assert values("prompt_matches", "x")[0].error == "exception"
    assert values("prompt_matches", "x", form="text") == [Score(1.0)]
    with pytest.raises(UserError, match=r"reward 'it' joins prompt and completion.*form: messages"):
        values("whole_chat", "gold")
    assert values("whole_chat", "gold", "x", form="messages") == [Score(1.0), Score(0.0)]


def test_a_group_is_given_in_the_form_that_its_function_reads() -> None:
    with VerifierPool({"it": "tests.fakes.forms_of_groups:lengths"}, workers=1, deadline_s=10) as pool:
        (found,) = pool.submit_groups([GroupSample(CHAT, ["a", "", "abc"], [None] * 3, {})]).result()
    assert [score.value for score in found["it"]] == [1.0, 0.0, 3.0]


def test_no_function_is_called_twice_that_reads_the_own_form() -> None:
    calls = []

    def call(prompt: Any, completions: list[Any]) -> list[float]:
        calls.append((pickle.loads(pickle.dumps((prompt, completions))), re.search("b", completions[0]), prompt[0]))
        return [float(completions[0].strip() == "abc")]

    assert Forms().ask(call, CHAT, [" abc"]) == [1.0]
    assert len(calls) == 1
    assert (calls[0][0], [type(part) for part in calls[0][0]]) == ((CHAT, [" abc"]), [list, list])


# --- ours in TRL's GRPOTrainer ---

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
OURS: dict[str, tuple[dict[str, Any], str, str]] = {
    "format.score": ({}, "4", "```\n4"),
    "instructions.score": (
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        "So it is.",
        "Yes, it is.",
    ),
    "instructions.share": (
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        "So it is.",
        "Yes, it is.",
    ),
    "judge.score": ({"answer": "4"}, "It is 4.", "It is 5."),
    "language.score": ({}, "It is what you think that it is.", "그것은 당신이 생각하는 바로 그것입니다."),
    "math_answer.score": ({"answer": "4"}, "\\boxed{4}", "\\boxed{5}"),
    "math_answer.parseable": ({}, "\\boxed{4}", "four"),
    "needle.score": ({"answer": "4821"}, "It is 4821.", "It is 14821."),
    "preference.score": ({}, "You are so very kind, and so is all you do for us.", ""),
    "science.score": ({"answer": "3.5 km"}, "It is 3500 m.", "It is 3.5 m."),
    "tool_calls.score": ({"function": [{"name": "add"}], "ground_truth": [{"add": {"a": [1]}}]}, CALL, "4"),
    "unit_tests.score": ({"test_list": ["assert f(1) == 2"]}, "def f(x): return 2", "def f(x): return 3"),
    "unit_tests.share": ({"test_list": ["assert f(1) == 2"]}, "def f(x): return 2", "def f(x): return 3"),
}
"""The columns of a row, a right response and a wrong one."""


def our_rewards() -> dict[str, Callable[..., Any]]:
    """Every public function of `rewards/` that takes prompts, but for `canonical`, which judges nothing."""
    found = {}
    for module in pkgutil.iter_modules(rewards.__path__):
        for name, function in vars(importlib.import_module(f"rewards.{module.name}")).items():
            is_own = getattr(function, "__module__", "") == f"rewards.{module.name}" and not name.startswith("_")
            is_own = is_own and name != "canonical"
            if is_own and inspect.isfunction(function) and "prompts" in inspect.signature(function).parameters:
                found[f"{module.name}.{name}"] = function
    return found


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> GRPOTrainer:
    settings = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        num_generations=2,
        per_device_train_batch_size=2,
        max_completion_length=4,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
    )
    return GRPOTrainer(
        model=tiny_qwen(),
        reward_funcs=rewards_of_nothing,
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": CHAT}] * 2),
        processing_class=build_tokenizer(),
    )


def rewards_of_nothing(completions: list[Any], **columns: Any) -> list[float | None]:
    return [0.0] * len(completions)


@pytest.fixture
def options(tmp_path: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The arguments of the rewards that need some."""
    with serving() as server:
        judge = {"base_url": server.url, "model": "judge", "cache_dir": str(tmp_path / "judge")}
        yield {"judge.score": judge, "preference.score": {"judge": judge}}


def in_trl(
    trainer: GRPOTrainer, reward: Callable[..., Any], columns: Mapping[str, Any], chats: bool, *texts: str
) -> list[float | None]:
    """What GRPOTrainer itself makes of a reward, for conversational data or for texts."""
    prompts = [CHAT if chats else "Where is gold?"] * len(texts)
    completions = [[{"role": "assistant", "content": text}] if chats else text for text in texts]
    trainer.reward_funcs, trainer.reward_func_names = [reward], ["ours"]
    rows = [{"prompt": prompt, **columns} for prompt in prompts]
    found = trainer._calculate_rewards(rows, prompts, completions, [[1, 2]] * len(texts))
    return [None if math.isnan(value) else value for value in found[:, 0].tolist()]


def test_every_reward_of_ours_is_tried_in_trl() -> None:
    assert set(our_rewards()) == set(OURS)


@pytest.mark.parametrize("chats", [True, False], ids=["chats", "texts"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=needs_sandbox) if "unit_tests" in n else n for n in OURS])
def test_our_rewards_judge_in_trl(name: str, chats: bool, trainer: GRPOTrainer, options: dict[str, Any]) -> None:
    columns, right, wrong = OURS[name]
    reward = partial(our_rewards()[name], **options.get(name, {}))
    best = 5 / 9 if name == "preference.score" else 1.0  # the fake's marks: one for ten letters
    assert in_trl(trainer, reward, columns, chats, right, wrong) == pytest.approx([best, 0.0])
    thinks = f"<think>{wrong or 'well'}</think>\n\n"
    if name not in ("format.score", "language.score"):  # they judge the thinking too
        assert in_trl(trainer, reward, columns, chats, thinks + right) == pytest.approx([best])


@pytest.mark.parametrize("chats", [True, False], ids=["chats", "texts"])
def test_a_reward_model_judges_in_trl(chats: bool, trainer: GRPOTrainer, tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config.num_labels = 1
    Qwen3ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    score = our_rewards()["preference.score"]
    prompt = CHAT if chats else "Where is gold?"
    expected = score([prompt], ["kind"], model=str(tmp_path))
    found = in_trl(trainer, partial(score, model=str(tmp_path)), {}, chats, "kind", "")
    assert found == pytest.approx([*expected, 0.0]) and 0 < expected[0] < 1


@pytest.mark.parametrize("chats", [True, False], ids=["chats", "texts"])
def test_the_guide_s_own_reward_works_in_both(chats: bool, trainer: GRPOTrainer) -> None:
    guide = (Path(rewards.__path__[0]).parent / "docs/rewards.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?def score.*?)```", guide, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert in_trl(trainer, names["score"], {"times": 1}, chats, "please", "no") == [1.0, 0.0]
    assert names["score"]([CHAT], ["Please, please!"], times=[2], mode=["non_reasoning"]) == [1.0]
