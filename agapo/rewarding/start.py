"""Verifier workers from a recipe: the rewards checked, then a pool on this host or on all of a cluster's."""

import inspect
from collections.abc import Iterable

from agapo.cluster import cluster_nodes
from agapo.errors import UserError
from agapo.recipe.reward import RewardConfig
from agapo.resolve import did_you_mean, resolve
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


def check_columns(reward: RewardConfig, prompts: Iterable[Prompt]) -> None:
    """Raise UserError where a reward cannot be called without a column that no question it judges has."""
    asked = list(prompts)
    for term in reward.terms:
        judged = [prompt for prompt in asked if term.judges(prompt.domain)]
        function = resolve(term.function, key="reward.terms")
        if not judged or makes_reward(function):
            continue
        there = {name for prompt in judged for name in prompt.columns} | GIVEN | set(term.args)
        parameters = inspect.signature(function).parameters.values()
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        needed = [one.name for one in parameters if one.default is one.empty and one.kind in named]
        if missing := [name for name in needed if name not in there]:
            known = sorted(there - GIVEN - set(term.args))
            raise UserError(
                f"reward '{term.name}': '{term.function}' reads the column '{missing[0]}', which no question has (they "
                f"have {', '.join(known) or 'none'}){did_you_mean(missing[0], known)}; rename it in the data source"
            )


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
            check(**{name: value for name, value in term.args.items() if name in known})
