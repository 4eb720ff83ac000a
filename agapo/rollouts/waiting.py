"""What was begun and not learned from when a checkpoint is written, so that a run that goes on loses none of it.

Were what is in flight sampled again, stopping would favour short responses: those that are whole would stay, and those
that take long would be drawn a second time.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path

from agapo.errors import UserError, first_line
from agapo.rollouts.engine import Piece, PromptRequest, SamplingParams
from agapo.schema import Group, Segment


@dataclass(frozen=True)
class Waiting:
    """A prompt of the stream as far as it has come."""

    position: int
    """Its place in the stream."""
    request: PromptRequest
    """What was asked there."""
    group: Group | None = None
    """Its responses, where they are whole."""
    judged: bool = False
    """Whether the group has its rewards and verdicts."""
    pieces: tuple[Piece, ...] = ()
    """Where the group is not whole: finished responses, and as much as there is of the others."""

    @property
    def segments(self) -> list[Segment]:
        """All that was sampled, each stretch with the version of its weights."""
        responses = self.group.responses if self.group else self.pieces
        return [segment for response in responses for segment in response.segments]

    @property
    def oldest(self) -> int | None:
        """The version of the oldest weights that sampled a token of it; None where there is no token."""
        return min((segment.weights_version for segment in self.segments if segment.trained), default=None)


@dataclass(frozen=True)
class Begun:
    """All that a stopped run had begun."""

    params: SamplingParams
    """How it was sampled."""
    asked: int
    """The end of the prompts that the step which was stopped had asked for, refills among them."""
    waiting: tuple[Waiting, ...]


def save_waiting(path: Path, begun: Begun) -> None:
    """Write it. Arrays are pickled as they lie in memory."""
    path.write_bytes(pickle.dumps(begun, protocol=5))


def load_waiting(path: Path) -> Begun:
    """Return what was written. Raises UserError where this version of agapo cannot read it."""
    try:
        begun = pickle.loads(path.read_bytes())
        assert isinstance(begun, Begun), "another version of agapo wrote it"
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); delete it, and its line in state.json beside it, to sample "
            "these prompts again"
        ) from None
    return begun
