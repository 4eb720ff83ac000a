"""Which of a prompt's responses is preferred to which: the two stages of EXAONE 4.0 (arXiv 2507.11407, §2.4.3).

`concise` is the first: the shortest correct response against an incorrect one, or a much longer correct one.
`preferred` is the second: the response with the highest reward (preference, language) against that with the lowest.

Pure functions of judged groups. A group that gives no pair says why; nothing is dropped without a reason.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, get_args

import numpy as np

from agapo.curation.rows import Kind
from agapo.schema import Group, Prompt, Response

KINDS: tuple[Kind, ...] = get_args(Kind)
SLACK = 1e-9
"""Rewards are sums of floats: a margin that is met to the last digit but one is met."""


@dataclass(frozen=True)
class Pair:
    """Two responses to a prompt, one preferred to the other."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    """[P] the rendered prompt."""
    chosen: Response
    rejected: Response
    kind: Kind
    """What is wrong with the rejected response."""

    @property
    def margin(self) -> float | None:
        """The chosen response's reward minus the rejected one's; None where one has none."""
        if self.chosen.reward is None or self.rejected.reward is None:
            return None
        return self.chosen.reward - self.rejected.reward


@dataclass(frozen=True)
class Paired:
    """The pairs of all groups, and why the other groups have none."""

    pairs: list[Pair] = field(default_factory=list)
    without: dict[str, int] = field(default_factory=dict)
    """Prompts that give no pair, by reason."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The pairs as rows."""
        return [pair_row(pair) for pair in self.pairs]


def concise_pairs(
    group: Group, *, rejected: Sequence[Literal["incorrect", "longer"]], longer_by: float, seed: int
) -> list[Pair] | str:
    """Return the pairs of a group by correctness and length, or why there is none.

    Chosen is the shortest correct response that came to its end. It is set against one of each kind in `rejected`,
    where the group has one: an incorrect response, drawn by `seed` and the prompt, and the longest correct one with at
    least `longer_by` × as many tokens.
    """
    if not group.verdicts:
        return "no verdict"
    correct = sorted(_finished(r for r in group.responses if r.correct), key=_length)
    if not correct:
        return _none_correct(group.responses)
    chosen = correct[0]
    wrong = [response for response in group.responses if response.correct is False]
    longer = [response for response in correct if _length(response) >= longer_by * _length(chosen)]
    found: dict[str, Response] = {}
    if wrong:
        found["incorrect"] = Random(f"{seed}/{group.prompt.id}/{group.prompt.mode}").choice(wrong)
    if longer and longer[-1] is not chosen:
        found["longer"] = longer[-1]
    pairs = [Pair(group.prompt, group.prompt_ids, chosen, found[kind], kind) for kind in rejected if kind in found]
    return pairs or NO_CONCISE[frozenset(rejected)]


NO_CONCISE = {
    frozenset({"incorrect"}): "none incorrect",
    frozenset({"longer"}): "correct ones about as long",
    frozenset({"incorrect", "longer"}): "all correct and about as long",
}
"""Why a group with a correct response gives no pair, by what the recipe sets it against."""


def preferred_pairs(group: Group, *, min_margin: float, correct_only: bool) -> list[Pair] | str:
    """Return the pair of a group by reward, or why there is none.

    Chosen is the response that came to its end with the highest reward, rejected the one with the lowest; of several,
    the shortest is chosen and the longest rejected. Their rewards differ by at least `min_margin`. With `correct_only`,
    a response with the verdict "wrong" is never chosen.
    """
    scored = [response for response in group.responses if response.reward is not None]
    if not scored:
        return "no reward"
    finished = _finished(scored)
    if not finished:
        return "no finished response"
    fit = [r for r in finished if not (correct_only and r.correct is False)]
    if not fit:
        return _none_correct(scored)
    chosen = max(fit, key=lambda response: (_reward(response), -_length(response)))
    worst = min(scored, key=lambda response: (_reward(response), -_length(response)))
    if _reward(chosen) - _reward(worst) < min_margin - SLACK:
        return "rewards too close"
    return [Pair(group.prompt, group.prompt_ids, chosen, worst, "preferred")]


def pair_up(found: Iterable[list[Pair] | str]) -> Paired:
    """Gather the pairs of all groups; pairs of two responses with the same tokens do not count."""
    pairs: list[Pair] = []
    without: dict[str, int] = {}
    for item in found:
        kept = [] if isinstance(item, str) else [p for p in item if _differ(p)]
        if kept:
            pairs += kept
        else:
            reason = item if isinstance(item, str) else "chosen and rejected alike"
            without[reason] = without.get(reason, 0) + 1
    return Paired(pairs, without)


def _differ(pair: Pair) -> bool:
    return not np.array_equal(pair.chosen.token_ids, pair.rejected.token_ids)


def pair_row(pair: Pair) -> dict[str, Any]:
    """Return a pair as a row: texts to read, and for other trainers, in TRL's columns; and the ids to train on."""
    return {
        "id": pair.prompt.id,
        "mode": pair.prompt.mode,
        "domain": pair.prompt.domain,
        "language": pair.prompt.language,
        "kind": pair.kind,
        "prompt": [dict(message) for message in pair.prompt.messages],
        # The template renders them with the prompt; TRL has the same column.
        **({"tools": tools} if (tools := pair.prompt.columns.get("tools")) else {}),
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "chosen_reward": pair.chosen.reward,
        "rejected_reward": pair.rejected.reward,
        "margin": pair.margin,
        "chosen_tokens": _length(pair.chosen),
        "rejected_tokens": _length(pair.rejected),
        "prompt_ids": list(pair.prompt_ids),
        "chosen_ids": pair.chosen.token_ids.tolist(),
        "rejected_ids": pair.rejected.token_ids.tolist(),
    }


def row_prompt(row: Mapping[str, Any]) -> Prompt:
    """Return the prompt of a row, as far as it decides what the model is shown."""
    columns = {"tools": row["tools"]} if row.get("tools") else {}
    return Prompt(row["id"], tuple(row["prompt"]), row["domain"], row["mode"], row["language"], columns)


def reused_count(own: int, share: float) -> int:
    """Return how many earlier pairs are `share` of them and `own` new ones together."""
    return round(own * share / (1 - share))


def reused(rows: Sequence[Mapping[str, Any]], own: int, share: float, seed: int) -> list[dict[str, Any]]:
    """Return so many of an earlier stage's rows that they are `share` of them and `own` new ones together.

    All of them where there are fewer; which ones depends on the seed and each row's prompt, not on their order.
    """

    def rank(row: Mapping[str, Any]) -> bytes:
        return hashlib.sha256(f"{seed}/{row['id']}/{row['mode']}/{row['kind']}".encode()).digest()

    return [dict(row) for row in sorted(rows, key=rank)[: reused_count(own, share)]]


def training_order(pairs: int, *, epochs: float, per_step: int, seed: int) -> list[int]:
    """Return the indices of the pairs in the order of training: each epoch shuffled, whole steps only, at least one.

    Raises ValueError when all epochs together do not fill a step.
    """
    # Half an epoch of a few pairs more than a step takes is still a step; 100 × 0.29 is 29, not 28.999….
    wanted = max(int(pairs * epochs + SLACK) // per_step, int(pairs >= per_step)) * per_step
    if not wanted:
        raise ValueError(f"{pairs} pairs do not fill a step of {per_step}")
    order: list[int] = []
    epoch = 0
    while len(order) < wanted:
        shuffled = list(range(pairs))
        Random(f"{seed}/pairs/{epoch}").shuffle(shuffled)
        order += shuffled
        epoch += 1
    return order[:wanted]


def _none_correct(responses: Iterable[Response]) -> str:
    """Return what there is where no response that came to its end is correct."""
    return "no correct response" + (" came to its end" if any(response.correct for response in responses) else "")


def _finished(responses: Iterable[Response]) -> list[Response]:
    return [response for response in responses if response.finish == "stop"]


def _length(response: Response) -> int:
    return len(response.token_ids)


def _reward(response: Response) -> float:
    assert response.reward is not None
    return response.reward
