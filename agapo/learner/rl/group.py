"""The learner's ranks as Ray actors, driven as one."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError

from agapo.cluster import fetch, free_endpoint, how_it_died, number_of, require_shared, sees
from agapo.errors import ProcessDied, TransferFailed, UserError
from agapo.learner.checkpoint import Checkpoint, Saved, deepspeed_files, divided_alike
from agapo.learner.rl.batching import Example
from agapo.learner.rl.settings import TAG, LearnerSettings
from agapo.learner.universal import universal_form
from agapo.model.transports import BroadcastWeights, MeetingPlace, SharedWeights
from agapo.model.weights import PackedWeights, WeightLayout
from agapo.placement import Placement

RELIEF = "lower learner.micro_batch_tokens, or set model.gradient_checkpointing"
"""What makes a rank take less memory."""


HAND_OVER = "hand over its weights"
TRANSFER_TIMEOUT_S = 120.0
"""After which engines that do not answer a broadcast are taken for gone."""


class RankActor:
    """A process for one rank. The rank itself is made later, when the first rank's address is known."""

    def endpoint(self) -> tuple[str, int]:
        """Return an address and a free port on this host, for the ranks to meet at."""
        return free_endpoint()

    def sees(self, mark: Path) -> str | None:
        """See `agapo.cluster`."""
        return sees(mark)

    def start(self, settings: LearnerSettings, rank: int, ranks: int, address: str, port: int) -> None:
        """Make the rank; returns when all ranks have met."""
        # Imported here: DeepSpeed looks for an accelerator when it is imported.
        from agapo.learner.rl.rank import LearnerRank

        self.rank = LearnerRank(settings, rank=rank, ranks=ranks, address=address, port=port)

    def load_reference(self) -> None:
        """See the rank's."""
        self.rank.load_reference()

    def reference_logprobs(self, examples: Sequence[Example]) -> dict[int, np.ndarray]:
        """See the rank's."""
        return self.rank.reference_logprobs(examples)

    def update(
        self, examples: Sequence[Example], denominator: float, learning_rate: float
    ) -> tuple[dict[str, float], dict[str, float]]:
        """See the rank's; the second answer is the seconds of its phases, in their order."""
        sums = self.rank.update(examples, denominator=denominator, learning_rate=learning_rate)
        return sums, self.rank.seconds

    def weights(self) -> tuple[PackedWeights | None, bool]:
        """See the rank's; the second answer says that it has ended, for who does not want them himself."""
        return self.rank.weights(), True

    def shared_weights(self) -> SharedWeights:
        """See the rank's."""
        return self.rank.shared_weights()

    def rest(self) -> None:
        """See the rank's."""
        self.rank.rest()

    def layout(self) -> WeightLayout:
        """See the rank's."""
        return self.rank.layout

    def meet_engines(self, meeting: MeetingPlace) -> bool:
        """See the rank's. Returns False where the engines did not come; the rank itself is well."""
        return _went_well(lambda: self.rank.meet_engines(meeting))

    def broadcast_weights(self) -> bool:
        """See the rank's. Returns False where the broadcast failed; the rank itself is well."""
        return _went_well(self.rank.broadcast_weights)

    def save(self, directory: Path) -> None:
        """See the rank's."""
        self.rank.save(directory)

    def written(self, wait: bool) -> bool:
        """See the rank's."""
        return self.rank.written(wait=wait)

    def load(self, directory: Path, tag: str) -> None:
        """See the rank's."""
        self.rank.load(directory, tag)


def _went_well(transfer: Callable[[], None]) -> bool:
    try:
        transfer()
    except TransferFailed:
        return False
    return True


class LearnerGroup:
    """All ranks of the learner."""

    def __init__(self, settings: LearnerSettings, placement: Placement, folder: Path):
        """Start the ranks and load the policy on them.

        `folder` is the run's, where they save. Raises UserError where a rank's host does not see it.
        """
        self._settings = settings
        self.on_phase: Callable[[int, str, float, float], None] = lambda *_: None
        """Told of each phase of a rank's update: rank, name, start and end (`time.monotonic`)."""
        ranks = settings.learner.ranks
        environment = {"DS_ACCELERATOR": "cpu"} if settings.device == "cpu" else {}
        own = {"runtime_env": {"env_vars": environment}}
        self._ranks: list[Any] = [
            ray.remote(RankActor).options(**placement.rank(rank), **own).remote() for rank in range(ranks)
        ]
        ((address, port),) = self._fetch("start", [self._ranks[0].endpoint.remote()])
        self._require_shared(folder)
        self._starting = [
            actor.start.remote(settings, rank, ranks, address, port) for rank, actor in enumerate(self._ranks)
        ]

    def _require_shared(self, folder: Path) -> None:
        try:
            require_shared(folder, self._ranks)
        except UserError:
            self.close()
            raise

    def wait_ready(self) -> None:
        """Return once every rank has loaded the policy."""
        self._fetch("load the policy and meet the other ranks", self._starting)

    def _fetch(self, phase: str, references: list[Any]) -> list[Any]:
        """Return the ranks' answers. Raises ProcessDied, naming rank and phase, as soon as one is gone, or hangs."""
        own = self._settings.learner
        try:
            return fetch(references, relief=RELIEF, timeout_s=own.timeout_s)
        except RayActorError as error:
            rank = number_of(error, self._ranks)
            raise ProcessDied(f"learner rank {rank} died ({how_it_died(error)}); often memory: {RELIEF}") from None
        except GetTimeoutError:
            _, late = ray.wait(references, num_returns=len(references), timeout=0)
            numbers = ", ".join(str(references.index(item)) for item in late)
            raise ProcessDied(
                f"learner rank {numbers} did not {phase} within {own.timeout_s:g} s (learner.timeout_s), nor die: it "
                "hangs, or the time is too short"
            ) from None

    def load_reference(self) -> None:
        """Load the frozen reference policy on every rank."""
        self._fetch("load the reference", [actor.load_reference.remote() for actor in self._ranks])

    def begin_reference(self, examples: Sequence[Example]) -> list[Any]:
        """Have every rank compute log π_ref of its share when it comes to it; `end_reference` has the result."""
        whole = ray.put(list(examples))
        return [actor.reference_logprobs.remote(whole) for actor in self._ranks]

    def end_reference(self, begun: list[Any]) -> list[np.ndarray]:
        """Return log π_ref [T] of each example that was begun with."""
        found: dict[int, np.ndarray] = {}
        for share in self._fetch("compute the reference's log-probabilities", begun):
            found |= share
        return [found[index] for index in range(len(found))]

    def update(self, examples: Sequence[Example], *, denominator: float, learning_rate: float) -> dict[str, float]:
        """Make one optimizer update, and return sums over all ranks."""
        started = time.monotonic()
        whole = ray.put(list(examples))
        work = [actor.update.remote(whole, denominator, learning_rate) for actor in self._ranks]
        found = self._fetch("make its update", work)
        for rank, (_, seconds) in enumerate(found):
            self._note_phases(rank, started, seconds)
        return merge_sums([sums for sums, _ in found])

    def _note_phases(self, rank: int, started: float, seconds: dict[str, float]) -> None:
        """Hosts' clocks differ: durations are the rank's own, laid end to end from when the driver asked."""
        for name, duration in seconds.items():
            self.on_phase(rank, name, started, started + duration)
            started += duration

    def weights(self) -> Any:
        """Return a reference to the policy's `PackedWeights`."""
        work = [actor.weights.options(num_returns=2).remote() for actor in self._ranks]
        self._fetch(HAND_OVER, [ended for _, ended in work])
        return work[0][0]

    def shared_weights(self) -> SharedWeights:
        """Return the policy's weights where each rank has them on its GPU."""
        shares: list[SharedWeights] = self._fetch(HAND_OVER, [actor.shared_weights.remote() for actor in self._ranks])
        return replace(
            shares[0], handles={where: handle for share in shares for where, handle in share.handles.items()}
        )

    def start_meeting(self, engines: int) -> tuple[MeetingPlace, Any]:
        """Let the first rank wait for the `engines`; return where, and a reference that says whether they came."""
        ((address, port),) = self._fetch("find a port", [self._ranks[0].endpoint.remote()])
        meeting = MeetingPlace(address, port, 1 + engines, TRANSFER_TIMEOUT_S)
        return meeting, self._ranks[0].meet_engines.remote(meeting)

    def start_broadcast(self) -> tuple[BroadcastWeights, list[Any]]:
        """Begin to send the weights to the engines that were met; return what they receive, and references to wait for.

        They say whether the weights were sent (`all_well`).
        """
        (layout,) = self._fetch(HAND_OVER, [self._ranks[0].layout.remote()])
        return BroadcastWeights(layout), [actor.broadcast_weights.remote() for actor in self._ranks]

    def rest(self) -> None:
        """Have every rank give back the GPU memory that it does not use."""
        self._fetch("give memory back", [actor.rest.remote() for actor in self._ranks])

    def all_well(self, references: list[Any]) -> bool:
        """Return what `start_meeting` and `start_broadcast` came to. Raises ProcessDied where a rank is gone."""
        return all(self._fetch(HAND_OVER, references))

    def save(self, directory: Path) -> Saved:
        """Write every rank's state below `directory`, which all hosts must see; return which files that makes.

        They are there once `written` says so.
        """
        self._fetch("save", [actor.save.remote(directory) for actor in self._ranks])
        own, ranks = self._settings, len(self._ranks)
        names = deepspeed_files(own.zero_stage, ranks, bfloat16=own.bfloat16)
        return Saved(ranks, own.zero_stage, [f"{TAG}/{name}" for name in names])

    def written(self, *, wait: bool) -> bool:
        """Return whether every rank has written what `save` was to write; with `wait`, once they have.

        Raises UserError where one could not.
        """
        return all(self._fetch("write its checkpoint", [actor.written.remote(wait) for actor in self._ranks]))

    def load(self, checkpoint: Checkpoint) -> None:
        """Take every rank's state from a checkpoint, of another number of ranks too.

        Raises UserError where another kind of ZeRO wrote it.
        """
        own, ranks, path = self._settings, len(self._ranks), checkpoint.path
        alike = divided_alike(checkpoint, ranks=ranks, zero_stage=own.zero_stage, section="learner")
        with nullcontext(TAG) if alike else universal_form(path / TAG) as tag:
            self._fetch("load its checkpoint", [actor.load.remote(path, tag) for actor in self._ranks])

    def close(self) -> None:
        """End the ranks: in a cluster that goes on they would stay."""
        for actor in self._ranks:
            ray.kill(actor)


def merge_sums(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the sums over ranks; maxima stay maxima, and the gradient norm is already that of all ranks."""
    merged: dict[str, float] = {}
    for name in shares[0]:
        values = [share[name] for share in shares]
        merged[name] = max(values) if name.endswith(("_max", "_norm")) else sum(values)
    return merged
