"""From sampled groups to judged ones: the recipe's reward terms, run in the verifier pool, made into one reward.

Terms that judge single responses come first; those that judge a group (conciseness, preference) see the verdicts of it.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from agapo.errors import UserError
from agapo.recipe.reward import ENOUGH_GROUPS, Combination, RewardConfig, RewardTerm, Truncated
from agapo.rewarding.pool import GroupSample, Pool, Sample, Score
from agapo.schema import Group, Response

Scores = Mapping[str, Score]

AHEAD = 128
"""Groups that `judge` has under way."""
GROUPS_AT_ONCE = 32
"""Groups whose terms for groups are waited for at the same time."""


class Scorer:
    """Judges groups as a recipe's `reward` section says."""

    def __init__(self, pool: Pool, reward: RewardConfig):
        self.pool, self.reward = pool, reward
        # Terms of groups wait for those of single responses: here, since the pool's own threads must not block.
        self._waiting = ThreadPoolExecutor(max_workers=GROUPS_AT_ONCE, thread_name_prefix="scorer")

    def submit(self, group: Group) -> "Future[Group]":
        """Start judging a group; the result has rewards, verdicts and errors, and cut responses as the recipe says.

        The terms that judge the group together start as soon as those of its responses are there. Blocks while too
        many samples wait in the pool. The future raises UserError when a reward does.
        """
        singles = self.pool.submit([self._sample(group, response) for response in group.responses])
        judged: Future[Group] = Future()
        together = bool(self._names(group, of_groups=True))
        finish = partial(self._finish, group, singles, judged)
        singles.add_done_callback(lambda _: self._waiting.submit(finish) if together else finish())
        return judged

    def judge(self, groups: Iterable[Group]) -> Iterator[Group]:
        """Yield the groups judged, in order; some are always ahead, so that the workers do not wait."""
        waiting: deque[Future[Group]] = deque()
        for group in groups:
            waiting.append(self.submit(group))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)

    def close(self) -> None:
        """End the verifier workers; what is not yet judged is cancelled."""
        self.pool.close()
        self._waiting.shutdown(wait=False, cancel_futures=True)

    def _finish(self, group: Group, singles: "Future[list[dict[str, Score]]]", judged: "Future[Group]") -> None:
        try:
            judged.set_result(self._judged(group, self._with_group_scores(group, singles.result())))
        except BaseException as error:
            judged.set_exception(error)

    def check(self, groups: Sequence[Group]) -> None:
        """Raise UserError when too many responses met errors, naming the commonest, or when there is no verdict at all.

        A reward that finds none of the columns it reads says nothing; training would go on without learning anything.
        """
        responses = [response for group in groups for response in group.responses]
        if len(groups) >= ENOUGH_GROUPS and not any(map(self._says_something, groups)):
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

    def _says_something(self, group: Group) -> bool:
        """Whether a response has a verdict's value, or an error; that one was cut, and so is wrong, is neither."""
        verdict = self.reward.verdict_for(group.prompt.domain)
        return any(one.reward_error or one.reward_parts.get(verdict) is not None for one in group.responses)

    def _sample(self, group: Group, response: Response) -> Sample:
        names = self._names(group, of_groups=False)
        # As TRL's trainer, which some of its rewards need; responses from a file have no tokens.
        ids = {"completion_ids": list(response.token_ids)} if response.segments else {}
        return Sample(_messages(group), response.text, {**_columns(group), **ids}, names)

    def _names(self, group: Group, *, of_groups: bool) -> tuple[str, ...]:
        terms = self.reward.terms_for(group.prompt.domain)
        return tuple(term.name for term in terms if (term.name in self.pool.group_terms) == of_groups)

    def _with_group_scores(self, group: Group, found: Sequence[Scores]) -> list[dict[str, Score]]:
        scores = [dict(item) for item in found]
        if self._names(group, of_groups=True):
            (together,) = self.pool.submit_groups([self._group_sample(group, scores)]).result()
            for term, values in together.items():
                for response, score in zip(scores, values, strict=True):
                    response[term] = score
        return scores

    def _group_sample(self, group: Group, found: Sequence[Scores]) -> GroupSample:
        verdict = self.reward.verdict_for(group.prompt.domain)
        # A verdict that is itself a group's has nothing before it.
        values = [scores[verdict].value if verdict in scores else None for scores in found]
        completions = [response.text for response in group.responses]
        correct = [value is not None and value >= self.reward.correct_at for value in values]
        columns = {**_columns(group), "correct": correct}
        return GroupSample(_messages(group), completions, values, columns, self._names(group, of_groups=True))

    def _judged(self, group: Group, found: Sequence[Scores]) -> Group:
        domain = group.prompt.domain
        responses = tuple(
            _with_reward(response, scores, self.reward, domain)
            for response, scores in zip(group.responses, found, strict=True)
        )
        floor = lowest_reward(responses, self.reward.terms_for(domain), self.reward.combination_for(domain))
        return replace(
            group, responses=tuple(judge_truncated(item, self.reward.truncated, floor) for item in responses)
        )


def _with_reward(response: Response, scores: Scores, own: RewardConfig, domain: str) -> Response:
    verdict = own.verdict_for(domain)
    parts = {name: score.value for name, score in scores.items()}
    errors = [f"{score.error}: {name}: {score.detail}" for name, score in scores.items() if score.error]
    correct = parts[verdict]
    return replace(
        response,
        reward=total(
            parts, {term.name: term.weight for term in own.terms_for(domain)}, verdict, own.combination_for(domain)
        ),
        correct=None if correct is None else correct >= own.correct_at,
        reward_parts=parts,
        reward_error=errors[0] if errors else None,
    )


def lowest_reward(responses: Sequence[Response], terms: Sequence[RewardTerm], combination: Combination) -> float:
    """Return the lowest reward that the terms can give: what a response that was cut counts as, if it counts as wrong.

    Terms are taken to give 0 to 1, so that each with a negative weight can take its weight away; where one of the
    group's responses has less still, the terms evidently can give that.
    """
    least = sum(min(0.0, term.weight) for term in terms) if combination == "sum" else 0.0
    return min([least, *(response.reward for response in responses if response.reward is not None)])


def judge_truncated(response: Response, rule: Truncated, lowest: float) -> Response:
    """Return a response that was cut at the token limit as wrong, or as without a verdict; others as they are."""
    if response.finish != "length":
        return response
    if rule == "masked":
        return replace(response, reward=None, correct=None)
    return replace(response, reward=lowest, correct=False)


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
