"""The verifier pool over a Ray cluster: a `VerifierPool` on each host, fed with slices of samples.

    submit ──► one bounded queue of slices ──► threads, a few a host ──► host actor's own pool ──► results in order

A host that dies is replaced, and its slices are scored again by whoever is free, so nothing is lost: what a sample
scores does not depend on where.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agapo.cluster import fetch
from agapo.errors import UserError
from agapo.rewarding.pool import GroupSample, Job, Sample, Score, Term, VerifierPool

_SLICE = 8
"""Samples that travel together."""
_SLICES_A_HOST = 4
"""Slices that each host has in hand, so that its workers do not wait for the network."""
_WAITING_A_HOST = 16
"""Slices that may wait for each host before `submit` blocks."""
_LOOK_EVERY_S = 0.2
_MOST_RESTARTS = 10

R = TypeVar("R")


class VerifierHost:
    """The Ray actor: a pool on its host."""

    def __init__(self, terms: Mapping[str, Term], workers: int, deadline_s: float):
        self._make = lambda: VerifierPool(terms, workers=workers, deadline_s=deadline_s)
        self._lock = threading.Lock()
        self._made: VerifierPool | None = None

    @property
    def _pool(self) -> VerifierPool:
        """Made by the first call, not on starting: what a call raises reaches the driver as it is."""
        with self._lock:
            self._made = self._made or self._make()
            return self._made

    def group_terms(self) -> frozenset[str]:
        """The terms that judge groups; answers once the workers have started."""
        return self._pool.group_terms

    def score(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        """Score single responses."""
        return self._pool.submit(samples).result()

    def score_groups(self, groups: Sequence[GroupSample]) -> list[dict[str, list[Score]]]:
        """Score groups."""
        return self._pool.submit_groups(groups).result()


class ClusterVerifierPool:
    """Scores samples on the hosts of a Ray cluster; the interface is `VerifierPool`'s.

    `nodes` are the ids of the hosts that get a share of the `workers`, one host actor each (an id may come twice).
    Raises UserError when a function does not import there.
    """

    def __init__(self, terms: Mapping[str, Term], *, workers: int, deadline_s: float, nodes: Sequence[str]):
        hosts = list(nodes)[:workers]
        shares = [workers // len(hosts) + (number < workers % len(hosts)) for number in range(len(hosts))]
        self._hosts = [_Host(terms, share, deadline_s, node) for share, node in zip(shares, hosts, strict=True)]
        self._slices: queue.Queue[_Slice] = queue.Queue(_WAITING_A_HOST * len(hosts))
        self._again: queue.SimpleQueue[_Slice] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._failure: UserError | None = None
        self.restarts = 0
        """Hosts that died and were replaced."""
        self._lock = threading.Lock()
        try:
            started = [fetch(host.actor.group_terms.remote()) for host in self._hosts]
        except BaseException:
            self._kill_hosts()
            raise
        self.group_terms: frozenset[str] = started[0]
        self._threads = [
            threading.Thread(target=self._serve, args=(host,), name="verifier host", daemon=True)
            for host in self._hosts
            for _ in range(_SLICES_A_HOST)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, samples: Sequence[Sample]) -> "Future[list[dict[str, Score]]]":
        """Start scoring; see `VerifierPool.submit`."""
        return self._submit(samples, "score")

    def submit_groups(self, groups: Sequence[GroupSample]) -> "Future[list[dict[str, list[Score]]]]":
        """Start judging groups; see `VerifierPool.submit_groups`."""
        return self._submit(groups, "score_groups")

    def score(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        """Score and wait."""
        return self.submit(samples).result()

    def close(self) -> None:
        """End the hosts. What is not yet scored is cancelled."""
        self._closing.set()
        self._kill_hosts()
        for thread in self._threads:
            thread.join()
        for waiting in (self._again, self._slices):
            while not waiting.empty():
                waiting.get_nowait().job.fail(CancelledError())

    def __enter__(self) -> "ClusterVerifierPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, samples: Sequence[Any], method: str) -> "Future[list[Any]]":
        job: Job[Any] = Job(len(samples), lambda found, index: found)
        for start in range(0, len(samples), _SLICE):
            self._put(_Slice(job, start, list(samples[start : start + _SLICE]), method))
        return job.future

    def _put(self, piece: "_Slice") -> None:
        while True:
            if self._closing.is_set():
                raise RuntimeError("the verifier pool is closed")
            if self._failure:
                raise self._failure
            try:
                return self._slices.put(piece, timeout=_LOOK_EVERY_S)
            except queue.Full:
                continue

    def _serve(self, host: "_Host") -> None:
        while not self._closing.is_set():
            piece = self._next()
            if piece is not None:
                self._score(piece, host)

    def _next(self) -> "_Slice | None":
        try:
            return self._again.get_nowait()
        except queue.Empty:
            pass
        try:
            return self._slices.get(timeout=_LOOK_EVERY_S)
        except queue.Empty:
            return None

    def _score(self, piece: "_Slice", host: "_Host") -> None:
        if self._failure:
            piece.job.fail(self._failure)
            return
        generation = host.generation
        try:
            found = fetch(getattr(host.actor, piece.method).remote(piece.samples))
        except RayActorError:
            self._again.put(piece)
            if not self._closing.is_set():
                self._replace(host, generation)
        except BaseException as error:
            if isinstance(error, UserError):
                self._failure = error
            piece.job.fail(error)
        else:
            for offset, result in enumerate(found):
                piece.job.put(piece.start + offset, result)

    def _replace(self, host: "_Host", generation: int) -> None:
        """Start a dead host anew, once, though several threads have noticed."""
        with self._lock:
            if host.generation != generation or self._failure:
                return
            self.restarts += 1
            if self.restarts > _MOST_RESTARTS:
                self._fail(UserError(f"reward.workers: {self.restarts} verifier hosts died; often memory: lower it"))
                return
            host.start()

    def _fail(self, error: UserError) -> None:
        self._failure = error
        for waiting in (self._again, self._slices):
            while not waiting.empty():
                waiting.get_nowait().job.fail(error)

    def _kill_hosts(self) -> None:
        for host in self._hosts:
            ray.kill(host.actor)


@dataclass(frozen=True)
class _Slice:
    job: Job[Any]
    start: int
    samples: list[Any]
    method: str


class _Host:
    """A host's actor, and how often it was started."""

    def __init__(self, terms: Mapping[str, Term], workers: int, deadline_s: float, node: str):
        self._start: Callable[[], Any] = lambda: (
            ray.remote(VerifierHost)
            .options(
                num_cpus=0.1,
                max_concurrency=_SLICES_A_HOST + 1,
                # Soft: where the node is gone, its share runs elsewhere.
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True),
            )
            .remote(terms, workers, deadline_s)
        )
        self.generation = 0
        self.start()

    def start(self) -> None:
        """Start the actor, anew where it has died."""
        self.actor = self._start()
        self.generation += 1
