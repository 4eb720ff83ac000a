"""A run's page: what is in it, how large it grows, and that it works in a browser."""

import base64
import gzip
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from agapo.errors import UserError
from agapo.recipe import RLRecipe, SFTRecipe
from agapo.reporting import compare_runs, report_run, try_report
from agapo.reporting.gather import LONGEST, sampled_steps, shortened
from agapo.tracking.timeline import Timeline

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
EVIL = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"


def make_run(run: Path, steps: int = 6, prompts: int = 2, group: int = 4, text: str = "", **recipe: Any) -> Path:
    """A run that is not finished, with the files that the stages write."""
    run.mkdir(parents=True)
    content = {"stage": "rl", "model": {"path": "m"}, "steps": 10, "data": {"source": "data.arithmetic:prompts"}}
    terms = [{"name": "answer", "function": "rewards.math_answer:score"}]
    (run / "recipe.yaml").write_text(yaml.safe_dump({**content, "reward": {"terms": terms}, **recipe}))
    metrics = [
        {"step": step, "reward/mean": step / 7, "kl/sequence": 0.1 * step**2, "odd/one": -step, "time/step": 1 / step}
        | {"eval/mine/reasoning": step / 9}
        for step in range(1, steps + 1)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics) + '{"step": 7, "torn')
    with (run / "rollouts.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            for prompt in range(prompts):
                for number in range(group):
                    said = f"step {step} prompt {prompt} response {number} {text}"
                    judged = {"reward": float(number % 2), "correct": number % 2 == 1, "tokens": 10 * number}
                    asked = {"prompt_id": f"p{prompt}", "mode": "reasoning", "prompt": f"question {prompt}"}
                    row = {"step": step, **asked, "text": said, **judged, "finish": "stop", "advantage": number - 1.5}
                    file.write(json.dumps(row) + "\n")
    timeline = Timeline(run / "timeline.json", began=0.0)
    for step in range(1, steps + 1):
        timeline.begin_step(step)
        timeline.add((1, 0), "generate", step, step + 0.6)
        timeline.add((2, 0), "sample", step, step + 0.5)
    timeline.close()
    return run


def unpacked(page: Path) -> dict[str, Any]:
    """What a page carries, by the name of its block."""
    blocks = re.findall(r'<script type="application/gzip" id="([\w-]+)">([\w+/=]*)</script>', page.read_text())
    return {name: json.loads(gzip.decompress(base64.b64decode(block))) for name, block in blocks}


def test_a_page_has_the_numbers_of_the_files(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    found = unpacked(report_run(run))
    (data,) = found["data"]["runs"]
    assert data["curves"]["reward/mean"] == [list(range(1, 7)), [step / 7 for step in range(1, 7)]]
    assert not data["finished"]
    assert yaml.safe_load(data["changed"])["steps"] == 10
    assert "group_size" not in data["changed"], "a default"
    rows = list(map(json.loads, (run / "rollouts.jsonl").read_text().splitlines()))
    assert [row for step in range(1, 7) for row in found[f"step-{step}"]] == rows
    assert found["timeline"]["rows"] == ["driver", "rollout actor 0"]
    assert found["timeline"]["spans"][0] == [0, "generate", 1_000_000, 600_000, 1]


def test_nothing_that_a_model_wrote_is_markup_and_nothing_is_fetched(tmp_path: Path) -> None:
    page = report_run(make_run(tmp_path / EVIL.replace("/", "∕"), text=EVIL)).read_text()
    assert "broken" not in re.sub(r"<title>.*?</title>", "", page)
    assert "<img" not in page
    assert set(re.findall(r"https?://[\w.]+", page)) == {"http://www.w3.org"}, "the name of SVG, not an address"


def test_a_long_run_is_small_and_keeps_whole_steps(tmp_path: Path) -> None:
    """Sizes, not times: 100 steps of 64 long responses, of which the page takes what fits."""
    run = make_run(tmp_path / "long", steps=100, prompts=8, group=8, text="x1y2" * 700)
    kept, of = sampled_steps(run / "rollouts.jsonl", most=5_000_000)
    assert of == 100 and kept[0] == 1 and kept[-1] == 100
    assert 10 < len(kept) < 26
    assert sampled_steps(run / "rollouts.jsonl") == (list(range(1, 101)), 100)
    assert report_run(run).stat().st_size < 20e6


def test_long_texts_keep_their_beginning_and_their_end() -> None:
    text = "a" * LONGEST + "b" * LONGEST
    assert shortened(text).startswith("aaa") and shortened(text).endswith("bbb")
    assert f"{LONGEST:,} characters left out" in shortened(text)
    assert shortened("short") == "short"


def test_what_is_no_run_is_a_line_and_at_a_runs_end_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="is no run's folder"):
        report_run(tmp_path)
    with pytest.raises(UserError, match="two runs or more"):
        compare_runs([make_run(tmp_path / "a")], tmp_path / "compare.html")
    try_report(tmp_path)
    assert "report.html could not be made" in caplog.text


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("stage: sft\n")
    (data,) = unpacked(report_run(tmp_path))["data"]["runs"]
    assert data["curves"] == {} and data["rolloutSteps"] == []


def opened(page: Path, fragment: str = "") -> str:
    """The page as the browser has it in the end."""
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom")
    command = [str(CHROMIUM), *flags, f"--user-data-dir={page.parent}/chromium", f"file://{quote(str(page))}{fragment}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert (
        'data-ready="yes"' in shown and "errors-of-page" not in shown.replace("#errors-of-page", "").split("<main")[0]
    )
    return shown.partition("<main")[2].partition("<script")[0]


def responses_in(shown: str) -> list[str]:
    return [html.unescape(text) for text in re.findall(r"<pre>(step \d+ prompt.*?)</pre>", shown)]


@browser
def test_in_a_browser_the_page_shows_the_numbers_and_the_last_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", text=EVIL)
    shown = opened(report_run(run))
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[5])
    values = dict(re.findall(r'data-metric="([\w/]+)" data-value="([^"]+)"', shown))
    for metric in ("reward/mean", "kl/sequence", "time/step", "eval/mine/reasoning"):
        assert float(values[metric]) == last[metric]
    assert "not finished" not in shown, "that is the header's"
    assert "8 responses in 2 groups" in shown
    assert responses_in(shown) == [f"step 6 prompt 0 response {number} {EVIL}" for number in range(4)]
    assert "<img" not in shown


@browser
def test_in_a_browser_filters_lead_to_the_responses(tmp_path: Path) -> None:
    shown = opened(report_run(make_run(tmp_path / "a")), "#step=3&verdict=right&text=prompt%201&length=20")
    assert "1 responses in 1 groups" in shown
    assert [text.strip() for text in responses_in(shown)] == ["step 3 prompt 1 response 3"]


@browser
def test_in_a_browser_runs_lie_over_each_other(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", steps=4, prompts_per_step=8)]
    compare_runs(runs, tmp_path / "compare.html")
    shown = opened(tmp_path / "compare.html")
    values = re.findall(r'data-metric="reward/mean" data-value="([^"]+)"', shown)
    assert list(map(float, values)) == [6 / 7, 4 / 7]
    assert "prompts_per_step: 8" in shown


def test_long_prompts_and_errors_are_shortened_and_errors_go_without_columns(tmp_path: Path) -> None:
    long, run = "long " * LONGEST, make_run(tmp_path / "a", steps=1)
    row = {"step": 1, "prompt_id": "p", "mode": "reasoning", "prompt": long, "text": "short", "reward": 1.0}
    (run / "rollouts.jsonl").write_text(json.dumps(row) + "\n")
    error = {"step": 1, "reward_error": long, "prompt": "?", "text": long, "columns": {"test": long}}
    (run / "reward_errors.jsonl").write_text(json.dumps(error) + "\n")
    found = unpacked(report_run(run))
    (told,) = found["data"]["runs"][0]["errors"]
    (shown,) = found["step-1"]
    assert "columns" not in told and told["prompt"] == "?"
    for text in (shown["prompt"], told["reward_error"], told["text"]):
        assert "characters left out" in text and len(text) < 1.1 * LONGEST
    assert shown["text"] == "short"


def test_the_held_out_loss_is_a_curve(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", stage="sft")
    held_out = {"dialogues": 10, "loss": {"before": 2.5, "after": 1.5}}
    (run / "summary.json").write_text(json.dumps({"steps": 40, "held_out": held_out}))
    (data,) = unpacked(report_run(run))["data"]["runs"]
    assert data["curves"]["held_out/loss"] == [[0, 40], [2.5, 1.5]]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"training": {}}, None),
        ({"training": {"row_tokens": 4096}}, {"row_tokens": 4096}),
        ({"training": {"lora": {}}}, {"lora": {}}),
        ({"training": {"lora": {"rank": 8}, "learning_rate": 2e-5}}, {"lora": {"rank": 8}, "learning_rate": 2e-5}),
    ],
)
def test_the_defaults_of_a_pretrained_model_are_no_changes(
    recipe: dict[str, Any], expected: dict[str, Any] | None, tmp_path: Path
) -> None:
    content = {"stage": "sft", "model": {"path": "m"}, "epochs": 1, "data": {"source": "data.files:dialogues"}}
    resolved = SFTRecipe.model_validate({**content, **recipe}).model_dump(mode="json", by_alias=True)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(resolved))
    (data,) = unpacked(report_run(tmp_path))["data"]["runs"]
    changed = yaml.safe_load(data["changed"])
    assert changed["epochs"] == 1
    assert changed.get("training") == expected


def test_of_a_preset_its_name_is_the_change(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", algorithm={"preset": "grpo", "kl": {"coefficient": 0.5}})
    resolved = RLRecipe.model_validate(yaml.safe_load((run / "recipe.yaml").read_text()))
    (run / "recipe.yaml").write_text(yaml.safe_dump(resolved.model_dump(mode="json", by_alias=True)))
    (data,) = unpacked(report_run(run))["data"]["runs"]
    assert yaml.safe_load(data["changed"])["algorithm"] == {"preset": "grpo", "kl": {"coefficient": 0.5}}
