"""The phases of a step, or of a whole preference run, on a described cluster: what is done in each, and how long."""

from dataclasses import dataclass
from math import ceil

from agapo.curation.pairs import reused_count
from agapo.model.rl_memory import handed_over
from agapo.preflight.planning.fitting import Case
from agapo.preflight.planning.pace import (
    SLEEP_S,
    Actor,
    Lengths,
    cache_rows,
    forward_seconds,
    learn_seconds,
    network_bytes,
    offload_bytes,
    sample_seconds,
    sync_seconds,
)
from agapo.preflight.sampling import number_bytes, vllm_cache
from agapo.recipe import DPORecipe, RLRecipe, SFTRecipe

LENGTH_SHARE = 0.5
"""Prompts and responses (in SFT dialogues) are taken to be so long, as a share of what the recipe allows."""


@dataclass(frozen=True)
class Phase:
    """A part of a step, or of a run."""

    name: str
    seconds: float | None
    """None where a rate that it follows from is not there."""


def total(phases: list[Phase]) -> float | None:
    """Return the seconds of all phases, which follow one another; None where one is not known."""
    known = [phase.seconds for phase in phases if phase.seconds is not None]
    return sum(known) if len(known) == len(phases) else None


def lengths_of(case: Case, prompt: int | None, response: int | None) -> Lengths:
    """Return the lengths that are given, or else taken. Of SFT prompt and response together are a dialogue."""
    recipe = case.recipe
    if isinstance(recipe, SFTRecipe):
        row = recipe.training.row_tokens
        given = (prompt or 0) + (response or 0)
        return Lengths(0, min(row, given or LENGTH_SHARE * row), row)
    longest = recipe.rollout.max_new_tokens
    assert recipe.data, "refused before"
    return Lengths(
        prompt=min(prompt or LENGTH_SHARE * recipe.data.max_prompt_tokens, recipe.data.max_prompt_tokens),
        response=min(response or LENGTH_SHARE * longest, longest),
        longest=longest,
    )


def step_tokens(case: Case, lengths: Lengths) -> float:
    """Return the tokens that go through the model's training in a step."""
    return _step_sequences(case, lengths) * lengths.sequence


def _step_sequences(case: Case, lengths: Lengths) -> float:
    recipe = case.recipe
    if isinstance(recipe, RLRecipe):
        return recipe.nominal_responses
    if isinstance(recipe, SFTRecipe):
        return recipe.training.rows_per_step * recipe.training.row_tokens / lengths.sequence
    return 2 * recipe.training.pairs_per_step


def step_phases(case: Case, lengths: Lengths) -> list[Phase]:
    """Return the phases of a step."""
    sequences = _step_sequences(case, lengths)
    learning = Phase("learning", _learning(case, lengths, sequences))
    if not isinstance(case.recipe, RLRecipe):
        return [learning]
    own, prompts = case.recipe, case.recipe.prompts_per_step
    found = [Phase("sampling", _sampling(case, lengths, prompts))]
    if own.algorithm.kl.coefficient:
        found.append(Phase("reference", _forward(case, lengths, sequences)))
    found += [learning, Phase("weights to the actors", _sync(case))]
    return [*found, Phase("sleeping and waking", SLEEP_S)] if case.sleeps else found


def step_seconds(case: Case, lengths: Lengths) -> float | None:
    """Return the seconds of a step: of all its phases, or where actors sample ahead on other GPUs, of the longer part.

    None where a phase is not known.
    """
    phases = step_phases(case, lengths)
    whole = total(phases)
    if whole is None or not samples_ahead(case):
        return whole
    sampling = sum(phase.seconds or 0.0 for phase in phases if phase.name == "sampling")
    return max(sampling, whole - sampling)


def samples_ahead(case: Case) -> bool:
    """Whether actors sample while ranks learn, on GPUs of their own."""
    return isinstance(case.recipe, RLRecipe) and case.recipe.rollout.max_staleness > 0 and not case.placement.shared


def run_phases(case: Case, lengths: Lengths) -> list[Phase] | None:
    """Return the phases of the whole run; None where its steps follow from the data."""
    recipe, step = case.recipe, step_seconds(case, lengths)
    if isinstance(recipe, DPORecipe):
        return _preference_phases(case, recipe, lengths, step)
    if not recipe.steps:
        return None
    return [Phase(f"{recipe.steps:,} steps", None if step is None else recipe.steps * step)]


def _preference_phases(case: Case, recipe: DPORecipe, lengths: Lengths, step: float | None) -> list[Phase]:
    pairs = most_pairs(recipe)
    steps = int(pairs * recipe.training.epochs / recipe.training.pairs_per_step)
    found = [Phase("sampling", _sampling(case, lengths, recipe.pairs.prompts))]
    if recipe.training.start_logprobs:
        found.append(Phase("start's log-probabilities", _forward(case, lengths, 2 * pairs)))
    return [*found, Phase(f"{steps:,} steps at most", None if step is None else steps * step)]


def most_pairs(recipe: DPORecipe) -> int:
    """Return the pairs there are at most, those of the stage before included."""
    own = recipe.pairs
    most = own.prompts * (len(own.rejected) if own.policy == "concise" else 1)
    return most + (reused_count(most, own.reuse.share) if own.reuse else 0)


# --- one phase each ---


def _sampling(case: Case, lengths: Lengths, prompts: int) -> float | None:
    """All actors at once, each with its share of the prompts."""
    recipe = case.recipe
    own = recipe.rollout
    if not own.gpus_per_actor:
        return None
    share = prompts / own.actors
    gpus, number = case.placement.gpus_an_actor, number_bytes(recipe)
    together = own.chunk_prompts * own.group_size
    if own.engine == "vllm":
        room = vllm_cache(recipe, case.sizes)
        together = max(
            1, min(own.vllm.in_flight, cache_rows(case.sizes, lengths, number, room, own.vllm.tensor_parallel))
        )
    actor = Actor(own.engine == "vllm", gpus, share * own.group_size, together, number)
    return sample_seconds(case.sizes, actor, share, lengths, case.cluster.rates)


def _forward(case: Case, lengths: Lengths, sequences: float) -> float | None:
    return forward_seconds(
        case.sizes,
        case.setup.ranks,
        case.cluster.rates,
        sequences=sequences,
        tokens=lengths.sequence,
        headed=lengths.response,
    )


def _learning(case: Case, lengths: Lengths, sequences: float) -> float | None:
    """The longer of computing and the network, which overlap; and what is offloaded."""
    setup, rates, hosts = case.setup, case.cluster.rates, case.placement.rank_hosts
    computing = learn_seconds(
        case.sizes, setup, rates, sequences=sequences, tokens=lengths.sequence, headed=lengths.response
    )
    micro_batches = _micro_batches(case, sequences * lengths.sequence)
    sent = network_bytes(case.sizes, setup, micro_batches, hosts)
    if computing is None or (sent and not rates.network_gb_s):
        return None
    network = sent / (rates.network_gb_s * 1e9) if rates.network_gb_s else 0.0
    return max(computing, network) + offload_bytes(case.sizes, setup, micro_batches) / (rates.offload_gb_s * 1e9)


def _micro_batches(case: Case, tokens: float) -> int:
    """Of a rank a step: RL packs sequences up to a budget of tokens, TRL takes so many rows or pairs."""
    if isinstance(case.recipe, RLRecipe):
        return ceil(tokens / case.setup.ranks / case.setup.tokens)
    return case.recipe.training.accumulation


def _sync(case: Case) -> float | None:
    first = case.placement.ranks[0].host
    others = {spot.host for spot in case.placement.actors} - {first}
    way = case.recipe.rollout.weight_transport
    return sync_seconds(handed_over(case.sizes, case.setup), len(others), way, case.cluster.rates)
