"""`agapo plan`: what a recipe takes on a described cluster, how long its steps should be, and what would be enough.

Every figure is arithmetic over what is stated in the recipe and in the cluster's file; `rates` in the table says which
numbers are stated, which are defaults, and which were measured. No weights are loaded.
"""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agapo.errors import UserError
from agapo.hub import missing_way
from agapo.model.memory import GIB
from agapo.preflight.model import Rows, base_recipe, memory_rows, model_sizes
from agapo.preflight.planning.fitting import Case, case_of, host_bytes, misfits
from agapo.preflight.planning.pace import Lengths
from agapo.preflight.planning.phases import (
    LENGTH_SHARE,
    lengths_of,
    most_pairs,
    run_phases,
    samples_ahead,
    step_phases,
    step_seconds,
    step_tokens,
    total,
)
from agapo.preflight.planning.placement import spots_text
from agapo.preflight.planning.smallest import Asker, Smallest, smallest
from agapo.preflight.rl import check_memory
from agapo.preflight.sampling import Trained
from agapo.recipe import DescribedCluster, DPORecipe, RLRecipe, SFTRecipe, load_cluster, load_recipe
from agapo.recipe.hardware import RatesConfig
from agapo.recipe.read import recipe_stage

KINDS: dict[str, type[Trained]] = {"rl": RLRecipe, "sft": SFTRecipe, "dpo": DPORecipe}
MEASURED = "measured on an H200, docs/gpu.md"


def plan_recipe(
    path: Path,
    overrides: list[str],
    cluster_path: Path,
    *,
    prompt_tokens: int | None = None,
    response_tokens: int | None = None,
) -> None:
    """Print the plan of a recipe on a described cluster.

    Raises UserError where the recipe cannot be placed there, or does not fit, with the mend.
    """
    cluster, recipe = load_cluster(cluster_path), _load(path, overrides)
    missing_way()
    sizes, where = model_sizes(base_recipe(recipe))
    if sizes is None:
        raise UserError(f"{path}: model.path: a plan needs the model's sizes ({where})")
    asker = Asker(recipe, path, overrides, sizes)
    try:
        case = case_of(recipe, sizes, cluster)
    except UserError as error:
        raise UserError(f"{path} on {cluster_path}: {error}{_would_do(asker, cluster)}") from None
    lengths = lengths_of(case, prompt_tokens, response_tokens)
    table = Table("planned", "found", title=f"{recipe.stage}: {recipe.run.name} on {cluster_path.stem}")
    lacking = misfits(case)
    pace = [] if lacking else _pace_rows(case, lengths)
    for row in (*_memory_rows(case, where), *pace, *_smallest_rows(asker, cluster, case, lengths)):
        table.add_row(*row)
    Console().print(table)
    if lacking:
        raise UserError(f"{path} on {cluster_path}: {lacking[0]}{_would_do(asker, cluster)}")


def _load(path: Path, overrides: list[str]) -> Trained:
    stage = recipe_stage(path)
    if stage not in KINDS:
        raise UserError(f"{path}: stage: '{stage}' trains nothing; a plan is for {', '.join(KINDS)}")
    recipe = load_recipe(KINDS[stage], path, overrides)
    if recipe.data is None:
        raise UserError(f"{path}: a plan is for pairs that are sampled, and this recipe takes pairs.rows: agapo check")
    return recipe


def _memory_rows(case: Case, where: str) -> Rows:
    """Return the rows about memory and places."""
    rows = [("cluster", case.cluster.text), ("model", f"{where}: {case.sizes.parameters:,} parameters")]
    rows += check_memory(case.recipe) if isinstance(case.recipe, RLRecipe) else memory_rows(case.recipe, case.sizes)
    return [
        *rows,
        *_host_rows(case),
        *_place_rows(case),
        *(("warning", text) for text in _warnings(case)),
    ]


# --- memory and places ---


def _host_rows(case: Case) -> Rows:
    held = host_bytes(case)
    fullest = max(held, key=lambda host: held[host])
    if held[fullest] < 0.05 * GIB:
        return []
    of_all = f"{held[fullest] / GIB:.1f} GiB of {case.cluster.host_gib:g}"
    return [("memory of the fullest host", f"host {fullest + 1}: {of_all} (what is offloaded, weights on their way)")]


def _place_rows(case: Case) -> Rows:
    placement, own = case.placement, case.recipe.rollout
    sleeping = " and sleep while they learn" if own.sleep_while_learning else ""
    how = (
        f"share the ranks' GPUs{sleeping}"
        if placement.shared
        else "by turns with the ranks"
        if placement.by_turns
        else "apart"
    )
    return [
        ("ranks", f"{case.setup.ranks}, {spots_text(placement.ranks)}"),
        ("actors", f"{own.actors} with {own.engine}, {how}, {spots_text(placement.actors)}"),
    ]


def _warnings(case: Case) -> Iterator[str]:
    recipe, placement = case.recipe, case.placement
    workers, terms = (recipe.reward.workers, recipe.reward.terms) if recipe.reward else (0, [])
    processes = case.setup.ranks + recipe.rollout.actors + workers
    cores = placement.hosts * case.cluster.cpus_per_host
    if processes > cores:
        yield (
            f"{processes} processes (ranks, actors, reward.workers {workers}) on {cores} cores: lower reward.workers"
        )
    idle = case.cluster.gpus - placement.gpus
    if idle:
        yield f"{idle} of {case.cluster.gpus} GPUs have nothing to do"
    on_gpu = [term.name for term in terms if str(term.args.get("device", "")).startswith("cuda")]
    if on_gpu:
        yield f"rewards on a GPU ({', '.join(on_gpu)}) are not counted: {workers} models beside an actor"


# --- pace ---


def _pace_rows(case: Case, lengths: Lengths) -> Rows:
    phases, run = step_phases(case, lengths), run_phases(case, lengths)
    parts = ", ".join(f"{one.name} {duration(one.seconds)}" for one in phases)
    at_once = "; sampling goes on meanwhile" if samples_ahead(case) else ""
    whole = f"{duration(step_seconds(case, lengths))}{f' ({parts}{at_once})' if len(phases) > 1 else ''}"
    rows = [("a step", f"{_tokens(case, lengths)}; {whole}")]
    if run is None:
        rows.append(("the run", "its steps follow from the dialogues"))
    else:
        of_run = ", ".join(f"{one.name} {duration(one.seconds)}" for one in run)
        whole = f"{duration(total(run))}: " if len(run) > 1 else ""
        rows.append(("the run", f"{whole}{of_run}; without evaluations, rewards, refills and starting up"))
    return [*rows, ("lengths", _lengths_text(case, lengths)), ("rates", "; ".join(_rates(case)))]


def _tokens(case: Case, lengths: Lengths) -> str:
    recipe, tokens = case.recipe, f"{step_tokens(case, lengths):,.0f} tokens"
    if isinstance(recipe, RLRecipe):
        return f"{recipe.nominal_responses} responses, {tokens}"
    if isinstance(recipe, DPORecipe):
        return f"{recipe.training.pairs_per_step} of {most_pairs(recipe):,} pairs at most, {tokens}"
    return f"{recipe.training.rows_per_step} rows, {tokens}"


def _lengths_text(case: Case, lengths: Lengths) -> str:
    given = f"{100 * LENGTH_SHARE:.0f} % of what the recipe allows, or as --prompt-tokens and --response-tokens say"
    if isinstance(case.recipe, SFTRecipe):
        return f"dialogues of {lengths.sequence:,.0f} tokens ({given})"
    return (
        f"prompts of {lengths.prompt:,.0f} and responses of {lengths.response:,.0f} tokens ({given}), the longest of a "
        f"batch {lengths.longest:,}"
    )


def _rates(case: Case) -> Iterator[str]:
    """Yield each rate that the seconds rest on, and where it is from."""
    rates, recipe = case.cluster.rates, case.recipe
    yield f"learning: {_stated(rates.tflops, 'tflops', 'TFLOP/s a GPU')} × {_share(rates, 'learning_share')}"
    if case.setup.offload:
        yield f"offloading: {_share(rates, 'offload_gb_s')} GB/s a GPU"
    if not isinstance(recipe, SFTRecipe):
        yield from _sampling_rates(rates, recipe.rollout.engine)
    if isinstance(recipe, RLRecipe):
        packed = "packed and taken at 1.5 and" if recipe.rollout.weight_transport == "host" else "taken at"
        yield f"weights {packed} 1.95 GB/s ({MEASURED})"
    if case.placement.hosts > 1:
        yield f"between hosts: {_stated(rates.network_gb_s, 'network_gb_s', 'GB/s')}"


def _sampling_rates(rates: RatesConfig, engine: str) -> Iterator[str]:
    if rates.sampling_tokens_s:
        yield f"sampling: {rates.sampling_tokens_s:,.0f} tokens/s an actor (stated)"
        return
    bandwidth = _stated(rates.bandwidth_gb_s, "bandwidth_gb_s", "GB/s of a GPU's memory")
    yield f"decoding: {bandwidth} × {_share(rates, 'bandwidth_share')}, and {engine}'s host time ({MEASURED})"


def _stated(value: float | None, key: str, unit: str) -> str:
    return f"{value:g} {unit} (stated)" if value else f"not known: state rates.{key}"


def _share(rates: RatesConfig, key: str) -> str:
    source = "stated" if key in rates.model_fields_set else "default, an assumption"
    return f"{getattr(rates, key):g} ({source})"


def duration(seconds: float | None) -> str:
    """Return a time in the unit that suits it; of one that is not known, that."""
    if seconds is None:
        return "not estimated"
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


# --- the smallest that would do ---


def _smallest_rows(asker: Asker, cluster: DescribedCluster, case: Case, lengths: Lengths) -> Iterator[tuple[str, str]]:
    """Yield the least that would do, and where that offloads, the least that does not."""
    name, found = "the smallest that would do", smallest(asker, cluster)
    if found is None:
        yield name, "none with up to 64 ranks: take larger GPUs, LoRA if it is not there, or a smaller model"
        return
    yield name, _timed(found, lengths)
    if found.case.setup.offload and not case.setup.offload:
        whole = smallest(asker, cluster, offload=False)
        yield "without offloading", _timed(whole, lengths) if whole else "none with up to 64 ranks"


def _timed(found: Smallest, lengths: Lengths) -> str:
    return f"{_size(found)}; a step: {duration(step_seconds(found.case, lengths))}"


def _would_do(asker: Asker, cluster: DescribedCluster) -> str:
    found = smallest(asker, cluster)
    return f" (the smallest that would do: {_size(found)})" if found else ""


def _size(found: Smallest) -> str:
    hosts, gpus = found.case.cluster.hosts, found.case.placement.gpus
    size = f"{gpus} {'GPU' if gpus == 1 else 'GPUs'} of {found.case.cluster.gpu_gib:g} GiB"
    if hosts > 1:
        size += f" on {hosts} hosts"
    changes = " ".join(f"{key}={value}" for key, value in found.changes.items())
    return f"{size}, {f'with {changes}' if changes else 'as the recipe stands'}"
