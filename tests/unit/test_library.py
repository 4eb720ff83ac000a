"""agapo as a library: its names and signatures, what is imported when, hooks at step end, a loss of one's own."""

import inspect
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import agapo
from agapo.algorithm.objective import Objective, policy_loss
from agapo.errors import UserError
from agapo.recipe import DPORecipe, RLRecipe
from agapo.tracking import MetricsLogger, RunDirectory
from agapo.tracking.hooks import calling
from tests.fakes import losses
from tests.unit.test_objective import SAMPLED, batch

SIGNATURES = {
    "load_recipe": ["path: Path | str", "*overrides: str"],
    "run": ["path: Path | str", "*overrides: str", "on_step: Callable[[int, Mapping[str, float]], Any] | None = None"],
    "sample": [
        "path: Path | str",
        "*overrides: str",
        "prompts: Sequence[Mapping[str, Any]] | None = None",
        "model: str | None = None",
    ],
    "score": ["path: Path | str", "rows: Iterable[Mapping[str, Any]]", "*overrides: str"],
    "reward": ["name: str"],
}
MODULES = re.compile(r"\b(pathlib|typing|collections\.abc)\.")


def test_the_public_names_and_their_signatures() -> None:
    assert set(agapo.__all__) == {"Interrupted", "UserError", "__version__", *SIGNATURES}
    for name, parameters in SIGNATURES.items():
        function = getattr(agapo, name)
        assert function.__module__ == "agapo.library"
        found = inspect.signature(function).parameters.values()
        assert [MODULES.sub("", str(item)) for item in found] == parameters
    with pytest.raises(AttributeError, match="module 'agapo' has no attribute 'train'"):
        agapo.train  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, agapo; before = sorted(name for name in sys.modules if name.startswith('agapo'));"
        "from agapo import run, UserError; heavy = ('torch', 'ray', 'transformers');"
        "print(before, [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['agapo'] []"


def test_a_recipe_is_of_its_stages_class(tmp_path: Path) -> None:
    assert isinstance(agapo.load_recipe("recipes/rl/tiny.yaml", "steps=7"), RLRecipe)
    assert isinstance(agapo.load_recipe(Path("recipes/dpo/tiny.yaml")), DPORecipe)
    with pytest.raises(agapo.UserError, match=r"step: unknown key; did you mean 'steps'"):
        agapo.load_recipe("recipes/rl/tiny.yaml", "step=7")


def test_rewards_by_name_and_rows_scored() -> None:
    asked = zip("aba", (42, 41, 7), ("42", "42", "42"), strict=True)
    rows = [{"prompt_id": name, "completion": f"\\boxed{{{said}}}", "answer": answer} for name, said, answer in asked]
    scored = agapo.score("recipes/rl/tiny.yaml", rows, "reward.workers=1")
    assert [(row["reward"], row["correct"]) for row in scored] == [(1.0, True), (0.0, False), (0.0, False)]
    assert [row["completion"] for row in scored] == [row["completion"] for row in rows]
    found = agapo.reward("rewards.math_answer:score")
    texts = [row["completion"] for row in rows]
    assert found(prompts=["?"] * 3, completions=texts, answer=["42"] * 3, mode=["non_reasoning"] * 3) == [1.0, 0.0, 0.0]
    with pytest.raises(UserError, match=r"rows: row 1: column 'completion' should be text; columns here: answer"):
        agapo.score("recipes/rl/tiny.yaml", [{"answer": "42"}])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"id": "q"}, r"prompts: two different questions have the id 'q'"),
        (
            {"mode": "thinking"},
            r"prompts: row 2: column 'mode' is 'thinking'; should be 'reasoning' or 'non_reasoning'",
        ),
    ],
)
def test_questions_to_sample_are_checked_before_anything_is_loaded(row: dict[str, Any], says: str) -> None:
    asked = [{"id": "q", "messages": [{"role": "user", "content": "1+1"}], "mode": "reasoning"}]
    asked.append({"messages": [{"role": "user", "content": "7+7"}], **row})
    with pytest.raises(UserError, match=says):
        agapo.sample("recipes/rl/tiny.yaml", prompts=asked, model="no/model")


def test_a_given_model_is_sampled_in_the_recipes_chat_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agapo.library.start_forks", lambda *_, **__: None)
    with pytest.raises(UserError, match=r"model\.chat_template: cannot read /nope\.jinja"):
        agapo.sample("recipes/rl/tiny.yaml", "model.chat_template=/nope.jinja", model="no/model")


class TestHooks:
    seen: list[tuple[int, dict[str, float]]]

    @pytest.fixture
    def logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Any:
        def log(hook: Any = None, **run: Any) -> str:
            content = {
                "stage": "rl",
                "steps": 2,
                "run": {"output": str(tmp_path), **run},
                "data": {"source": "data.arithmetic:prompts"},
                "model": {"path": "some/model"},
                "reward": {"terms": [{"name": "answer", "function": "rewards.math_answer:score"}]},
                "tracking": {"wandb": "disabled"},
            }
            path = tmp_path / "mine.yaml"
            path.write_text(yaml.safe_dump(content))
            recipe = agapo.load_recipe(path)
            with calling(hook), RunDirectory.open(recipe, path) as own:
                logger = MetricsLogger(own, recipe, None, resume=False)
                for step in (1, 2):
                    logger.log(step, {"reward/mean": step / 4})
                logger.close(0)
                assert len(own.metrics.read_text().splitlines()) == 2
            return caplog.text

        return log

    def test_are_given_step_and_metrics(self, logged: Any) -> None:
        seen: list[Any] = []
        logged(lambda step, metrics: seen.append((step, metrics)))
        assert seen == [(1, {"reward/mean": 0.25}), (2, {"reward/mean": 0.5})]

    def test_can_be_named_in_the_recipe(self, logged: Any, capsys: pytest.CaptureFixture[str]) -> None:
        logged(on_step="builtins:print")
        assert capsys.readouterr().out == "1 {'reward/mean': 0.25}\n2 {'reward/mean': 0.5}\n"

    def test_that_fail_are_said_once_and_end_nothing(self, logged: Any, caplog: pytest.LogCaptureFixture) -> None:
        def broken(step: int, metrics: Any) -> None:
            raise KeyError("reward")

        with caplog.at_level(logging.WARNING, "agapo"):
            said = logged(broken)
        assert said.count("run.on_step: ") == 1
        assert "broken raised KeyError: 'reward' at step 1; it is not called again" in said

    def test_that_are_not_there_are_found_before_a_folder_is_made(self, logged: Any, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"run\.on_step: 'tests\.fakes\.losses' has no function 'nothing'"):
            logged(on_step="tests.fakes.losses:nothing")
        assert not (tmp_path / "rl").exists()


class TestOwnLoss:
    @pytest.mark.parametrize("beta", [0.0, 0.3])
    def test_the_same_formula_is_the_same_to_the_bit(self, beta: float) -> None:
        mask = torch.tensor([1, 0, 1, 1, 1, 0, 1, 1], dtype=torch.float64)
        tokens = batch(mask=mask, reference_logprobs=SAMPLED * 1.1, kl_baselines=SAMPLED / 7)
        found = []
        for own in (None, losses.agapo):
            leaf = (SAMPLED + 0.3 * SAMPLED.cos()).requires_grad_()
            loss, sums = policy_loss(leaf, tokens, Objective(kl_coefficient=beta), 3.0, own)
            found.append((loss, *torch.autograd.grad(loss, leaf), *sums.values()))
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))

    @pytest.mark.parametrize("own", [losses.per_token, losses.constant])
    def test_what_is_no_loss_is_refused(self, own: Any) -> None:
        objective = Objective(function="mine:loss")
        with pytest.raises(UserError, match=r"algorithm\.objective: 'mine:loss' should return a scalar tensor with"):
            policy_loss(SAMPLED.clone().requires_grad_(), batch(), objective, 3.0, own)
