"""Rewards that behave, and rewards that misbehave in one way each."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def length(prompts, completions, **columns):
    return [float(len(completion)) for completion in completions]


def columns_seen(prompts, completions, *, scale, mode, **columns):
    assert prompts[0][-1]["role"] == "user" and mode == ["reasoning"]
    return [scale[0] * 2]


def no_verdict(prompts, completions, **columns):
    return [None]


def hang(prompts, completions, **columns):
    """Hangs over "hang", in a way that neither alarms nor the end of the input would end."""
    if completions[0] == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)
    return [1.0]


def hang_with_child(prompts, completions, *, path, **columns):
    """Leave a child that holds the pipes and would write to `path` after a second."""
    script = "import sys, time; time.sleep(1); open(sys.argv[1], 'w').close()"
    subprocess.Popen([sys.executable, "-c", script, path[0]], close_fds=False)
    time.sleep(60)


def exits(prompts, completions, **columns):
    if completions[0] == "exit":
        os._exit(3)
    return [1.0]


def exits_once(prompts, completions, *, path, **columns):
    """Die the first time only, as when something else kills the worker."""
    if not Path(path[0]).exists():
        Path(path[0]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [1.0]


def kills_itself(prompts, completions, **columns):
    os.kill(os.getpid(), signal.SIGKILL)


def leaves_child_and_exits(prompts, completions, **columns):
    """Its child keeps the reply pipe open."""
    if os.fork() == 0:
        time.sleep(60)
    os._exit(4)


def raises(prompts, completions, **columns):
    raise TypeError("two\nlines")


def raises_exit(prompts, completions, **columns):
    sys.exit("stop")


def two_values(prompts, completions, **columns):
    return [1.0, 0.0]


def not_a_list(prompts, completions, **columns):
    return 1.0


def not_a_number(prompts, completions, **columns):
    return [float("nan")]


def a_string(prompts, completions, **columns):
    return ["1"]


def prints(prompts, completions, **columns):
    """Writes to standard output on every level, and reads standard input."""
    print("x" * 100_000, flush=True)
    sys.__stdout__.write("y")  # type: ignore[union-attr]
    os.write(1, b"\x00" * 1000)
    subprocess.run([sys.executable, "-c", "print('z' * 1000)"], check=True)
    return [float(sys.stdin.read() == "")]


def sleeps(prompts, completions, **columns):
    time.sleep(float(completions[0]))
    return [float(completions[0])]


def worker_id(prompts, completions, **columns):
    return [os.getpid()]


def environment(prompts, completions, **columns):
    return [int(os.environ["AGAPO_VERIFIER"])]


not_callable = 3


def constant(prompts, completions, *, value=1.0, **columns):
    return [value] * len(completions)


def is_short(prompts, completions, **columns):
    return [float(len(completion) < 5) for completion in completions]


def group_that_raises(prompt, completions, scores, **columns):
    raise ValueError("no")


def group_that_hangs(prompt, completions, scores, **columns):
    time.sleep(60)


def down_twice(prompts, completions, *, path, **columns):
    calls = Path(path[0])
    calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
    if len(calls.read_text()) < 3:
        raise ConnectionRefusedError("no answer")
    return [1.0]


def always_down(prompts, completions, **columns):
    raise ConnectionError("no answer")


def user_error(prompts, completions, **columns):
    from agapo.errors import UserError

    raise UserError("mend me")


def slow_length(prompts, completions, **columns):
    time.sleep(0.005)
    return [float(len(completion)) for completion in completions]


def group_that_meets_others(prompt, completions, scores, *, folder, groups, name, **columns):
    """Wait until so many groups are judged at the same time."""
    (Path(folder) / name).touch()
    while len(list(Path(folder).iterdir())) < groups:
        time.sleep(0.05)
    return [1.0 for _ in completions]


def needs_gold(prompts, completions, gold, **columns):
    """Reads a column that few rows have."""
    return [float(text == one) for text, one in zip(completions, gold, strict=True)]
