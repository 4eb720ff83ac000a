"""docs/library.md, run as it stands there on a small recipe; and a run by a loss of one's own that is AGAPO's."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import agapo
from agapo.model.loading import load_tokenizer
from tests.stages.conftest import ROOT, agapo_here

pytestmark = pytest.mark.usefixtures("shared_ray")

TIMED = re.compile("^time/|_per_s$")
SHORT = ("evaluation={every: 0, test_size: 4, validation_size: 4}", "prompts_per_step=2")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def snippets() -> Iterator[str]:
    text = (ROOT / "docs/library.md").read_text()
    yield from re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_page_runs(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = yaml.safe_load(recipe_file.read_text()) | {
        "run": {"output": str(tmp_path)},
        "prompts_per_step": 2,
        "evaluation": {"every": 0, "test_size": 4, "validation_size": 4},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    names: dict[str, Any] = {}
    exec("\n".join(snippets()).replace("recipes/rl/tiny.yaml", str(tmp_path / "small.yaml")), names)
    said = capsys.readouterr().out
    assert names["recipe"].steps == 2
    assert names["summary"]["steps"] == 2
    lines = [json.loads(line) for line in (tmp_path / "rl/script/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert f"{line['step']} {line['reward/mean']}" in said
    assert [len(group.responses) for group in [names["group"]]] == [4]
    assert {response.reward for response in names["group"].responses} <= {0.0, 1.0}
    assert names["group"].prompt.columns == {"answer": "42"}


def test_a_loss_of_ones_own_in_a_run(recipe_file: Path, tmp_path: Path) -> None:
    found = {}
    for name, own in {"built-in": "", "own": "tests.fakes.losses:agapo"}.items():
        agapo.run(
            recipe_file, f"run.output={tmp_path}", f"run.name={name}", "steps=2", f"algorithm.objective='{own}'", *SHORT
        )
        lines = (tmp_path / "rl" / name / "metrics.jsonl").read_text().splitlines()
        found[name] = [
            {key: value for key, value in json.loads(line).items() if not TIMED.search(key)} for line in lines
        ]
    assert found["own"] == found["built-in"]
    assert any(line["policy/grad_norm"] > 0 for line in found["own"])
    weights = [(tmp_path / "rl" / name / "hf/model.safetensors").read_bytes() for name in found]
    assert weights[0] == weights[1]


def test_a_base_model_is_sampled_in_a_chat_template_of_ones_own(
    tiny_model: Path, recipe_file: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, base := tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    (own := tmp_path / "own.jinja").write_text("{% for turn in messages %}Q: {{ turn.content }}\nA:{% endfor %}")
    overrides = (f"model.path={base}", f"model.chat_template={own}", f"run.output={tmp_path}", "rollout.group_size=2")
    (group,) = agapo.sample(recipe_file, *overrides, prompts=[{"messages": [{"role": "user", "content": "2+2"}]}])
    assert load_tokenizer(tiny_model).decode(group.prompt_ids) == "Q: 2+2\nA:"
    assert len(group.responses) == 2
    assert agapo_here("check", recipe_file, *overrides).returncode == 0


def test_more_questions_are_measured_and_answers_kept(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = "{other: {source: tests.fakes.questions:prompts}}"
    own = ("steps=1", "prompts_per_step=2", f"evaluation={{every: 1, test_size: 4, validation_size: 4, sets: {sets}}}")
    agapo.run(recipe_file, f"run.output={tmp_path}", "run.name=sets", *own)
    answers, metrics = (
        [json.loads(line) for line in (tmp_path / "rl/sets" / name).read_text().splitlines()]
        for name in ("answers.jsonl", "metrics.jsonl")
    )
    of_a_step = ["validation"] * 4 + ["other"] * 3
    assert [(row["step"], row["set"]) for row in answers] == [(step, name) for step in (0, 1) for name in of_a_step]
    measured = [row for row in metrics if "eval/reward" in row]
    assert [row["step"] for row in measured] == [0, 1]
    for row in measured:
        asked = [answer for answer in answers if (answer["step"], answer["set"]) == (row["step"], "other")]
        assert row["eval/other/reasoning"] == sum(answer["correct"] for answer in asked) / 3
    # The first evaluation is before RL; what is exported was measured last, or was no better.
    summary = json.loads((tmp_path / "rl/sets/summary.json").read_text())
    assert summary["sets"]["other"]["before"] == {"reasoning": measured[0]["eval/other/reasoning"]}
    exported = measured[summary["exported"]["step"]]
    assert summary["sets"]["other"]["after"] == {"reasoning": exported["eval/other/reasoning"]}
    said = capsys.readouterr().out
    assert said.count("on other: reasoning ") == 2 and "Accuracy on other" in said
    assert {answer["prompt"] for answer in answers if answer["set"] == "other"} == {"other 0?", "other 1?", "other 2?"}
