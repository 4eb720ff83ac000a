"""A small model and recipe for end-to-end runs through the command line."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from agapo.cli import main
from agapo.cluster import fetch, in_cluster
from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import PackedWeights
from agapo.rollouts.pool import RolloutPool
from tests.builders import tiny_exaone

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a random EXAONE 4 of 40,000 parameters."""
    folder = tmp_path_factory.mktemp("model") / "hf"
    export_hf(tiny_exaone(), build_tokenizer(), folder)
    return folder


@pytest.fixture(scope="session")
def recipe_file(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RL recipe whose run takes seconds, with mixed groups and a KL term."""
    content = {
        "stage": "rl",
        "model": {"path": str(tiny_model)},
        "steps": 6,
        "prompts_per_step": 4,
        "data": {"source": "data.arithmetic:prompts", "args": {"size": 64}},
        "reward": {"terms": [{"name": "even", "function": "tests.fakes.length_reward:mostly"}], "workers": 1},
        "algorithm": {"kl": {"coefficient": 0.05}},
        # A random model seldom ends by itself; a stop text that is a common character ends it after some tokens.
        "rollout": {
            "group_size": 4,
            "max_new_tokens": 64,
            "stop": list("abcdefghijklmnopqrstuvwxyz"),
            "chunk_prompts": 2,
            "threads": 1,
        },
        "learner": {"learning_rate": 1.0e-3, "threads": 1},
        "evaluation": {"every": 3, "test_size": 8, "validation_size": 8},
        "checkpoint": {"every": 100},
        "tracking": {"wandb": "disabled"},
    }
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[None]:
    """One Ray for all runs that a test process makes with `agapo_here`: a new one is ten seconds' work of a core."""
    with contextlib.chdir(ROOT), in_cluster(None):
        yield


def agapo(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in the repository root and return what it did."""
    command = [sys.executable, "-m", "agapo", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment, check=False)


def agapo_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which has its imports done; what needs Ray takes `shared_ray`."""
    command, said, complained = ["agapo", *map(str, arguments)], StringIO(), StringIO()
    streams = (contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained))
    with contextlib.chdir(ROOT), pytest.MonkeyPatch.context() as patch, streams[0], streams[1]:
        patch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as left:
            main()
    return subprocess.CompletedProcess(command, int(left.value.code or 0), said.getvalue(), complained.getvalue())


def interrupt_after(step: int, metrics: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line, press Ctrl-C (its whole process group) once `metrics` has `step`, and wait."""
    command = [sys.executable, "-m", "agapo", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while process.poll() is None and not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, output, "")


def hold_back_first_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand the actors every buffer with the first tensor, the embeddings, as it was in the first one (float32)."""
    real, first = RolloutPool.set_weights, []

    def partly(self: RolloutPool, weights: Any, version: int) -> None:
        sent = weights if isinstance(weights, PackedWeights) else fetch(weights)
        whole, size = sent.buffer.copy(), sent.layout.sizes[0] * 4
        first.append((whole[:size].copy(), sent.sums[0]))
        whole[:size], known = first[0]
        real(self, replace(sent, buffer=whole, sums=(known, *sent.sums[1:])), version)

    monkeypatch.setattr(RolloutPool, "set_weights", partly)
