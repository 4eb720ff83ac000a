"""Verifier workers from a recipe: the rewards checked, then a pool on this host or on all of a cluster's."""

import inspect

from agapo.cluster import cluster_nodes
from agapo.recipe.reward import RewardConfig
from agapo.resolve import resolve
from agapo.rewarding.cluster import ClusterVerifierPool
from agapo.rewarding.pool import Term, VerifierPool
from agapo.rewarding.scorer import Scorer
from agapo.rewarding.worker import made_reward, makes_reward, require_arguments


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
