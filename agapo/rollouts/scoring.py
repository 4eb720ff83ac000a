"""From sampled groups to judged ones: the recipe's reward terms, run in the verifier pool."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from agapo.errors import UserError
from agapo.rollouts.verifier import Sample, Score, VerifierPool
from agapo.schema import Group, Response


@dataclass(frozen=True)
class Scorer:
    """Scores groups with weighted terms, of which one is the verdict."""

    pool: VerifierPool
    weights: Mapping[str, float]
    """Weight of each reward term by name."""
    verdict: str
    """The term that decides `correct`."""
    max_error_rate: float = 1.0
    """`check` raises when more than this share of the responses met an error."""

    def submit(self, groups: Sequence[Group]) -> "Future[list[dict[str, Score]]]":
        """Start scoring all responses of the groups; `finish` takes the result."""
        return self.pool.submit([_sample(group, response) for group in groups for response in group.responses])

    def finish(self, groups: Sequence[Group], scores: Sequence[Mapping[str, Score]]) -> list[Group]:
        """Return the groups with rewards, verdicts and errors filled in."""
        remaining = iter(scores)
        return [
            replace(group, responses=tuple(self._judge(response, next(remaining)) for response in group.responses))
            for group in groups
        ]

    def check(self, groups: Sequence[Group]) -> None:
        """Raise UserError when too many responses met errors, naming the commonest."""
        responses = [response for group in groups for response in group.responses]
        errors = [response.reward_error for response in responses if response.reward_error]
        if len(errors) > self.max_error_rate * len(responses):
            (commonest, times), *_ = Counter(errors).most_common(1)
            raise UserError(
                f"reward.max_error_rate: scoring met errors in {len(errors)} of {len(responses)} responses, above "
                f"{self.max_error_rate:.0%}; {times}× {commonest}; try the reward alone with 'agapo score'"
            )

    def _judge(self, response: Response, scores: Mapping[str, Score]) -> Response:
        parts = {name: score.value for name, score in scores.items()}
        verdict = parts[self.verdict]
        errors = [f"{score.error}: {score.detail}" for score in scores.values() if score.error]
        return replace(
            response,
            reward=self._total(parts),
            correct=None if verdict is None else verdict >= 1,
            reward_parts=parts,
            reward_error=errors[0] if errors else None,
        )

    def _total(self, parts: Mapping[str, float | None]) -> float | None:
        """The weighted sum; None when the verdict, or any term that counts, has no value."""
        values = [(weight, parts[name]) for name, weight in self.weights.items() if weight or name == self.verdict]
        if any(value is None for _, value in values):
            return None
        return sum(weight * value for weight, value in values if value is not None)


def _sample(group: Group, response: Response) -> Sample:
    prompt = group.prompt
    about = {"mode": prompt.mode, "domain": prompt.domain, "language": prompt.language}
    messages = [dict(message) for message in prompt.messages]
    return Sample(prompt=messages, completion=response.text, columns={**prompt.columns, **about})
