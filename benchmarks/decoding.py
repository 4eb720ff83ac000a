"""Simulated engines for `benchmarks.ahead_cluster`: responses of log-normal lengths, some of which decode at once."""

import asyncio
import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from agapo.rollouts.actor import SLICE_S
from agapo.rollouts.engine import Piece, Request, ResponseId, SamplingParams
from agapo.schema import Segment
from benchmarks.crowd import Crowd

WINDOW = 8
"""Responses that an engine decodes at once."""
MEDIAN, LIMIT = 600, 8192
"""Tokens of a response: the median, and where it is cut. The mean is 1.6 times the median."""


class Decoding(Crowd):
    """Actors whose engines decode as many responses as their window takes, the others in the order they came."""

    def __init__(self, rate: float):
        super().__init__(0.0)
        self._rate = rate
        self._decoded: dict[ResponseId, dict[int, float]] = {}
        """Tokens of each response in flight, by the weights that sampled them."""

    async def work(self, number: int, requests: Sequence[Request], params: SamplingParams, version: int) -> list[Piece]:
        held = self._held[number]
        held += requests
        done, left_s = list[Piece](), SLICE_S
        while held and left_s > 0:
            window = held[:WINDOW]
            step_s = min(left_s, *(self._left(request.id) / self._rate for request in window))
            for request in window:
                tokens = self._decoded.setdefault(request.id, {})
                tokens[version] = tokens.get(version, 0.0) + step_s * self._rate
            left_s -= step_s
            ended = [request for request in window if self._left(request.id) < 1e-6]
            held[:] = [request for request in held if request not in ended]
            done += [self._whole(request.id) for request in ended]
        await asyncio.sleep(SLICE_S - left_s)
        return done

    async def drop(self, number: int) -> None:
        for request in self._held[number]:
            self._decoded.pop(request.id, None)
        await super().drop(number)

    def _left(self, response: ResponseId) -> float:
        return length_of(response) - sum(self._decoded.get(response, {}).values())

    def _whole(self, response: ResponseId) -> Piece:
        parts = self._decoded.pop(response)
        ends = np.rint(np.cumsum(list(parts.values()))).astype(int)
        counts = np.diff(ends, prepend=0)
        segments = tuple(
            Segment(np.zeros(count), np.full(count, -1.0), weights_version=version)
            for version, count in zip(parts, counts, strict=True)
        )
        return Piece(response, segments, "", "length" if ends[-1] == LIMIT else "stop")


@lru_cache(maxsize=100_000)
def length_of(response: ResponseId) -> int:
    """Return the tokens of a response, which depend on its name alone."""
    digest = hashlib.sha256(f"{response.prompt}/{response.visit}/{response.index}".encode()).digest()
    drawn = np.random.default_rng(int.from_bytes(digest[:8], "little")).lognormal(np.log(MEDIAN), 1.0)
    return int(min(LIMIT, 1 + drawn))
