"""From sampled groups to judged ones: the recipe's reward terms, run in the verifier pool, made into one reward.

Terms that judge single responses come first; those that judge a group (conciseness, preference) see the verdicts of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from agapo.errors import UserError
from agapo.recipe.rl import Combination, RewardConfig, RewardTerm
from agapo.rewarding.pool import GroupSample, Pool, Sample, Score
from agapo.schema import Group, Response

Scores = Mapping[str, Score]

_ENOUGH_GROUPS = 8
"""So many prompts without a verdict are no chance."""


@dataclass(frozen=True)
class Scorer:
    """Scores groups as a recipe's `reward` section says."""

    pool: Pool
    reward: RewardConfig

    def submit(self, groups: Sequence[Group]) -> "Future[list[dict[str, Score]]]":
        """Start scoring all responses of the groups; `finish` takes the result."""
        return self.pool.submit([self._sample(group, response) for group in groups for response in group.responses])

    def finish(self, groups: Sequence[Group], scores: Sequence[Scores]) -> list[Group]:
        """Return the groups with rewards, verdicts and errors filled in; waits for the terms that judge groups."""
        remaining = iter(scores)
        by_group = [[dict(next(remaining)) for _ in group.responses] for group in groups]
        self._add_group_scores(groups, by_group)
        return [self._judged(group, found) for group, found in zip(groups, by_group, strict=True)]

    def check(self, groups: Sequence[Group]) -> None:
        """Raise UserError when too many responses met errors, naming the commonest, or when there is no verdict at all.

        A reward that finds none of the columns it reads says nothing; training would go on without learning anything.
        """
        responses = [response for group in groups for response in group.responses]
        if len(groups) >= _ENOUGH_GROUPS and all(r.correct is None and not r.reward_error for r in responses):
            names = sorted({self.reward.verdict_for(group.prompt.domain) for group in groups})
            raise UserError(
                f"reward.verdict: no response has a verdict from {', '.join(names)}: do the data's rows have the "
                "columns that it reads? Try it alone with 'agapo score'"
            )
        errors = [response.reward_error for response in responses if response.reward_error]
        if len(errors) > self.reward.max_error_rate * len(responses):
            (commonest, times), *_ = Counter(errors).most_common(1)
            raise UserError(
                f"reward.max_error_rate: scoring met errors in {len(errors)} of {len(responses)} responses, above "
                f"{self.reward.max_error_rate:.0%}; {times}× {commonest}; try the reward alone with 'agapo score'"
            )

    def _sample(self, group: Group, response: Response) -> Sample:
        names = self._names(group, of_groups=False)
        return Sample(_messages(group), response.text, _columns(group), names)

    def _names(self, group: Group, *, of_groups: bool) -> tuple[str, ...]:
        terms = self.reward.terms_for(group.prompt.domain)
        return tuple(term.name for term in terms if (term.name in self.pool.group_terms) == of_groups)

    def _add_group_scores(self, groups: Sequence[Group], by_group: Sequence[list[dict[str, Score]]]) -> None:
        asked = [index for index, group in enumerate(groups) if self._names(group, of_groups=True)]
        if not asked:
            return
        samples = [self._group_sample(groups[index], by_group[index]) for index in asked]
        for index, found in zip(asked, self.pool.submit_groups(samples).result(), strict=True):
            for term, scores in found.items():
                for response, score in zip(by_group[index], scores, strict=True):
                    response[term] = score

    def _group_sample(self, group: Group, found: Sequence[Scores]) -> GroupSample:
        verdict = self.reward.verdict_for(group.prompt.domain)
        # A verdict that is itself a group's has nothing before it.
        values = [scores[verdict].value if verdict in scores else None for scores in found]
        completions = [response.text for response in group.responses]
        return GroupSample(_messages(group), completions, values, _columns(group), self._names(group, of_groups=True))

    def _judged(self, group: Group, found: Sequence[Scores]) -> Group:
        domain = group.prompt.domain
        terms, verdict = self.reward.terms_for(domain), self.reward.verdict_for(domain)
        combination = self.reward.combination_for(domain)
        responses = tuple(
            _with_reward(response, scores, terms, verdict, combination)
            for response, scores in zip(group.responses, found, strict=True)
        )
        return replace(group, responses=responses)


def _with_reward(
    response: Response, scores: Scores, terms: Sequence[RewardTerm], verdict: str, combination: Combination
) -> Response:
    parts = {name: score.value for name, score in scores.items()}
    errors = [f"{score.error}: {name}: {score.detail}" for name, score in scores.items() if score.error]
    correct = parts[verdict]
    return replace(
        response,
        reward=total(parts, {term.name: term.weight for term in terms}, verdict, combination),
        correct=None if correct is None else correct >= 1,
        reward_parts=parts,
        reward_error=errors[0] if errors else None,
    )


def total(
    parts: Mapping[str, float | None], weights: Mapping[str, float], verdict: str, combination: Combination
) -> float | None:
    """Return one reward: the weighted sum of the terms, or the product of those with a weight.

    None when the verdict, or any term that counts, has no value.
    """
    values = [(weight, parts[name]) for name, weight in weights.items() if weight or name == verdict]
    if any(value is None for _, value in values):
        return None
    if combination == "sum":
        return sum(weight * value for weight, value in values if value is not None)
    product = 1.0
    for weight, value in values:
        product *= value if weight and value is not None else 1.0
    return product


def _messages(group: Group) -> list[dict[str, object]]:
    return [dict(message) for message in group.prompt.messages]


def _columns(group: Group) -> dict[str, object]:
    prompt = group.prompt
    return {**prompt.columns, "mode": prompt.mode, "domain": prompt.domain, "language": prompt.language}
