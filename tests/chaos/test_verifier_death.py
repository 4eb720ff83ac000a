"""Verifier workers and hosts killed at random moments: no sample is lost, no score changes."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import ray

from agapo.cluster import cluster_nodes, in_cluster
from agapo.errors import UserError
from agapo.rewarding.cluster import ClusterVerifierPool
from agapo.rewarding.pool import GroupSample, Sample, Term, VerifierPool

pytestmark = pytest.mark.slow

SAMPLES = [Sample([{"role": "user", "content": "?"}], "x" * (n % 97), {}) for n in range(2000)]
EXPECTED = [float(n % 97) for n in range(2000)]
MARK = f"AGAPO_CHAOS={os.getpid()}"
LENGTH = {"length": Term("tests.fakes.rewards:slow_length")}


@pytest.fixture(scope="module", autouse=True)
def mark() -> Iterator[None]:
    """What this test's processes inherit, so that it kills no other run's."""
    os.environ["AGAPO_CHAOS"] = str(os.getpid())
    yield
    del os.environ["AGAPO_CHAOS"]


def workers() -> list[int]:
    """Process ids of this test's verifier workers: its own, and those of its Ray actors."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            is_ours = MARK.encode() in (entry.parent / "environ").read_bytes().split(b"\0")
            if is_ours and b"agapo.rewarding.worker" in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@contextmanager
def now_and_then(action: Callable[[random.Random], None], every_s: float) -> Iterator[list[int]]:
    """Do something at random moments meanwhile; yields a list that grows by one each time."""
    done, over, draw = [], threading.Event(), random.Random(0)

    def run() -> None:
        while not over.wait(draw.uniform(0.3, 1.7) * every_s):
            action(draw)
            done.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    yield done
    over.set()
    thread.join()


def kill_a_worker(draw: random.Random) -> None:
    if running := workers():
        with suppress(ProcessLookupError):
            os.kill(draw.choice(running), signal.SIGKILL)


def test_workers_killed_at_random_lose_and_change_nothing() -> None:
    with VerifierPool(LENGTH, workers=2, deadline_s=20) as pool, now_and_then(kill_a_worker, 0.4) as kills:
        scores = pool.score(SAMPLES)
    assert len(kills) >= 4
    assert [score["length"].value for score in scores] == EXPECTED
    assert not any(score["length"].error for score in scores)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with in_cluster(None):
        yield cluster_nodes()[0]


def test_hosts_of_a_cluster_share_the_work_in_order(cluster: str) -> None:
    with ClusterVerifierPool(LENGTH, workers=2, deadline_s=20, nodes=[cluster, cluster]) as pool:
        scores = pool.score(SAMPLES[:200])
    assert [score["length"].value for score in scores] == EXPECTED[:200]


def test_groups_are_judged_on_a_cluster(cluster: str) -> None:
    terms = {"concise": Term("rewards.conciseness:score_group", {"floor": 2}), **LENGTH}
    with ClusterVerifierPool(terms, workers=1, deadline_s=20, nodes=[cluster]) as pool:
        assert pool.group_terms == {"concise"}
        (found,) = pool.submit_groups([GroupSample([], ["a", "aaa", "aaaa"], [1.0, 1.0, 1.0], {})]).result()
        assert [score.value for score in found["concise"]] == [1.0, 0.5, 0.0]


def test_hosts_and_workers_killed_at_random_lose_and_change_nothing(cluster: str) -> None:
    with ClusterVerifierPool(LENGTH, workers=2, deadline_s=20, nodes=[cluster, cluster]) as pool:

        def kill_something(draw: random.Random) -> None:
            if draw.random() < 0.3:
                ray.kill(draw.choice(pool._hosts).actor)
            else:
                kill_a_worker(draw)

        with now_and_then(kill_something, 0.6) as kills:
            scores = pool.score(SAMPLES)
        restarts = pool.restarts
    assert len(kills) >= 4
    assert restarts >= 1
    assert [score["length"].value for score in scores] == EXPECTED
    assert not any(score["length"].error for score in scores)


def test_a_mistake_on_a_host_is_said_in_one_line(cluster: str) -> None:
    with pytest.raises(UserError, match=r"nowhere"):
        ClusterVerifierPool({"a": Term("nowhere:score")}, workers=1, deadline_s=5, nodes=[cluster])
    stops = {"a": Term("tests.fakes.rewards:user_error")}
    with ClusterVerifierPool(stops, workers=1, deadline_s=5, nodes=[cluster]) as pool:
        running = pool.submit(SAMPLES[:5])
        with pytest.raises(UserError, match="mend me"):
            running.result()


def test_submit_waits_while_too_many_samples_wait() -> None:
    with VerifierPool(LENGTH, workers=1, deadline_s=5, max_pending=10) as pool:
        started = time.monotonic()
        running = pool.submit(SAMPLES[:100])  # 5 ms each: 90 are done before the last gets in
        assert time.monotonic() - started > 0.4
        assert not running.done()
        assert [score["length"].value for score in running.result()] == EXPECTED[:100]


def test_close_frees_who_waits_to_submit() -> None:
    pool = VerifierPool({"hang": Term("tests.fakes.rewards:hang")}, workers=1, deadline_s=60, max_pending=1)
    raised: list[BaseException] = []

    def submit() -> None:
        try:
            pool.submit([Sample([], "hang", {})] * 5)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=submit)
    thread.start()
    time.sleep(0.5)
    pool.close()
    thread.join(timeout=10)
    assert raised and "closed" in str(raised[0])
