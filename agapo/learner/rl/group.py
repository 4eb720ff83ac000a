"""The learner's ranks as Ray actors, driven as one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError

from agapo.cluster import fetch, free_endpoint, how_it_died, number_of, require_shared, sees
from agapo.errors import ProcessDied, UserError
from agapo.learner.checkpoint import Checkpoint, Saved, deepspeed_files, require_same_shards
from agapo.learner.rl.batching import Example
from agapo.learner.rl.settings import TAG, LearnerSettings
from agapo.model.weights import PackedWeights

RELIEF = "lower learner.micro_batch_tokens, or set model.gradient_checkpointing"
"""What makes a rank take less memory."""


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

    def update(self, examples: Sequence[Example], denominator: float, learning_rate: float) -> dict[str, float]:
        """See the rank's."""
        return self.rank.update(examples, denominator=denominator, learning_rate=learning_rate)

    def weights(self) -> tuple[PackedWeights | None, bool]:
        """See the rank's; the second answer says that it has ended, for who does not want them himself."""
        return self.rank.weights(), True

    def save(self, directory: Path) -> None:
        """See the rank's."""
        self.rank.save(directory)

    def load(self, directory: Path) -> None:
        """See the rank's."""
        self.rank.load(directory)


class LearnerGroup:
    """All ranks of the learner."""

    def __init__(self, settings: LearnerSettings, folder: Path):
        """Start the ranks and load the policy on them.

        `folder` is the run's, where they save. Raises UserError where a rank's host does not see it.
        """
        self._settings = settings
        ranks = settings.learner.ranks
        environment = {"DS_ACCELERATOR": "cpu"} if settings.device == "cpu" else {}
        options = {
            "num_cpus": 0.1,
            "num_gpus": settings.learner.gpus_per_rank,
            "runtime_env": {"env_vars": environment},
        }
        self._ranks: list[Any] = [ray.remote(RankActor).options(**options).remote() for _ in range(ranks)]
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

    def reference_logprobs(self, examples: Sequence[Example]) -> list[np.ndarray]:
        """Return log π_ref [T] of each example."""
        whole = ray.put(list(examples))
        found: dict[int, np.ndarray] = {}
        work = [actor.reference_logprobs.remote(whole) for actor in self._ranks]
        for share in self._fetch("compute the reference's log-probabilities", work):
            found |= share
        return [found[index] for index in range(len(examples))]

    def update(self, examples: Sequence[Example], *, denominator: float, learning_rate: float) -> dict[str, float]:
        """Make one optimizer update, and return sums over all ranks."""
        whole = ray.put(list(examples))
        work = [actor.update.remote(whole, denominator, learning_rate) for actor in self._ranks]
        return merge_sums(self._fetch("make its update", work))

    def weights(self) -> Any:
        """Return a reference to the policy's `PackedWeights`."""
        work = [actor.weights.options(num_returns=2).remote() for actor in self._ranks]
        self._fetch("hand over its weights", [ended for _, ended in work])
        return work[0][0]

    def save(self, directory: Path) -> Saved:
        """Write every rank's state below `directory`, which all hosts must see; return which files that makes."""
        self._fetch("save", [actor.save.remote(directory) for actor in self._ranks])
        own, ranks = self._settings, len(self._ranks)
        names = deepspeed_files(own.zero_stage, ranks, bfloat16=own.bfloat16)
        return Saved(ranks, own.zero_stage, [f"{TAG}/{name}" for name in names])

    def load(self, checkpoint: Checkpoint) -> None:
        """Take every rank's state from a checkpoint. Raises UserError where another division of ranks wrote it."""
        own, ranks = self._settings, len(self._ranks)
        require_same_shards(checkpoint, ranks=ranks, zero_stage=own.zero_stage, section="learner")
        self._fetch("load its checkpoint", [actor.load.remote(checkpoint.path) for actor in self._ranks])

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
