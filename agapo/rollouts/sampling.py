"""The one way from prompts to judged groups: training, evaluation, filter, pairs and the needle test all take it.

    requests ──► RolloutPool (groups, any order) ──► Judge (a group as soon as it is sampled) ──► chunks, in order

So ordering, overlap, the rule for truncated responses (the judge's) and the stop on errors are the same everywhere.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol

from agapo.errors import UserError
from agapo.recipe.reward import ENOUGH_GROUPS
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.schema import Group

WINDOW = 64
"""Groups over which errors are counted: a few in a row are no rate, and an old error should not count for ever."""


class Judge(Protocol):
    """Gives groups their rewards, as `agapo.rewarding.scorer.Scorer` does."""

    def submit(self, group: Group) -> "Future[Group]":
        """Start judging a group; the result is the group with rewards, verdicts and errors."""
        ...

    def check(self, groups: Sequence[Group]) -> None:
        """Raise UserError when too many of these judged groups met errors, or none has a verdict."""
        ...


class Sampler(Protocol):
    """Samples requests, as `agapo.rollouts.pool.RolloutPool` does."""

    def generate(
        self, requests: Sequence[PromptRequest], params: SamplingParams, *, chunk_prompts: int
    ) -> Iterator[tuple[int, Group]]:
        """Yield (the request's place, its group) as groups become whole, in any order."""
        ...


class JudgingError(UserError):
    """Too many responses met errors, or no response has a verdict; `groups` are those that were looked at."""

    def __init__(self, message: str, groups: Sequence[Group]):
        super().__init__(message)
        self.groups = list(groups)


def sample_and_score(
    pool: Sampler,
    judge: Judge,
    requests: Sequence[PromptRequest],
    params: SamplingParams,
    *,
    chunk_prompts: int,
    on_sampled: Callable[[], None] = lambda: None,
    watch: "ErrorWatch | None" = None,
    singly: bool = False,
) -> Generator[list[Group], None, None]:
    """Yield the judged groups of each chunk of `chunk_prompts` requests, in order, each as early as can be.

    Groups are judged while others are sampled. `on_sampled` is called when the last chunk has been sampled. Raises
    JudgingError when the errors of the last groups pass the judge's bound: of these requests alone, or with a `watch`,
    whose end is its owner's, of what it has seen before as well. `singly`: yield each group for itself. Who closes
    this takes out of the actors' hands what has not been sampled.
    """
    own = watch or ErrorWatch(judge)
    numbers, size = range(len(requests)), 1 if singly else chunk_prompts
    chunks = deque(numbers[start : start + size] for start in range(0, len(requests), size))
    judging: dict[int, Future[Group]] = {}

    def is_judged(number: int) -> bool:
        return number in judging and judging[number].done()

    def judged(chunk: range) -> list[Group]:
        return own.seen([judging.pop(number).result() for number in chunk])

    for number, group in pool.generate(requests, params, chunk_prompts=chunk_prompts):
        judging[number] = judge.submit(group)
        while chunks and all(map(is_judged, chunks[0])):
            yield judged(chunks.popleft())
    on_sampled()
    while chunks:
        yield judged(chunks.popleft())
    if watch is None:
        own.end()


class ErrorWatch:
    """The judged groups of late, and whether their errors have been looked at."""

    def __init__(self, judge: Judge):
        self._judge = judge
        self._groups: deque[Group] = deque(maxlen=WINDOW)
        self._unseen = 0

    def seen(self, groups: list[Group]) -> list[Group]:
        """Note a chunk, look at the errors where there are groups enough, and return it."""
        self._groups.extend(groups)
        self._unseen += len(groups)
        if len(self._groups) >= ENOUGH_GROUPS:
            self._check()
        return groups

    def end(self) -> None:
        """Look at what was too little to be looked at."""
        if self._unseen:
            self._check()

    def _check(self) -> None:
        self._unseen = 0
        try:
            self._judge.check(self._groups)
        except UserError as error:
            raise JudgingError(str(error), self._groups) from None
