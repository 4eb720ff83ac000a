"""`agapo ablate` makes its runs side by side, goes on where it was stopped, and says which failed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.stages.conftest import ROOT

pytestmark = pytest.mark.slow


def test_two_variants_over_two_seeds_stopped_and_gone_on_with(recipe_file: Path, tmp_path: Path) -> None:
    content = {
        "output": str(tmp_path),
        "base": str(recipe_file),
        "overrides": ["steps=50", "max_sampled_tokens=200", "evaluation={every: 0, test_size: 4, validation_size: 4}"],
        "variants": {"agapo": [], "broken": ["reward.terms.0.function=tests.fakes.length_reward:nothing_there"]},
        "seeds": 2,
        "parallel": 2,
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "agapo", "ablate", str(tmp_path / "small.yaml")]
    runs = tmp_path / "ablate/small/rl"
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list(runs.glob("*.log")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 143, said
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 1
    assert "2 of 4 runs failed" in done.stderr
    assert "nothing_there" in done.stderr
    found = json.loads((tmp_path / "ablate/small/ablation.json").read_text())
    assert [(row["variant"], row["seeds"]) for row in found["rows"]] == [("agapo", 2)]
    for run in found["runs"]:
        assert sum(run["tokens"]) >= 200 > sum(run["tokens"][:-1])
        assert run["steps"] < 50
    assert (tmp_path / "ablate/small/curves.png").stat().st_size > 5000
