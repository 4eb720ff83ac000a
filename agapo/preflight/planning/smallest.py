"""The smallest cluster of described hosts that would do, with changes that a run may be given between two steps.

Tried are ranks in powers of two, actors beside them where the recipe has GPUs shared, or else one actor on GPUs of its
own (by turns, as many as the recipe has), vLLM over fewer or more of them, and then what takes less memory, until it
fits. What makes it another run (LoRA, another dtype) is not tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from agapo.model.sizes import ModelSizes
from agapo.preflight.model import Change, enough
from agapo.preflight.planning.fitting import Case, case_of, changes_of, misfits, room
from agapo.preflight.planning.placement import asked_by, shares
from agapo.preflight.sampling import Trained
from agapo.recipe import DescribedCluster, load_recipe
from agapo.recipe.keys import key_class

RANKS = (1, 2, 4, 8, 16, 32, 64)
PARALLEL = (1, 2, 4, 8)
"""GPUs of an actor with vLLM."""


@dataclass(frozen=True)
class Option:
    """So many GPUs, and the recipe's keys for it."""

    gpus: int
    keys: dict[str, str]


@dataclass(frozen=True)
class Smallest:
    """What would do, and the recipe's keys that it takes."""

    case: Case
    changes: dict[str, str]
    """Of keys that have another value than in the recipe."""


@dataclass(frozen=True)
class Asker:
    """A recipe as a user gives it, to be tried with other keys."""

    recipe: Trained
    path: Path
    overrides: list[str]
    sizes: ModelSizes

    def with_keys(self, keys: dict[str, str]) -> Trained:
        """Return the recipe with other values of some keys. Raises UserError where they do not go together."""
        return load_recipe(type(self.recipe), self.path, [*self.overrides, *(f"{k}={v}" for k, v in keys.items())])


def smallest(asker: Asker, cluster: DescribedCluster, *, offload: bool = True) -> Smallest | None:
    """Return the least of the cluster's kind that would do; None where nothing that is tried does.

    `offload`: whether that may begin, to have it smaller.
    """
    options = sorted(_options(asker.recipe, asker.sizes, cluster), key=lambda option: option.gpus)
    for _, alike in groupby(options, key=lambda option: option.gpus):
        found = [fit for option in alike if (fit := _tried(asker, option, cluster, offload=offload))]
        if found:
            return min(found, key=lambda fit: len(fit.changes))
    return None


def _options(recipe: Trained, sizes: ModelSizes, cluster: DescribedCluster) -> Iterator[Option]:
    asked = asked_by(recipe)
    for ranks in sorted({*RANKS, asked.ranks}):
        keys = {f"{asked.section}.ranks": str(ranks)}
        if shares(asked):
            yield Option(ranks, {**keys, "rollout.actors": str(ranks)})
        for each, engine in _engines(recipe, sizes, cluster):
            actors = max(1, min(asked.actors, ranks // ceil(each))) if asked.by_turns and each else 1
            sampling = ceil(actors * each)
            gpus = max(ranks, sampling) if asked.by_turns else ranks + sampling
            yield Option(gpus, {**keys, "rollout.actors": str(actors), **engine})


def _engines(recipe: Trained, sizes: ModelSizes, cluster: DescribedCluster) -> Iterator[tuple[float, dict[str, str]]]:
    """Yield the GPUs that an actor may have to itself, and the keys for it."""
    own, asked = recipe.rollout, asked_by(recipe)
    whole = {"learner.gpus_per_rank": "1", "rollout.gpus_per_actor": "1"} if shares(asked) else {}
    if own.engine != "vllm" or (own.gpus_per_actor < 1 and not whole):
        yield (1 if whole else own.gpus_per_actor), whole
        return
    memory = {"rollout.vllm.gpu_memory": "0.9"} if whole else {}
    for gpus in PARALLEL:
        if gpus <= cluster.gpus_per_host and not sizes.heads % gpus and not sizes.kv_heads % gpus:
            spread = {"rollout.vllm.tensor_parallel": str(gpus), "rollout.gpus_per_actor": str(gpus)}
            yield gpus, {**whole, **memory, **spread}


def _tried(asker: Asker, option: Option, cluster: DescribedCluster, *, offload: bool) -> Smallest | None:
    hosts = ceil(option.gpus / cluster.gpus_per_host)
    kind = cluster.model_copy(update={"hosts": hosts})
    keys = option.keys | ({"cluster.address": "auto"} if hosts > 1 and not asker.recipe.cluster.address else {})
    try:
        case = case_of(asker.with_keys(keys), asker.sizes, kind)
        if less := _less_memory(case, offload=offload):
            keys |= less
            case = case_of(asker.with_keys(keys), asker.sizes, kind)
    except UserError:
        return None
    return None if misfits(case) else Smallest(case, {k: v for k, v in keys.items() if _differs(asker.recipe, k, v)})


def _less_memory(case: Case, *, offload: bool) -> dict[str, str]:
    """Return the keys that make it fit the GPU; all that there are, where they do not."""
    recipe, sizes = case.recipe, case.sizes
    if room(recipe, sizes, {}) >= 0:
        return {}
    changes = [change for change in changes_of(recipe, sizes) if _may_change(recipe, change, offload=offload)]
    single = next((text for text, change in changes if room(recipe, sizes, change) >= 0), None)
    texts = [single] if single else enough(changes, lambda change: room(recipe, sizes, change) >= 0) or []
    return dict(part.split("=", 1) for text in texts for part in text.split())


def _may_change(recipe: Trained, change: Change, *, offload: bool) -> bool:
    keys = [part.partition("=")[0] for part in change[0].split()]
    return (offload or "offload" not in change[1]) and all(key_class(type(recipe), key) != "identity" for key in keys)


def _differs(recipe: Trained, key: str, value: str) -> bool:
    held: Any = recipe
    for name in key.split("."):
        held = getattr(held, name)
    return f"{held:g}" != value if isinstance(held, float) else str(held).lower() != value
