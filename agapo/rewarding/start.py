"""Verifier workers from a recipe: the rewards checked, then a pool on this host or on all of a cluster's."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from agapo.cluster import cluster_nodes
from agapo.errors import UserError
from agapo.recipe.reward import RewardConfig, RewardTerm
from agapo.resolve import did_you_mean, mistake, resolve
from agapo.rewarding.cluster import ClusterVerifierPool
from agapo.rewarding.pool import Term, VerifierPool
from agapo.rewarding.scorer import Scorer
from agapo.rewarding.worker import made_reward, makes_reward, require_arguments
from agapo.schema import Prompt

GIVEN = {"prompts", "completions", "prompt", "scores", "correct", "completion_ids", "mode", "domain", "language"}
"""What every reward is handed, whatever columns the rows have."""


def start_scorer(reward: RewardConfig) -> Scorer:
    """Start the verifier workers: on this host, or, where a Ray cluster of several hosts runs, on all of them.

    Raises UserError when a reward does not import, or says that it cannot work here.
    """
    check_rewards(reward)
    terms = {term.name: Term(term.function, term.args, term.deadline_s, term.form) for term in reward.terms}
    nodes = cluster_nodes()
    if len(nodes) > 1:
        pool = ClusterVerifierPool(terms, workers=reward.workers, deadline_s=reward.deadline_s, nodes=nodes)
    else:
        pool = VerifierPool(terms, workers=reward.workers, deadline_s=reward.deadline_s)
    return Scorer(pool, reward)


def check_columns(reward: RewardConfig, prompts: Iterable[Prompt]) -> list[str]:
    """Return a warning for each reward that reads columns, and finds none of them in the questions that it judges.

    Raises UserError where one cannot be called without a column that none of them has.
    """
    asked = list(prompts)
    judged = {term.name: [prompt for prompt in asked if term.judges(prompt.domain)] for term in reward.terms}
    return [warning for term in reward.terms if judged[term.name] for warning in _missing(term, judged[term.name])]


def _missing(term: RewardTerm, judged: Iterable[Prompt]) -> Iterator[str]:
    function = resolve(term.function, key="reward.terms")
    if makes_reward(function):
        return
    columns = {name for prompt in judged for name in prompt.columns}
    known = sorted(columns - GIVEN - set(term.args))
    have = f"they have {', '.join(known) or 'none'}"
    needed, optional = _columns_of(function, {*GIVEN, *term.args})
    if missing := [name for name in needed if name not in columns]:
        raise UserError(
            f"reward '{term.name}': '{term.function}' reads the column '{missing[0]}', which no question has "
            f"({have}){did_you_mean(missing[0], known)}; rename it in the data source"
        )
    if optional and not needed and columns.isdisjoint(optional):
        yield (
            f"reward '{term.name}': '{term.function}' reads {', '.join(optional)}, and no question has any of them "
            f"({have}): it may never have a verdict; rename columns in the data source"
        )


def _columns_of(function: Callable[..., Any], given: set[str]) -> tuple[list[str], list[str]]:
    """Return the columns that a reward cannot be called without, and those that it reads where they are there.

    The latter are parameters before a `*` with a default of None, or, of one that takes all columns, the names in its
    module's `COLUMNS`.
    """
    parameters = [one for one in inspect.signature(function).parameters.values() if one.name not in given]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [one.name for one in parameters if one.default is one.empty and one.kind in named]
    optional = [one.name for one in parameters if one.default is None and one.kind is one.POSITIONAL_OR_KEYWORD]
    listed = getattr(inspect.getmodule(function), "COLUMNS", ())
    return needed, optional or [name for name in listed if name not in given]


def check_rewards(reward: RewardConfig) -> None:
    """Look at each reward's arguments, and ask its module whether it can work: `check(**args)`, where it has one.

    Raises UserError.
    """
    for number, term in enumerate(reward.terms):
        function = resolve(term.function, key=f"reward.terms.{number}.function")
        require_arguments(term.name, term.function, function, term.args)
        if makes_reward(function):
            made_reward(term.name, term.function, function, term.args)
        check = getattr(inspect.getmodule(function), "check", None)
        if check is not None:
            known = inspect.signature(check).parameters
            own = {name: value for name, value in term.args.items() if name in known}
            _ask(check, own, f"reward.terms.{number}.function: '{term.function}'")


def _ask(check: Callable[..., object], args: Mapping[str, Any], place: str) -> None:
    """Call a module's `check`. Raises UserError, also in the place of anything else that it raises."""
    try:
        check(**args)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{place}: its module's check() fails: {mistake(error)}") from error
