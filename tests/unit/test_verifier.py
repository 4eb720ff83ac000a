import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from agapo.errors import UserError
from agapo.rewarding import lane as verifier_lane
from agapo.rewarding import process as verifier_process
from agapo.rewarding.pool import Sample, Score, VerifierPool

FAKES = "tests.fakes.rewards"


def sample(completion="", **columns):
    return Sample(prompt=[{"role": "user", "content": "?"}], completion=completion, columns=columns)


def pool(*names, workers=1, deadline_s=10.0):
    return VerifierPool({name: f"{FAKES}:{name}" for name in names}, workers=workers, deadline_s=deadline_s)


def is_alive(process_id: int) -> bool:
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, timeout_s=5.0) -> bool:
    give_up = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.02)
    return condition()


def test_scores_every_term_of_every_sample_in_order():
    with pool("length", "no_verdict", workers=2) as verifiers:
        scores = verifiers.score([sample("x" * n) for n in range(50)])
        assert verifiers.score([]) == []
    assert [score["length"] for score in scores] == [Score(float(n)) for n in range(50)]
    assert [list(score) for score in scores] == [["length", "no_verdict"]] * 50
    assert scores[0]["no_verdict"] == Score(None)


def test_hands_the_columns_to_the_reward_as_lists():
    with pool("columns_seen", "environment") as verifiers:
        scores = verifiers.score([sample("", scale=21, mode="reasoning")])
    assert scores == [{"columns_seen": Score(42.0), "environment": Score(1.0)}]


def test_large_samples_pass_through_the_pipes():
    with pool("length") as verifiers:
        assert verifiers.score([sample("x" * 5_000_000, extra="y" * 1_000_000)])[0]["length"].value == 5_000_000


def test_several_submits_at_once_do_not_mix():
    with pool("length", workers=2) as verifiers:
        results = {}

        def work(n):
            results[n] = verifiers.score([sample("x" * n)] * 20)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {n: [{"length": Score(float(n))}] * 20 for n in range(8)}


def test_a_hang_scores_zero_at_its_deadline_and_touches_no_other_sample():
    with pool("length", "hang", workers=2, deadline_s=0.5) as verifiers:
        started = time.monotonic()
        scores = verifiers.score([sample("hang" if n == 3 else "fine") for n in range(10)])
        took = time.monotonic() - started
    assert scores[3] == {"length": Score(4.0), "hang": Score(0.0, "timeout", "no result within 0.5 s")}
    assert [score["hang"] for n, score in enumerate(scores) if n != 3] == [Score(1.0)] * 9
    assert 0.5 <= took < 5


def test_the_deadline_is_a_sample_not_a_submit_and_leaves_out_imports():
    """Importing takes 0.6 s, at the start and again after the kill; the samples take 0.2 s each, one after another."""
    functions = {"slow": "tests.fakes.slow_to_import:score"}
    with VerifierPool(functions, workers=1, deadline_s=0.5) as verifiers:
        scores = verifiers.score([sample("0.2"), sample("60"), sample("0.2"), sample("0.2")])
    assert [score["slow"].error for score in scores] == [None, "timeout", None, None]
    assert [score["slow"].value for score in scores] == [1.0, 0.0, 1.0, 1.0]


def test_a_timeout_kills_the_children_of_the_reward_too(tmp_path):
    path = tmp_path / "alive"
    with pool("hang_with_child", deadline_s=0.3) as verifiers:
        score = verifiers.score([sample("", path=str(path))])[0]["hang_with_child"]
        time.sleep(1.3)
    assert score.error == "timeout"
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "ending"),
    [("exits", "exited with code 3"), ("kills_itself", "was killed by SIGKILL")],
)
def test_a_worker_that_dies_again_and_again_over_a_sample_is_a_crash(name, ending):
    with pool(name) as verifiers:
        assert verifiers.score([sample("exit")]) == [{name: Score(0.0, "crash", f"the verifier worker {ending}")}]


def test_a_crash_leaves_the_other_samples_alone():
    with pool("exits", workers=2) as verifiers:
        scores = verifiers.score([sample("exit" if n == 0 else "") for n in range(6)])
    assert [score["exits"].error for score in scores] == ["crash"] + [None] * 5
    assert [score["exits"].value for score in scores] == [0.0] + [1.0] * 5


def test_a_worker_killed_from_outside_costs_nothing(tmp_path):
    with pool("exits_once", "worker_id") as verifiers:
        first = verifiers.score([sample("", path=str(tmp_path / "first"))])[0]
        assert first["exits_once"] == Score(1.0) and first["worker_id"].value
        os.kill(int(first["worker_id"].value), signal.SIGKILL)
        second = verifiers.score([sample("", path=str(tmp_path / "first"))])[0]
    assert second["exits_once"] == Score(1.0)
    assert first["worker_id"].value != second["worker_id"].value


def test_a_death_is_noticed_though_a_child_keeps_the_pipe_open():
    with pool("leaves_child_and_exits", deadline_s=30) as verifiers:
        started = time.monotonic()
        score = verifiers.score([sample()])[0]["leaves_child_and_exits"]
    assert score.error == "crash" and "code 4" in score.detail
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("raises", Score(0.0, "exception", "TypeError: two lines")),
        ("raises_exit", Score(0.0, "exception", "SystemExit: stop")),
        ("two_values", Score(None, "bad_return")),
        ("not_a_list", Score(None, "bad_return")),
        ("not_a_number", Score(None, "bad_return")),
        ("a_string", Score(None, "bad_return")),
    ],
)
def test_errors_of_a_reward_carry_their_kind(name, expected):
    with pool(name, "worker_id") as verifiers:
        first, second = verifiers.score([sample(), sample()])
    assert (first[name].value, first[name].error) == (expected.value, expected.error)
    assert first[name].detail.startswith(expected.detail or "should return")
    assert "\n" not in first[name].detail
    assert first["worker_id"] == second["worker_id"], "the worker lives on"


def test_printing_and_reading_cannot_corrupt_the_frames():
    with pool("prints", "length") as verifiers:
        assert verifiers.score([sample("abc")] * 2) == [{"prints": Score(1.0), "length": Score(3.0)}] * 2


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("tests.fakes.nowhere:score", ["'bad'", "tests.fakes.nowhere"]),
        (f"{FAKES}:lenght", ["'bad'", "did you mean 'length'"]),
        (f"{FAKES}:not_callable", ["'bad'", "not_callable"]),
        ("tests.fakes.raises_on_import:score", ["'bad'", "raises_on_import", "ZeroDivisionError: mistake"]),
        ("tests.fakes.dies_on_import:score", ["'bad'", "dies_on_import", "exited with code 5"]),
        ("no_colon", ["'bad'", "package.module:function"]),
    ],
)
def test_a_reward_that_does_not_import_is_a_user_error(function, words):
    with pytest.raises(UserError) as caught:
        VerifierPool({"good": f"{FAKES}:length", "bad": function}, workers=2, deadline_s=1)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_reward_that_stops_importing_ends_the_run_rather_than_hanging_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verifier_lane, "_PAUSE_S", 0.01)
    module = tmp_path / "fading_reward.py"
    module.write_text("import os\ndef score(prompts, completions, **columns):\n    os._exit(1)\n")
    with VerifierPool({"fading": "fading_reward:score"}, workers=1, deadline_s=5) as verifiers:
        module.write_text("raise ImportError('gone')\n")
        running = verifiers.submit([sample()] * 3)
        with pytest.raises(UserError, match=r"'fading'.*gone"):
            running.result(timeout=20)
        with pytest.raises(UserError, match="'fading'"):
            verifiers.submit([sample()])


def test_workers_that_cannot_be_started_give_no_verdict(monkeypatch):
    monkeypatch.setattr(verifier_lane, "_PAUSE_S", 0.01)
    with pool("exits") as verifiers:
        monkeypatch.setattr(verifier_process.sys, "executable", "/nowhere/python")
        score = verifiers.score([sample("exit")])[0]["exits"]
        monkeypatch.undo()
        assert score.value is None and score.error == "infrastructure" and "/nowhere" in score.detail
        assert verifiers.score([sample()])[0]["exits"] == Score(1.0), "and are tried again with the next sample"


def test_a_start_that_is_impossible_is_a_user_error(monkeypatch):
    monkeypatch.setattr(verifier_lane, "_PAUSE_S", 0.01)
    monkeypatch.setattr(verifier_process.sys, "executable", "/nowhere/python")
    with pytest.raises(UserError, match="cannot start a verifier worker"):
        pool("length")


def test_a_sample_that_cannot_be_sent_raises_in_submit():
    with pool("length") as verifiers:
        with pytest.raises((AttributeError, TypeError)):
            verifiers.submit([sample("", lock=threading.Lock())])
        assert verifiers.score([sample("ab")])[0]["length"].value == 2.0


def test_close_cancels_what_is_running_and_leaves_no_process():
    verifiers = pool("hang", "worker_id", deadline_s=60, workers=2)
    workers = {int(score["worker_id"].value) for score in verifiers.score([sample()] * 20)}
    running = verifiers.submit([sample("hang")] * 5)
    time.sleep(0.2)
    started = time.monotonic()
    verifiers.close()
    assert time.monotonic() - started < 3
    with pytest.raises(CancelledError):
        running.result(timeout=1)
    assert not any(is_alive(worker) for worker in workers)
    with pytest.raises(RuntimeError, match="closed"):
        verifiers.submit([sample()])
    verifiers.close()


def test_workers_die_with_a_parent_that_is_killed():
    """A hanging worker never sees the end of its input; Linux has to kill it."""
    script = f"""
        from agapo.rewarding.pool import Sample, VerifierPool
        pool = VerifierPool({{"id": "{FAKES}:worker_id", "hang": "{FAKES}:hang"}}, workers=1, deadline_s=60)
        print(int(pool.score([Sample([], "", {{}})])[0]["id"].value), flush=True)
        pool.score([Sample([], "hang", {{}})])
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent:
        worker = int(parent.stdout.readline())
        time.sleep(0.3)
        assert is_alive(worker)
        parent.kill()
    assert wait_until(lambda: not is_alive(worker))


def test_a_script_that_forgets_to_close_ends():
    script = f"""
        from agapo.rewarding.pool import Sample, VerifierPool
        pool = VerifierPool({{"length": "{FAKES}:length"}}, workers=1, deadline_s=60)
        print(pool.score([Sample([], "abc", {{}})])[0]["length"].value)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "3.0\n"


def test_neither_torch_nor_ray_is_imported():
    script = "import sys, agapo.rewarding.pool; assert not {'torch', 'ray', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_overhead_of_a_sample_is_below_a_millisecond():
    with pool("length", workers=1) as verifiers:
        verifiers.score([sample("warm")])
        best = float("inf")
        for _ in range(5):
            started = time.perf_counter()
            verifiers.score([sample("x" * 1000)] * 200)
            best = min(best, (time.perf_counter() - started) / 200)
    assert best < 1e-3
