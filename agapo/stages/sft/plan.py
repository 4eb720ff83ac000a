"""Which example stands in which packed row: mixed by trained tokens, packed, as many rows as the run has steps for."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple

from agapo.curation.token_mix import Bound, Stratum, mixed
from agapo.errors import UserError
from agapo.learner.trl.packing import pack
from agapo.recipe import SFTRecipe

MANY = 10
"""Times that a dialogue may be trained on without a warning."""
HELD_OUT_MOST = 256
"""Dialogues held out where the recipe leaves their number open, at most; and at most"""
HELD_OUT_SHARE = 20
"""one in so many."""
MANY_OVERLONG = 0.01
"""The share of dialogues that may be too long for a row without a warning."""


class Kind(NamedTuple):
    """What trained tokens are counted under."""

    mode: str
    domain: str
    source: str
    language: str


def overlong_warning(recipe: SFTRecipe, overlong: int, examples: int, longest: int = 0) -> list[str]:
    """Return a warning where many dialogues are longer than a row, with the mend; longest: tokens, where known."""
    if overlong <= MANY_OVERLONG * examples:
        return []
    wish = {"drop": "left out", "truncate": "cut", "refuse": "refused"}[recipe.data.overlong]
    enough = f" (the longest has {longest:,})" if longest else ""
    other = "drop" if recipe.data.overlong == "truncate" else "truncate"
    return [
        f"data: {overlong / examples:.1%} of the dialogues are longer than training.row_tokens "
        f"{recipe.training.row_tokens:,} and {wish}; raise it{enough}, or set data.overlong to {other}"
    ]


def held_out(recipe: SFTRecipe, questions: Sequence[int]) -> list[int]:
    """Return the indices of the examples held out of training, in order; questions [N]: what each one answers.

    All examples to a question are held out together, so a few fewer may be than the recipe wants: of questions that
    all have more, the one with fewest. Raises UserError where nothing would be left to train on.
    """
    wanted = recipe.evaluation.held_out
    if wanted is None:
        wanted = 0 if recipe.prompts else min(HELD_OUT_MOST, max(1, len(questions) // HELD_OUT_SHARE))
    members: dict[int, list[int]] = {}
    for index, question in enumerate(questions):
        members.setdefault(question, []).append(index)
    order = list(members)
    Random(f"{recipe.run.seed}/held out").shuffle(order)
    chosen: list[int] = []
    for question in order:
        if len(chosen) + len(members[question]) <= wanted:
            chosen += members[question]
    if wanted and not chosen and members:
        chosen = min(members.values(), key=len)
    if len(chosen) == len(questions):
        raise UserError(
            f"evaluation.held_out: {wanted} of {len(questions)} dialogues (to {len(members)} questions) leave none to "
            "train on; add rows, or set it to 0"
        )
    return sorted(chosen)


def plan_rows(
    recipe: SFTRecipe, kinds: Sequence[Kind], codes: Sequence[int], lengths: Sequence[int], trained: Sequence[int]
) -> tuple[list[list[int]], list[str]]:
    """Return the packed rows of the run, whole steps of them, and what there is to warn of."""
    training = recipe.training
    warnings: dict[str, None] = {}

    def stream() -> Iterator[tuple[int, int]]:
        order = mix_order(recipe, [kinds[code] for code in codes], trained, lambda line: warnings.setdefault(line))
        return ((index, lengths[index]) for index in order)

    steps = recipe.steps or _steps(stream(), trained, recipe)
    rows = list(pack(stream(), row_tokens=training.row_tokens, rows=steps * training.rows_per_step))
    return rows, [*warnings, *_repeated(rows, kinds, codes), *_all_warm_up(recipe, steps)]


def mix_order(
    recipe: SFTRecipe, kinds: Sequence[Kind], trained: Sequence[int], warn: Callable[[str], object]
) -> Iterator[int]:
    """Return the examples' indices as the recipe mixes them, without end; kinds [N], trained [N]."""
    mix, there = recipe.data.mix, {kind.mode for kind in kinds}
    # Shares that nobody has asked for are of the modes that there are.
    modes = {mode: share for mode, share in mix.shares_of_modes.items() if mix.modes or mode in there}
    return mixed(
        [Stratum(*kind[:3]) for kind in kinds],
        trained,
        modes=modes,
        domains=mix.domains_of,
        sources={name: source.weight for name, source in recipe.data.parts.items()},
        seed=recipe.run.seed,
        shuffled=recipe.data.order == "shuffled",
        bound=Bound(mix.max_repeats, modes_as_they_are=mix.modes is None),
        warn=warn,
    )


def _all_warm_up(recipe: SFTRecipe, steps: int) -> Iterator[str]:
    """Yield a warning where the learning rate of the recipe is hardly reached."""
    # Of steps that the recipe gives, `agapo check` says it without the data.
    if recipe.epochs and recipe.training.warmup_steps >= steps:
        yield (
            f"training.warmup_steps {recipe.training.warmup_steps}: the whole run of {steps} steps is warm-up; lower it"
        )


def _repeated(rows: Sequence[Sequence[int]], kinds: Sequence[Kind], codes: Sequence[int]) -> Iterator[str]:
    """Yield a warning where a dialogue is trained on more than `MANY` times."""
    times = Counter(index for row in rows for index in row)
    (index, most), *_ = times.most_common(1)
    if most > MANY:
        many, where = sum(count > MANY for count in times.values()), kinds[codes[index]]
        yield (
            f"data: {many:,} dialogues are trained on more than {MANY} times, up to {most:,} times (of "
            f"'{where.source}', {where.domain}, {where.mode}); add rows, or train for fewer steps"
        )


def _steps(stream: Iterator[tuple[int, int]], trained: Sequence[int], recipe: SFTRecipe) -> int:
    """Return the steps in which `epochs` times the data's trained tokens fit, rounded up."""
    assert recipe.epochs
    wanted = recipe.epochs * sum(trained)

    def enough() -> Iterator[tuple[int, int]]:
        taken = 0
        for index, length in stream:
            if taken >= wanted:
                return
            taken += trained[index]
            yield index, length

    rows = sum(1 for _ in pack(enough(), row_tokens=recipe.training.row_tokens))
    return -(-rows // recipe.training.rows_per_step)
