"""What a run's user sees first, and what of the live line stays on a terminal of 80 columns."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console

from agapo import cli
from agapo.tracking import StepProgress, say

ROOT = Path(__file__).parents[2]
FIGURES = {
    "reward/mean": 0.123456,
    "reward/accuracy": 1.0,
    "group/all_wrong": 0.5,
    "kl/sequence": 0.00123,
    "mismatch/mean": 1e-5,
    "rollout/length": 2048.0,
    "time/step": 123.4,
}
LINE = f"""
import itertools
from agapo.tracking import StepProgress
with StepProgress(20000, 12344, name="rl", clock=itertools.count(0.0, 61.0).__next__) as view:
    view.update(12345, {FIGURES})
    view.announce("said between")
"""


def on_a_terminal(code: str, columns: int) -> str:
    """What Python code writes to a terminal so wide, its control sequences taken out."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "CI")}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=follower, stdout=follower, stderr=follower, env=environment | {"TERM": "xterm"}
    ) as process:
        os.close(follower)
        written = b""
        while piece := _read(leader):
            written += piece
    os.close(leader)
    assert process.returncode == 0, written.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""  # Linux's way to say that nobody holds the other side any more


@pytest.mark.parametrize(
    ("columns", "figures"),
    [
        (80, "reward 0.12  acc 100%  all wrong 50%"),
        (120, "reward 0.12  acc 100%  all wrong 50%  kl 0.00123  engine off 1e-05"),
        (60, "reward 0.12  acc 100%"),
        (50, "reward 0.12"),
        (40, ""),
    ],
)
def test_the_live_line_keeps_steps_and_time_left_and_drops_whole_figures(columns: int, figures: str) -> None:
    frames = [line.rstrip() for line in re.split(r"[\r\n]+", on_a_terminal(LINE, columns)) if "/20000" in line]
    assert frames and all(len(frame) <= columns for frame in frames)
    bar = "━" * (20 if columns >= 100 else 10)
    # How much of the bar is lit is the library's affair.
    shown = re.sub("[━╸╺╹]+", bar, frames[-1])
    assert shown == f"rl {bar} 12345/20000 left 129h42m {figures}".rstrip()


def test_what_is_printed_beside_the_live_line_stays_a_line_of_its_own() -> None:
    assert "said between" in [line.strip() for line in on_a_terminal(LINE, 80).splitlines()]


def test_without_a_terminal_each_line_has_every_figure() -> None:
    out = io.StringIO()
    with StepProgress(3, name="rl", console=Console(file=out, width=80)) as view:
        view.update(1, FIGURES)
    assert out.getvalue().splitlines() == [
        "rl 1/3  reward 0.12  acc 100%  all wrong 50%  kl 0.00123  engine off 1e-05  length 2048  s/step 123  left 0s"
    ]


def test_a_said_line_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold] " + "x" * 200)
    assert capsys.readouterr().out == "[bold] " + "x" * 200 + "\n"


@pytest.mark.parametrize(
    ("command", "heavy", "first"),
    [
        ("sft recipes/sft/tiny.yaml", "agapo.stages.sft.run", "sft: tiny; loading PyTorch"),
        ("rl recipes/rl/tiny.yaml", "agapo.stages.rl.run", "rl: tiny; loading PyTorch"),
        ("dpo recipes/dpo/tiny.yaml", "agapo.stages.dpo.run", "dpo: tiny; loading PyTorch"),
        ("pairs recipes/dpo/tiny.yaml", "agapo.stages.dpo.run", "dpo: tiny; loading PyTorch"),
        ("eval recipes/eval/tiny.yaml", "agapo.stages.eval.run", "eval: tiny; loading PyTorch"),
        ("curate recipes/sft/tiny.yaml", "agapo.stages.curate", "sft: tiny; loading PyTorch"),
        ("filter recipes/rl/tiny.yaml", "agapo.stages.filter", "rl: tiny; loading PyTorch"),
        ("check recipes/rl/tiny.yaml", "agapo.preflight.machine", "check: rl tiny; loading its rewards"),
        ("score recipes/rl/tiny.yaml --responses a.jsonl", "agapo.stages.score", "score: a.jsonl; loading the rewards"),
    ],
)
def test_the_first_line_comes_before_anything_heavy(
    command: str, heavy: str, first: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is heavy cannot be imported here, so what was said was said before."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cli, "start_forks", lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, heavy, None)
    with pytest.raises(ImportError, match=re.escape(heavy)):
        cli.app(command.split(), standalone_mode=False)
    assert capsys.readouterr().out.startswith(first)
